"""Orders from the API pool to whoever streams an account."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from enum import StrEnum
from typing import Any

import structlog
from redis.asyncio.client import PubSub

from mt5kit.state.redis.connection import (
    RETRY_AFTER_S,
    RedisStore,
    StateUnavailable,
    answering,
)

LISTEN_S = 5.0
"""After this silence Redis is asked whether it is still there: TCP alone would take minutes."""

ANSWER_S = 2.0
"""As long as any other command may take."""

_RECONNECT_S = 1.0
"""Orders sent meanwhile are lost, so the gap is short; once a second harms no Redis."""


class Control(StrEnum):
    """What has happened to an account."""

    DISCONNECT = "disconnect"
    """Disconnected or deleted by its owner: end its streams."""
    CREDENTIALS = "credentials"
    """New credentials have logged in: use them."""


_KNOWN = frozenset(control.value.encode() for control in Control)


def _ignore_standing() -> None:
    """Nobody asked to be told."""


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
        self, stands: Callable[[], None] = _ignore_standing
    ) -> AsyncIterator[tuple[str, Control]]:
        """Every order sent from now on, as (account, order), for ever; outlives Redis restarts.

        Args:
            stands: Told whenever the subscription stands (again): orders sent before are lost.
        """
        log = structlog.get_logger(__name__)
        away = False
        while True:
            try:
                async for order in self._subscription():
                    if away:
                        log.info("control_channel_back")
                        away = False
                    if order is None:
                        stands()
                    else:
                        yield order
            except StateUnavailable as gone:
                if not away:
                    log.warning("control_channel_lost", error=gone.message)
                away = True
                await asyncio.sleep(_RECONNECT_S)

    async def _subscription(self) -> AsyncIterator[tuple[str, Control] | None]:
        """Orders; None whenever the subscription stands, also when redis-py has renewed it."""
        pattern = self._keys.control("*")
        prefix = len(pattern) - 1
        async with self._redis.pubsub() as pubsub:
            with answering():
                await pubsub.psubscribe(pattern)
            while True:
                message = await _next_message(pubsub)
                if message["type"] == "psubscribe":
                    yield None
                if message["type"] == "pmessage" and message["data"] in _KNOWN:
                    yield message["channel"].decode()[prefix:], Control(message["data"].decode())


async def _next_message(pubsub: PubSub) -> Mapping[str, Any]:
    """What comes next, be it the answer to a ping after a silence.

    Raises:
        StateUnavailable: Redis is away, or its connection is only half open.
    """
    with answering():
        message: Mapping[str, Any] | None = await pubsub.get_message(timeout=LISTEN_S)
        if message is None:
            await pubsub.ping()
            message = await pubsub.get_message(timeout=ANSWER_S)
    if message is None:
        raise StateUnavailable("the subscription does not answer", retry_after_s=RETRY_AFTER_S)
    return message
