"""Tickets by which a socket may come back without its issuer."""

from typing import Final

import structlog

from mt5kit.state.redis import StateUnavailable, TicketGrant, TicketStore

RESUME_TTL_S: Final = 120.0
"""A laptop's nap. It extends nobody's right: that ends when the first ticket's does."""

RENEW_S: Final = 15.0
"""As often as heartbeats."""

log = structlog.get_logger(__name__)


class ResumeTicket:
    """The ticket of one socket; `value` changes when it was lost and another was made."""

    def __init__(self, value: str, grant: TicketGrant) -> None:
        self.value = value
        self.grant = grant


class ResumeTickets:
    """Keeps the tickets of all open sockets alive."""

    def __init__(self, store: TicketStore) -> None:
        self._store = store
        self._open: set[ResumeTicket] = set()

    async def issue(self, grant: TicketGrant) -> ResumeTicket:
        """A ticket for what a socket was granted, renewed until `leave` or `discard`.

        Raises:
            StateUnavailable: Redis is away.
        """
        ticket = ResumeTicket(await self._new(grant), grant)
        self._open.add(ticket)
        return ticket

    def leave(self, ticket: ResumeTicket) -> None:
        """The socket has gone; its ticket lives for two more minutes."""
        self._open.discard(ticket)

    async def discard(self, ticket: ResumeTicket) -> None:
        """The socket was closed for good; its ticket opens nothing."""
        self._open.discard(ticket)
        try:
            await self._store.discard(ticket.value)
        except StateUnavailable as away:
            log.warning("resume_ticket_left", error=away.message)

    async def renew_all(self) -> None:
        """Renew every ticket once; one that is gone is replaced.

        Raises:
            StateUnavailable: Redis is away.
        """
        for ticket in list(self._open):
            if not await self._store.renew(ticket.value, RESUME_TTL_S):
                ticket.value = await self._new(ticket.grant)

    async def _new(self, grant: TicketGrant) -> str:
        return await self._store.issue(
            grant.account_id,
            grant.user_id,
            RESUME_TTL_S,
            grant.scope,
            grant.tier,
            until_ms=grant.until_ms,
        )
