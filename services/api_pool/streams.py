"""Assigning a stream: a terminal of its own, and a ticket to watch it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote
from uuid import UUID

from api_pool.answers import AssignAnswer
from api_pool.directory import KnownAccount
from mt5kit.domain.instants import iso_utc, now_ms
from mt5kit.errors import ServiceOverloaded
from mt5kit.state.redis import (
    BoardStore,
    Lease,
    LeaseStore,
    StateUnavailable,
    StreamPlacementStore,
    TicketStore,
)

TICKET_TTL_S: Final = 30.0
# The browser that was given the ticket comes within its life; the owner then keeps the place.
RESERVATION_TTL_S: Final = 60.0
# Owners speak every second, and a hand-over takes less.
HANDED_OVER_MS: Final = 2_000


@dataclass(frozen=True, slots=True)
class StreamTerminals:
    """The stream terminals as they are at one moment.

    Args:
        every: All that are configured.
        leases: Of those that a replica serves.
        up: Those that take accounts, by their owner's word; also of an owner that has given one
            away just now.
        draining: Those that their owner, or the last that they had, said are about to end.
        heard: Whether any owner has spoken yet.
    """

    every: tuple[str, ...]
    leases: Mapping[str, Lease]
    up: tuple[str, ...]
    draining: frozenset[str]
    heard: bool

    @property
    def room(self) -> int:
        """How many accounts can be streamed: what is up; all before anybody has said."""
        return len(self.up if self.heard else self.every)


@dataclass(frozen=True, slots=True)
class StreamBoard:
    """Looks at the stream terminals.

    Args:
        every: All that are configured.
        board: What their owners say of them.
        leases: Whose they are.
    """

    every: tuple[str, ...]
    board: BoardStore
    leases: LeaseStore

    async def look(self) -> StreamTerminals:
        """How they are now.

        Raises:
            StateUnavailable: The state store is away.
        """
        entries, leases = await self.board.read(), await self.leases.holders(self.every)
        # What a dead owner said last stands on the board for longer than its lease.
        newest_ms = max((entry.at_ms for entry in entries.values()), default=0)
        up = tuple(
            one
            for one in self.every
            if one in entries
            and entries[one].open
            and (one in leases or entries[one].at_ms > newest_ms - HANDED_OVER_MS)
        )
        draining = frozenset(one for one, entry in entries.items() if entry.draining)
        heard = not entries.keys().isdisjoint(self.every)
        return StreamTerminals(self.every, leases, up, draining, heard)


class StreamAssigner:
    """Gives out stream terminals and tickets.

    Args:
        board: The stream terminals.
        placements: Who has which.
        tickets: Of the sockets.
        ws_base_url: Where `/ws/` is reached from outside.
    """

    def __init__(
        self,
        board: StreamBoard,
        placements: StreamPlacementStore,
        tickets: TicketStore,
        ws_base_url: str,
    ) -> None:
        self._board = board
        self._placements = placements
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
        terminals = await self._board.look()
        lease = terminals.leases.get(await self._reserved(account.account_id, terminals))
        ticket = await self._tickets.issue(account.account_id, str(user_id), TICKET_TTL_S)
        path = f"/ws/account/{quote(account.account_id)}?ticket={quote(ticket)}"
        return AssignAnswer(
            instance_id=lease.owner if lease else None,
            ticket=ticket,
            websocket_url=self._base + path,
            expires_at=iso_utc(now_ms() + round(TICKET_TTL_S * 1000)),
        )

    async def _reserved(self, account_id: str, terminals: StreamTerminals) -> str:
        """A terminal that is up; else one that is leased and may be up soon.

        One that nobody leases is given only while no owner has said anything: then all start. One
        that drains is given to nobody; who is on it is led away by its owner, in the middle of its
        line. While there is no other, an account keeps what it has.
        """
        if not terminals.heard:
            return await self._placements.reserve(account_id, terminals.every, RESERVATION_TTL_S)
        had = await self._placements.where(account_id)
        led = terminals.draining & terminals.leases.keys() & {had}
        try:
            first = [*terminals.up, *led]
            return await self._placements.reserve(account_id, first, RESERVATION_TTL_S)
        except StateUnavailable:
            raise
        except ServiceOverloaded:
            some = terminals.leases.keys() - terminals.draining
            stay = [one for one in terminals.every if one == had or one in some]
            return await self._placements.reserve(account_id, stay, RESERVATION_TTL_S)
