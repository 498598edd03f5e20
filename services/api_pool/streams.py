"""Assigning a stream: a terminal of its own, and a ticket to watch it."""

from typing import Final
from urllib.parse import quote
from uuid import UUID

from api_pool.answers import AssignAnswer
from api_pool.directory import KnownAccount
from mt5kit.domain.instants import iso_utc, now_ms
from mt5kit.state.redis import LeaseStore, StreamPlacementStore, TicketStore

TICKET_TTL_S: Final = 30.0
# The browser that was given the ticket comes within its life; the owner then keeps the place.
RESERVATION_TTL_S: Final = 60.0


class StreamAssigner:
    """Gives out stream terminals and tickets.

    Args:
        terminals: Every stream terminal's id.
        placements: Who has which.
        leases: Whose they are.
        tickets: Of the sockets.
        ws_base_url: Where `/ws/` is reached from outside.
    """

    def __init__(
        self,
        terminals: tuple[str, ...],
        placements: StreamPlacementStore,
        leases: LeaseStore,
        tickets: TicketStore,
        ws_base_url: str,
    ) -> None:
        self._terminals = terminals
        self._placements = placements
        self._leases = leases
        self._tickets = tickets
        self._base = ws_base_url.rstrip("/")

    async def assign(self, user_id: UUID, account: KnownAccount) -> AssignAnswer:
        """Reserve a stream terminal and make a single-use ticket.

        Raises:
            Conflict: The account is disconnected.
            LoginRefused: The broker refuses its credentials.
            ServiceOverloaded: Every stream terminal is taken, or the state store is away.
        """
        account.require_connected()
        terminal_id = await self._placements.reserve(
            account.account_id, self._terminals, RESERVATION_TTL_S
        )
        lease = await self._leases.holder(terminal_id)
        ticket = await self._tickets.issue(account.account_id, str(user_id), TICKET_TTL_S)
        path = f"/ws/account/{quote(account.account_id)}?ticket={quote(ticket)}"
        return AssignAnswer(
            instance_id=lease.owner if lease else None,
            ticket=ticket,
            websocket_url=self._base + path,
            expires_at=iso_utc(now_ms() + round(TICKET_TTL_S * 1000)),
        )
