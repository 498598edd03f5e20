"""How many sockets a user may have, on all replicas together."""

import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from mt5kit.state.redis import SocketCounts, StateUnavailable
from websocket_pool.admission import Refused
from websocket_pool.close_codes import CloseCode

TTL_S: Final = 45.0
"""A dead replica's sockets are forgotten after this; two renewals may fail before."""

RENEW_S: Final = 15.0
"""Between two renewals."""

log = structlog.get_logger(__name__)


class UserSockets:
    """Counts a user's sockets. While Redis is away only those of this replica count.

    Args:
        counts: Of all replicas.
        most: How many a user may have.
    """

    def __init__(self, counts: SocketCounts, most: int) -> None:
        self._counts = counts
        self._most = most
        self._open: defaultdict[str, set[str]] = defaultdict(set)

    @asynccontextmanager
    async def socket(self, user_id: str) -> AsyncIterator[None]:
        """Room for one more socket of a user.

        Raises:
            Refused: The user has too many.
        """
        socket_id = secrets.token_hex(8)
        # Before the others are asked: two that come at the same time count each other.
        mine = self._open[user_id]
        mine.add(socket_id)
        try:
            if len(mine) > self._most or not await self._entered(user_id, socket_id):
                raise Refused(CloseCode.TOO_MANY, f"at most {self._most} connections a user")
            yield
        finally:
            mine.discard(socket_id)
            if not mine:
                self._open.pop(user_id, None)
            await self._left(user_id, socket_id)

    async def renew(self) -> None:
        """Say that the open sockets are open still.

        Raises:
            StateUnavailable: Redis is away.
        """
        open_now = {user_id: list(sockets) for user_id, sockets in self._open.items()}
        await self._counts.renew(open_now, TTL_S)

    async def _entered(self, user_id: str, socket_id: str) -> bool:
        try:
            return await self._counts.enter(user_id, socket_id, self._most, TTL_S)
        except StateUnavailable as away:
            log.info("sockets_counted_here_only", error=away.message)
            return True

    async def _left(self, user_id: str, socket_id: str) -> None:
        try:
            await self._counts.leave(user_id, socket_id)
        except StateUnavailable as away:
            log.info("socket_left_counted", error=away.message)
