"""What an account's plans have begun and not yet ended, where the plans alone do not tell it."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from terminal_sim.broker.agenda import Event
from terminal_sim.broker.trades import NEVER

Kind: TypeAlias = Literal["parts", "late"]

_encode = msgspec.msgpack.Encoder().encode
_event = msgspec.msgpack.Decoder(Event).decode


class Item(NamedTuple):
    """One thing in hand, as a journal keeps it; ``row`` is None when it is in hand no more."""

    kind: Kind
    ticket: int
    row: bytes | None


class InHand:
    """Parts and late closes, by the tickets of their plans.

    A part is what was dealt into a netting position that others had opened. A late close is one
    that the market's hours, or a fault, have put off.

    Args:
        items: What was in hand when somebody noted it.
        note: Told whatever is taken in hand or given up.

    Raises:
        msgspec.DecodeError: A row is none of ours.
    """

    def __init__(
        self, items: Iterable[Item] = (), note: Callable[[Item], None] = lambda _item: None
    ) -> None:
        self._note = note
        self._parts: set[int] = set()
        self._late: list[Event] = []
        for kind, ticket, row in items:
            if kind == "parts":
                self._parts.add(ticket)
            elif row is not None:
                self._late.append(_event(row))
        heapq.heapify(self._late)

    def items(self) -> Iterator[Item]:
        """Yield everything in hand."""
        for ticket in self._parts:
            yield Item("parts", ticket, b"")
        for event in self._late:
            yield Item("late", event.ticket, _encode(event))

    def has_part(self, ticket: int) -> bool:
        """Tell whether a plan was dealt into a position others had opened."""
        return ticket in self._parts

    def add_part(self, ticket: int) -> None:
        """Note that a plan was dealt into a position others had opened."""
        self._parts.add(ticket)
        self._note(Item("parts", ticket, b""))

    def end_part(self, ticket: int) -> None:
        """Note that it has been undone, or that there is nothing left of it."""
        self._parts.discard(ticket)
        self._note(Item("parts", ticket, None))

    def first_ms(self) -> int:
        """Return when the first late close is to be tried; ``NEVER`` without any."""
        return self._late[0].at_ms if self._late else NEVER

    def take_due(self, at_ms: int) -> Event | None:
        """Return a late close to be tried at an instant and forget it; None: there is none."""
        if self.first_ms() > at_ms:
            return None
        event = heapq.heappop(self._late)
        self._note(Item("late", event.ticket, None))
        return event

    def put_off(self, event: Event, until_ms: int) -> None:
        """Keep a close until it is to be tried again."""
        later = event._replace(at_ms=until_ms)
        heapq.heappush(self._late, later)
        self._note(Item("late", event.ticket, _encode(later)))
