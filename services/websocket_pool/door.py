"""From a handshake to a session: origin, ticket, limits, source."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import structlog

from mt5kit.errors import AccountNotFound, InternalFault, Unauthenticated, Unavailable
from mt5kit.state.redis import Redeemed, StateUnavailable, TicketGrant, TicketStore
from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.admission import Admission, Refused
from websocket_pool.close_codes import CloseCode, label_of
from websocket_pool.hub import Hub
from websocket_pool.messages import ACCOUNT_ID, Auth, BadMessage, parse, parse_since, too_large
from websocket_pool.resume import ResumeTickets
from websocket_pool.session import Session, SessionRules, Socket, SocketGone
from websocket_pool.source import StreamOver

log = structlog.get_logger(__name__)

AUTH_S: Final = 10.0
"""Long enough for a page on a bad line to send its first message."""

PASSING: Final = frozenset({CloseCode.RESTART, CloseCode.OVERLOADED, CloseCode.TOO_MANY})
"""Refusals after which the same ticket may open the door: it has opened nothing."""


@dataclass(frozen=True, slots=True)
class Knock:
    """What a handshake says. `origin` is None where the client is no browser."""

    account_id: str
    origin: str | None = None
    ticket: str | None = None
    since: str = ""


@dataclass(frozen=True, slots=True)
class Door:
    """Lets clients in.

    Args:
        origins: Pages that may open sockets; `*` lets all.
        tickets: Single-use tickets.
        resume: Tickets of open sockets.
        admission: Limits.
        hub: The streams.
        rules: Times of sessions.
        metrics: Counts what is closed.
    """

    origins: Collection[str]
    tickets: TicketStore
    resume: ResumeTickets
    admission: Admission
    hub: Hub
    rules: SessionRules
    metrics: StreamMetrics

    async def serve(self, socket: Socket, knock: Knock) -> None:
        """Serve an accepted socket until it is closed."""
        try:
            with self.admission.socket():
                code = await self._serve(socket, knock)
        except Refused as refused:
            code = refused.code
            await socket.close(refused.code, refused.reason)
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
        redeemed = await self._redeemed(socket, knock)
        try:
            return await self._entered(socket, knock, redeemed.grant)
        except Refused as refused:
            if refused.code in PASSING:
                await self._put_back(redeemed)
            raise

    async def _entered(self, socket: Socket, knock: Knock, grant: TicketGrant) -> int:
        try:
            with self.admission.user(grant.user_id):
                return await self._session(socket, knock, grant)
        except AccountNotFound:
            raise Refused(CloseCode.NOT_FOUND, "no such account") from None
        except StreamOver as over:
            raise Refused(over.code, over.reason) from None
        except Unavailable as away:
            raise Refused(CloseCode.OVERLOADED, away.message) from away

    async def _put_back(self, redeemed: Redeemed) -> None:
        try:
            await self.tickets.put_back(redeemed)
        except StateUnavailable as away:
            log.info("ticket_not_put_back", error=away.message)

    def _welcomes(self, origin: str) -> bool:
        return "*" in self.origins or origin.lower() in self.origins

    async def _redeemed(self, socket: Socket, knock: Knock) -> Redeemed:
        ticket = knock.ticket or await self._first_message(socket)
        try:
            redeemed = await self.tickets.redeem(ticket)
        except Unauthenticated as refused:
            raise Refused(CloseCode.UNAUTHENTICATED, refused.message) from None
        except StateUnavailable as away:
            raise Refused(CloseCode.OVERLOADED, away.message) from away
        grant = redeemed.grant
        if grant.scope != "account":
            raise Refused(CloseCode.UNAUTHENTICATED, "the ticket opens something else")
        if grant.account_id != knock.account_id or not ACCOUNT_ID.fullmatch(knock.account_id):
            raise Refused(CloseCode.NOT_FOUND, "no such account")
        return redeemed

    async def _first_message(self, socket: Socket) -> str:
        try:
            async with asyncio.timeout(AUTH_S):
                text = await socket.receive()
            if too_large(text):
                raise Refused(CloseCode.TOO_LARGE, "messages have at most 4 KiB")
            said = parse(text)
        except (TimeoutError, BadMessage):
            raise Refused(CloseCode.UNAUTHENTICATED, "expected a ticket") from None
        if not isinstance(said, Auth) or not said.ticket:
            raise Refused(CloseCode.UNAUTHENTICATED, "expected a ticket")
        return said.ticket

    async def _session(self, socket: Socket, knock: Knock, grant: TicketGrant) -> int:
        source = await self.hub.source(grant.account_id)
        ticket = await self.resume.issue(grant)
        if source.ending is not None:
            # It ended while we wrote the ticket, so nobody has told this socket why.
            self.resume.leave(ticket)
            raise Refused(*source.ending)
        session = Session(socket, source, ticket, self.rules, self.metrics)
        try:
            code = await session.run(parse_since(knock.since))
        except BaseException:
            self.resume.leave(ticket)
            raise
        if code == CloseCode.ENDED:
            await self.resume.discard(ticket)
        else:
            self.resume.leave(ticket)
        return code
