"""From a handshake to a session: origin, limits, who it is, what it watches."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import structlog

from mt5kit.domain.instants import now_ms
from mt5kit.errors import AccountNotFound, InternalFault, ServiceOverloaded, Unavailable
from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.admission import Admission, Refused
from websocket_pool.close_codes import CloseCode, label_of
from websocket_pool.entrance import Admitted, Entrance, Knock
from websocket_pool.hub import Hub
from websocket_pool.messages import Place, encode, parse_since
from websocket_pool.resume import ResumeTickets
from websocket_pool.session import Session, SessionRules, Socket, SocketGone
from websocket_pool.source import StreamOver
from websocket_pool.subscriptions import SubscriptionBook
from websocket_pool.user_sockets import UserSockets

log = structlog.get_logger(__name__)

PASSING: Final = frozenset({CloseCode.RESTART, CloseCode.OVERLOADED, CloseCode.TOO_MANY})
"""Refusals after which the same ticket may open the door: it has opened nothing."""

FINAL: Final = frozenset({CloseCode.ENDED, CloseCode.UNAUTHENTICATED})
"""Endings after which a resume ticket opens nothing any more."""


@dataclass(slots=True)
class Door:
    """Lets clients in.

    Args:
        origins: Pages that may open sockets; `*` lets all.
        entrance: Finds out who a client is.
        resume: Tickets of open sockets.
        admission: Limits of this replica.
        users: Limits of a user.
        hub: The streams.
        rules: Times of sessions.
        metrics: Counts what is closed.
        book: Records who watches what; None without a database.
    """

    origins: Collection[str]
    entrance: Entrance
    resume: ResumeTickets
    admission: Admission
    users: UserSockets
    hub: Hub
    rules: SessionRules
    metrics: StreamMetrics
    book: SubscriptionBook | None = None

    async def serve(self, socket: Socket, knock: Knock) -> None:
        """Serve an accepted socket until it is closed."""
        try:
            with self.admission.socket(knock.address):
                code = await self._serve(socket, knock)
        except Refused as refused:
            code = refused.code
            await _turn_away(socket, knock.account_id, refused)
        except SocketGone as gone:
            code = gone.code
        except InternalFault:
            log.exception("socket_failed")
            code = CloseCode.INTERNAL
            await socket.close(code, "a fault on our side")
        self.metrics.closed.labels(label_of(code)).inc()

    async def _serve(self, socket: Socket, knock: Knock) -> int:
        if knock.origin is not None and not self._welcomes(knock.origin):
            raise Refused(CloseCode.ORIGIN_REFUSED, "this origin is not on the list")
        admitted = await self.entrance.admit(socket, knock)
        try:
            return await self._entered(socket, knock, admitted)
        except Refused as refused:
            if refused.code in PASSING:
                await self.entrance.put_back(admitted)
            raise

    async def _entered(self, socket: Socket, knock: Knock, admitted: Admitted) -> int:
        try:
            async with self.users.socket(admitted.grant.user_id):
                return await self._watching(socket, knock, admitted)
        except AccountNotFound:
            raise Refused(CloseCode.NOT_FOUND, "no such account") from None
        except StreamOver as over:
            raise Refused(over.code, over.reason) from None
        except Unavailable as away:
            raise Refused(
                CloseCode.OVERLOADED, away.message, retry_after_s=away.retry_after_s
            ) from away

    def _welcomes(self, origin: str) -> bool:
        return "*" in self.origins or origin.lower() in self.origins

    async def _watching(self, socket: Socket, knock: Knock, admitted: Admitted) -> int:
        since = parse_since(knock.since)
        channel = await self.hub.channel(knock.account_id, admitted.grant.user_id, since)
        ticket = await self.resume.issue(admitted.grant)
        if channel.ending is not None:
            # It ended while we wrote the ticket, so nobody has told this socket why.
            self.resume.leave(ticket)
            raise Refused(*channel.ending)
        code: int = CloseCode.INTERNAL
        row = self.book.opened(knock.account_id) if self.book else None
        try:
            session = Session(socket, channel, ticket, self.rules, self.metrics)
            code = await session.run(since, lifetime_s=admitted.left_s)
        finally:
            if self.book is not None and row is not None:
                self.book.closed(row, code)
            if code not in FINAL:
                self.resume.leave(ticket)
        if code in FINAL:
            await self.resume.discard(ticket)
        return code


async def _turn_away(socket: Socket, account_id: str, refused: Refused) -> None:
    """A close frame has no room for when to come back: that is said before."""
    if refused.retry_after_s is not None:
        data = {
            "code": ServiceOverloaded.code,
            "message": refused.reason,
            "retry_after_s": refused.retry_after_s,
        }
        error = encode("error", Place(account_id, 0, 0), now_ms(), data)
        try:
            await socket.send(error)
        except SocketGone:
            return
    await socket.close(refused.code, refused.reason)
