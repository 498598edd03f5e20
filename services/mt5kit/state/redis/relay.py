"""What replicas tell each other about live accounts by pub/sub; lost while nobody listens."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Literal

import msgspec
import structlog
from redis.asyncio import Redis

from mt5kit.state.redis.subscription import ignore_standing, subscribed

_GLOB = re.compile(r"([*?\[\]\\])")


class Frame(msgspec.Struct, frozen=True):
    """A message of a line.

    `seq` numbers it; `head` is what a follower must know of it, opaque here; `text` is the encoded
    message as every socket gets it.
    """

    seq: int
    head: bytes
    text: bytes


class Relayed(msgspec.Struct, frozen=True):
    """Something to know about an account.

    `frame`: the next message of `epoch`. `look`: follow again, for the line is a new one (of
    `epoch`) or has ended (0). `wanted`: somebody asks the owner to stream the account.
    """

    kind: Literal["frame", "look", "wanted"]
    account_id: str
    epoch: int = 0
    frame: Frame | None = None


def wanted(account_id: str) -> bytes:
    """The message that asks an owner to stream an account."""
    return b"wanted\n%b" % account_id.encode()


def read_relayed(message: bytes) -> Relayed:
    """What a message says.

    Raises:
        ValueError: It is none of ours.
    """
    kind, _, rest = message.partition(b"\n")
    if kind == b"wanted":
        return Relayed("wanted", _name(rest))
    if kind == b"look":
        account_id, epoch = rest.split(b"\n")
        return Relayed("look", _name(account_id), int(epoch))
    if kind == b"frame":
        account_id, epoch, seq, size, body = rest.split(b"\n", 4)
        head = int(size)
        if not 0 <= head <= len(body):
            raise ValueError("the head is longer than the message")
        frame = Frame(int(seq), body[:head], body[head:])
        return Relayed("frame", _name(account_id), int(epoch), frame)
    raise ValueError("unknown kind of message")


def _name(account_id: bytes) -> str:
    if not account_id or b"\n" in account_id:
        raise ValueError("no account's name")
    return account_id.decode()


async def relayed(
    redis: Redis, channel: str, stands: Callable[[], None] = ignore_standing
) -> AsyncIterator[Relayed]:
    """Everything sent to one channel from now on, for ever; outlives Redis restarts.

    Args:
        redis: The client; one of its connections is taken for as long as this runs.
        channel: Of one replica.
        stands: Told whenever the subscription stands (again): what was sent before is lost.
    """
    log = structlog.get_logger(__name__)
    async for _, message in subscribed(redis, _GLOB.sub(r"\\\1", channel), stands):
        try:
            told = read_relayed(message)
        except ValueError as malformed:
            log.warning("relay_malformed", error=str(malformed), size=len(message))
        else:
            yield told
