"""Orders from the API pool to whoever streams an account."""

from collections.abc import AsyncIterator, Callable
from enum import StrEnum

from mt5kit.state.redis.connection import RedisStore
from mt5kit.state.redis.subscription import ignore_standing, subscribed


class Control(StrEnum):
    """What has happened to an account."""

    DISCONNECT = "disconnect"
    """Disconnected by its owner: end its streams."""
    DELETED = "deleted"
    """Deleted by its owner: end its streams."""
    CREDENTIALS = "credentials"
    """New credentials have logged in: use them."""


_KNOWN = frozenset(control.value.encode() for control in Control)


class ControlChannel(RedisStore):
    """Orders by Redis pub/sub: at most once, to the replicas that listen now."""

    __slots__ = ()

    async def publish(self, account_id: str, control: Control) -> int:
        """Send an order; how many replicas heard it.

        Raises:
            StateUnavailable: Redis is away.
        """
        return int(await self._command("PUBLISH", self._keys.control(account_id), control.value))

    async def listen(
        self, stands: Callable[[], None] = ignore_standing
    ) -> AsyncIterator[tuple[str, Control]]:
        """Every order sent from now on, as (account, order), for ever; outlives Redis restarts.

        Args:
            stands: Told whenever the subscription stands (again): orders sent before are lost.
        """
        pattern = self._keys.control("*")
        prefix = len(pattern) - 1
        async for channel, order in subscribed(self._redis, pattern, stands):
            if order in _KNOWN:
                yield channel[prefix:], Control(order.decode())
