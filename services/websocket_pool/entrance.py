"""Who is at the door: by a ticket, or by a token of Supabase."""

import asyncio
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

import structlog

from mt5kit.domain.instants import now_ms
from mt5kit.errors import AccountNotFound, Unauthenticated, Unavailable
from mt5kit.state.postgres import Standing
from mt5kit.state.redis import Redeemed, StateUnavailable, TicketGrant, TicketStore
from websocket_pool.admission import Refused
from websocket_pool.close_codes import CloseCode
from websocket_pool.messages import ACCOUNT_ID, Auth, BadMessage, parse, too_large
from websocket_pool.session import Socket
from websocket_pool.tokens import Bearer

log = structlog.get_logger(__name__)

AUTH_S: Final = 10.0
"""Long enough for a page on a bad line to send its first message."""

_EXPECTED: Final = 'expected {"type": "auth"} with a ticket or a token'


class Verifier(Protocol):
    """What the entrance needs of `TokenVerifier`."""

    async def verify(self, token: str) -> Bearer:
        """Whose token it is.

        Raises:
            Unauthenticated: It is not good.
            Unavailable: That cannot be told now.
        """


class Accounts(Protocol):
    """What the entrance needs of `CredentialSource`."""

    async def standing(self, account_id: str) -> Standing:
        """Whose an account is.

        Raises:
            AccountNotFound: There is no such account.
            Unavailable: It cannot be read now.
        """


@dataclass(frozen=True, slots=True)
class Knock:
    """What a handshake says. `origin` is None where the client is no browser."""

    account_id: str
    origin: str | None = None
    ticket: str | None = field(default=None, repr=False)
    since: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who is there, and for how long.

    Args:
        grant: What they may see; its `until_ms` is the end of their right, UTC epoch milliseconds.
        redeemed: The ticket that was shown, if it was one.
    """

    grant: TicketGrant
    redeemed: Redeemed | None = None

    @property
    def left_s(self) -> float:
        """Seconds until their right ends."""
        return max(0.0, self.grant.until_ms - now_ms()) / 1000


@dataclass(frozen=True, slots=True)
class Entrance:
    """Finds out who a client is.

    Args:
        tickets: Single-use tickets.
        verifier: Of tokens.
        accounts: Whose an account is; a token names its user only.
        lifetime_s: How long a ticket lets a client stay, with all its resumes.
    """

    tickets: TicketStore
    verifier: Verifier
    accounts: Accounts
    lifetime_s: float

    async def admit(self, socket: Socket, knock: Knock) -> Admitted:
        """The client, once it has said who it is.

        Raises:
            Refused: It may not see the account, or did not say.
            SocketGone: It has left.
        """
        if not ACCOUNT_ID.fullmatch(knock.account_id):
            raise Refused(CloseCode.NOT_FOUND, "no such account")
        if knock.ticket is not None:
            return await self._by_ticket(knock.ticket, knock.account_id)
        said = await self._first_message(socket)
        if said.ticket is not None:
            return await self._by_ticket(said.ticket, knock.account_id)
        if said.token is not None:
            return await self._by_token(said.token, knock.account_id)
        raise Refused(CloseCode.UNAUTHENTICATED, _EXPECTED)

    async def put_back(self, admitted: Admitted) -> None:
        """Let a ticket that has opened nothing open something yet."""
        if admitted.redeemed is None:
            return
        try:
            await self.tickets.put_back(admitted.redeemed)
        except StateUnavailable as away:
            log.info("ticket_not_put_back", error=away.message)

    async def _by_ticket(self, ticket: str, account_id: str) -> Admitted:
        try:
            redeemed = await self.tickets.redeem(ticket)
        except Unauthenticated as refused:
            raise Refused(CloseCode.UNAUTHENTICATED, refused.message) from None
        except StateUnavailable as away:
            raise Refused(CloseCode.OVERLOADED, away.message) from away
        grant = redeemed.grant
        if grant.scope != "account":
            raise Refused(CloseCode.UNAUTHENTICATED, "the ticket opens something else")
        if grant.account_id != account_id:
            raise Refused(CloseCode.NOT_FOUND, "no such account")
        until_ms = grant.until_ms or now_ms() + round(self.lifetime_s * 1000)
        if until_ms <= now_ms():
            raise Refused(CloseCode.UNAUTHENTICATED, "the connection's time is over")
        return Admitted(TicketGrant(account_id, grant.user_id, until_ms=until_ms), redeemed)

    async def _by_token(self, token: str, account_id: str) -> Admitted:
        try:
            bearer = await self.verifier.verify(token)
            standing = await self.accounts.standing(account_id)
        except Unauthenticated as refused:
            raise Refused(CloseCode.UNAUTHENTICATED, refused.message) from None
        except AccountNotFound:
            raise Refused(CloseCode.NOT_FOUND, "no such account") from None
        except Unavailable as away:
            raise Refused(CloseCode.OVERLOADED, away.message) from away
        if UUID(str(standing.user_id)) != bearer.user_id:
            # As if there were none: whose it is, is nobody else's business.
            raise Refused(CloseCode.NOT_FOUND, "no such account")
        until_ms = round(bearer.expires_s * 1000)
        return Admitted(TicketGrant(account_id, str(bearer.user_id), until_ms=until_ms))

    @staticmethod
    async def _first_message(socket: Socket) -> Auth:
        try:
            async with asyncio.timeout(AUTH_S):
                text = await socket.receive()
            if too_large(text):
                raise Refused(CloseCode.TOO_LARGE, "messages have at most 4 KiB")
            said = parse(text)
        except (TimeoutError, BadMessage):
            raise Refused(CloseCode.UNAUTHENTICATED, _EXPECTED) from None
        if not isinstance(said, Auth):
            raise Refused(CloseCode.UNAUTHENTICATED, _EXPECTED)
        return said
