"""Orders from the API pool to whoever streams an account."""

import asyncio
from collections.abc import AsyncIterator
from enum import StrEnum

import structlog

from mt5kit.state.redis.connection import RedisStore, StateUnavailable, answering

_LISTEN_S = 30.0
"""How long one wait for an order lasts; the next follows at once."""

_RECONNECT_S = 1.0
"""Orders sent meanwhile are lost, so the gap is short; once a second harms no Redis."""


class Control(StrEnum):
    """What has happened to an account."""

    DISCONNECT = "disconnect"
    """Disconnected or deleted by its owner: end its streams."""
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

    async def listen(self) -> AsyncIterator[tuple[str, Control]]:
        """Every order sent from now on, as (account, order), for ever; outlives Redis restarts."""
        log = structlog.get_logger(__name__)
        away = False
        while True:
            try:
                async for order in self._subscription():
                    if away:
                        log.info("control_channel_back")
                        away = False
                    if order is not None:
                        yield order
            except StateUnavailable as gone:
                if not away:
                    log.warning("control_channel_lost", error=gone.message)
                away = True
                await asyncio.sleep(_RECONNECT_S)

    async def _subscription(self) -> AsyncIterator[tuple[str, Control] | None]:
        """Orders of one connection; None once when it stands."""
        pattern = self._keys.control("*")
        prefix = len(pattern) - 1
        async with self._redis.pubsub() as pubsub:
            with answering():
                await pubsub.psubscribe(pattern)
            while True:
                with answering():
                    message = await pubsub.get_message(timeout=_LISTEN_S)
                if message is None:
                    continue
                if message["type"] == "psubscribe":
                    yield None
                if message["type"] == "pmessage" and message["data"] in _KNOWN:
                    yield message["channel"].decode()[prefix:], Control(message["data"].decode())
