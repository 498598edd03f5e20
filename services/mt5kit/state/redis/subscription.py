"""Listening to Redis pub/sub across its restarts: at most once, what is sent meanwhile is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from mt5kit.state.redis.connection import RETRY_AFTER_S, StateUnavailable, answering

LISTEN_S = 5.0
"""After this silence Redis is asked whether it is still there: TCP alone would take minutes."""

ANSWER_S = 2.0
"""As long as any other command may take."""

_RECONNECT_S = 1.0
"""What is sent meanwhile is lost, so the gap is short; once a second harms no Redis."""


def ignore_standing() -> None:
    """Nobody asked to be told."""


async def subscribed(
    redis: Redis, pattern: str, stands: Callable[[], None] = ignore_standing
) -> AsyncIterator[tuple[str, bytes]]:
    """Every message sent from now on, as (channel, message), for ever; outlives Redis restarts.

    Args:
        redis: The client; one of its connections is taken for as long as this runs.
        pattern: Of the channels.
        stands: Told whenever the subscription stands (again): messages sent before are lost.
    """
    log = structlog.get_logger(__name__).bind(channel=pattern)
    away = False
    while True:
        try:
            async for message in _messages(redis, pattern):
                if away:
                    log.info("subscription_back")
                    away = False
                if message is None:
                    stands()
                else:
                    yield message
        except StateUnavailable as gone:
            if not away:
                log.warning("subscription_lost", error=gone.message)
            away = True
            await asyncio.sleep(_RECONNECT_S)


async def _messages(redis: Redis, pattern: str) -> AsyncIterator[tuple[str, bytes] | None]:
    """Messages; None whenever the subscription stands, also when redis-py has renewed it."""
    async with redis.pubsub() as pubsub:
        with answering():
            await pubsub.psubscribe(pattern)
        while True:
            message = await _next_message(pubsub)
            if message["type"] == "psubscribe":
                yield None
            if message["type"] == "pmessage":
                yield message["channel"].decode(), message["data"]


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
