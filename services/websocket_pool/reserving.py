"""Which terminal an account is polled on, when the one it has is about to end."""

import structlog

from mt5kit.errors import ServiceOverloaded
from mt5kit.state.redis import StateFull, StateUnavailable
from websocket_pool.owner import RESERVATION_TTL_S
from websocket_pool.stream_parts import StreamParts

log = structlog.get_logger(__name__)


async def instead_of(reserved: str, account_id: str, parts: StreamParts) -> str:
    """The terminal reserved; if it is ours to poll and drains, another that is free.

    Raises:
        StateUnavailable: Redis is away.
    """
    if not (parts.ours(reserved) and parts.owner.drains(reserved)):
        return reserved
    others = parts.owner.others(reserved)
    try:
        other = await parts.owner.placement.reserve(account_id, others, RESERVATION_TTL_S)
    except StateFull:
        return reserved
    except StateUnavailable:
        raise
    except ServiceOverloaded:
        return reserved
    log.info("stream_leaves", account_id=account_id, terminal_id=reserved, to=other)
    return other
