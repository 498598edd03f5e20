"""An account as time passes: what is due happens, in time order, whoever it surprises."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from terminal_sim.broker import codes
from terminal_sim.broker.agenda import Event, Kind
from terminal_sim.broker.days import DAY_MS
from terminal_sim.broker.dealing import netted
from terminal_sim.broker.desk import Desk, Tickets
from terminal_sim.broker.in_hand import InHand
from terminal_sim.broker.nights import Midnights
from terminal_sim.broker.orders import next_expiry
from terminal_sim.broker.plans import CLIENT, EXPERT, is_planned
from terminal_sim.broker.retcodes import MARKET_CLOSED
from terminal_sim.broker.rollover import rollover
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.trades import NEVER
from terminal_sim.broker.triggers import Trigger
from terminal_sim.broker.values import Change, Position, Terms, TradeRequest
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.tape import Tape

# A close that the market's hours forbid is tried again after so long.
_PATIENCE_MS = 60_000
# Prices are looked at so far ahead at first, then twice as far, up to a day.
_FIRST_REACH_MS = 3_600_000
# Where the numbers for a close stand behind a trade's ticket, where those for a close that leaves
# others' lots in a netting position, and where that for the deal that fills an order.
_CLOSE, _PART, _FILL = 2, 4, 1


class Rules:
    """How a server deals, until its clock is shifted.

    Args:
        tape: Prices.
        terms: Of the server.

    Attributes:
        wall: Its wall clock.
        desk: Its trading rules.
        midnights: When its days begin.
    """

    def __init__(self, tape: Tape, terms: Terms) -> None:
        self.tape = tape
        self.terms = terms
        self.wall = WallClock(terms.clock).shifted(terms.shifts)
        self.desk = Desk(tape, terms, self.wall)
        self.midnights = Midnights(self.wall)


class Surroundings(Protocol):
    """What else an account holds, when only a part of it is lived through."""

    def with_rest(self, state: AccountState, at_ms: int) -> AccountState:
        """Return the whole account at an instant."""
        ...


class Alone:
    """The part is the whole."""

    def with_rest(self, state: AccountState, at_ms: int) -> AccountState:  # noqa: ARG002 - a protocol
        """Return the state itself."""
        return state


@dataclass(slots=True)
class Numbered:
    """Tickets that were planned for something, in a row."""

    ticket: int

    def next(self) -> int:
        """Return the next one."""
        self.ticket += 1
        return self.ticket - 1


class Life:
    """Lets an account live.

    Args:
        state: The account; changes are applied to it.
        events: What its scenario plans.
        rules: Of its server; to be replaced after a shift of the clock.
        tickets: For what nobody planned.
        hand: What of the plans was begun and not ended.
        rest: What it holds besides.
    """

    def __init__(
        self,
        state: AccountState,
        events: Iterator[Event],
        rules: Rules,
        tickets: Tickets,
        hand: InHand,
        rest: Surroundings | None = None,
    ) -> None:
        self.state = state
        self.rules = rules
        self._events = events
        self._next = next(events, None)
        self._hand = hand
        self._netting = state.profile.margin_mode == "netting"
        self._tickets = tickets
        self._rest = rest or Alone()
        self._seen_ms: int | None = None
        self._reach_ms = _FIRST_REACH_MS
        self._hit: Trigger | None = None

    def take(self, change: Change) -> None:
        """Apply a change, its own or one that somebody made meanwhile."""
        if self._concerns(change):
            self._seen_ms = None
        self.state.apply(change)

    def advance(
        self, since_ms: int, until_ms: int, halted: Container[str] = ()
    ) -> Iterator[Change]:
        """Let happen what is due in ``(since_ms, until_ms]``; changes are applied when yielded.

        Of one instant first comes the rollover, then expiries, then what is planned, then stops and
        pending orders. In the symbols ``halted`` nothing triggers and no robot trades.
        """
        at = ticks_from = since_ms
        self._seen_ms = None
        while True:
            due = max(self._due(at), since_ms + 1)
            yield from self._triggers(ticks_from, min(until_ms, due - 1), until_ms, halted)
            if due > until_ms:
                return
            yield from self._happen(due, halted)
            at, ticks_from = due, due - 1

    def _concerns(self, change: Change) -> bool:
        """Tell whether a change puts, moves or takes away something that waits for a price."""
        if change.orders or change.removed:
            return True
        known = self.state.positions
        for ticket in change.gone:
            if known[ticket].sl or known[ticket].tp:
                return True
        return any(_levels(p) != _levels(known.get(p.ticket)) for p in change.positions)

    def _due(self, since_ms: int) -> int:
        """Return when something other than a price makes something happen."""
        due = min(self._next.at_ms if self._next else NEVER, self._hand.first_ms())
        if self.state.orders:
            due = min(due, next_expiry(self.state) or NEVER)
        if self.state.positions or self.state.orders:  # an order may become a position before
            due = min(due, self.rules.midnights.after(since_ms))
        return due

    def _triggers(
        self, since_ms: int, stop_ms: int, until_ms: int, halted: Container[str]
    ) -> Iterator[Change]:
        """Fire what is hit in ``(since_ms, stop_ms]``."""
        while since_ms < stop_ms:
            hit = self._look(since_ms, stop_ms, until_ms, halted)
            if hit is None:
                return
            whole = self._rest.with_rest(self.state, hit.at_ms)
            self._seen_ms = None
            yield from self._made(self.rules.desk.fire(whole, hit, self._numbers(hit)))
            since_ms = hit.at_ms - 1

    def _look(
        self, since_ms: int, stop_ms: int, until_ms: int, halted: Container[str]
    ) -> Trigger | None:
        """Return the first trigger in ``(since_ms, stop_ms]``.

        Looks ahead, further each time, so that what concerns no price costs no other look.
        """
        if self._seen_ms is None:
            self._seen_ms, self._reach_ms, self._hit = since_ms, _FIRST_REACH_MS, None
        while self._hit is None and self._seen_ms < stop_ms:
            to_ms = min(until_ms, self._seen_ms + self._reach_ms)
            desk = self.rules.desk
            self._hit = desk.next_trigger(self.state, self._seen_ms, to_ms, halted=halted)
            self._seen_ms, self._reach_ms = to_ms, min(2 * self._reach_ms, DAY_MS)
        return self._hit if self._hit and self._hit.at_ms <= stop_ms else None

    def _numbers(self, hit: Trigger) -> Tickets:
        if not is_planned(hit.ticket):
            return self._tickets
        return Numbered(hit.ticket + (_FILL if hit.kind == "order" else _CLOSE))

    def _happen(self, at_ms: int, halted: Container[str]) -> Iterator[Change]:
        rules = self.rules
        if self.state.positions and rules.midnights.after(at_ms - 1) == at_ms:
            yield from self._made(rollover(self.state, rules.tape, at_ms, rules.wall))
        if self.state.orders:
            yield from self._made(rules.desk.expire(self.state, at_ms))
        while late := self._hand.take_due(at_ms):
            yield from self._event(late, halted)
        while self._next and self._next.at_ms <= at_ms:
            event, self._next = self._next, next(self._events, None)
            yield from self._event(event, halted)

    def _made(self, change: Change) -> Iterator[Change]:
        if change:
            self.take(change)
            yield change

    def _event(self, event: Event, halted: Container[str]) -> Iterator[Change]:
        if event.kind is Kind.OPENS:
            yield from self._open(event, halted)
        elif event.kind is Kind.CLOSES:
            yield from self._close(event, halted)
        else:
            yield from self._made(event.change)

    def _open(self, event: Event, halted: Container[str]) -> Iterator[Change]:
        (deal,) = event.change.deals
        if event.robot and deal.symbol in halted:
            return
        if self._netting and netted(self.state, deal.symbol):
            for change in self._deal(event, deal.volume, 0, event.ticket):
                self._hand.add_part(event.ticket)
                yield change
        else:
            yield from self._made(event.change)

    def _close(self, event: Event, halted: Container[str]) -> Iterator[Change]:
        (deal,) = event.change.deals
        held = self.state.positions.get(event.ticket)
        part = self._hand.has_part(event.ticket)
        if not held and not part:
            return
        if event.robot and deal.symbol in halted:
            self._postpone(event)
        elif part:
            yield from self._close_part(event)
        elif held and self._undisturbed(held, event):
            yield from self._made(replace(event.change, deals=(replace(deal, swap=held.swap),)))
        elif held:
            yield from self._close_own(event, held)

    def _close_own(self, event: Event, held: Position) -> Iterator[Change]:
        """Close what is left of a position, but not what others have added to it."""
        (deal,) = event.change.deals
        # The rest of a position may yet be closed by a stop, with the numbers of a whole close.
        number = _PART if held.volume > deal.volume else _CLOSE
        volume = min(deal.volume, held.volume)
        yield from self._deal(event, volume, held.ticket, event.ticket + number)

    def _close_part(self, event: Event) -> Iterator[Change]:
        """Undo what was dealt into a netting position, while there is one, without turning it."""
        (deal,) = event.change.deals
        self._hand.end_part(event.ticket)
        held = netted(self.state, deal.symbol)
        if held is None:
            return
        reduces = (held.sign > 0) == (deal.type == codes.DEAL_TYPE_SELL)
        volume = min(deal.volume, held.volume) if reduces else deal.volume
        yield from self._deal(event, volume, 0, event.ticket + _PART)

    def _undisturbed(self, held: Position, event: Event) -> bool:
        """Tell whether a position is what its plan expects to close."""
        (deal,) = event.change.deals
        return (
            event.at_ms == deal.time_ms
            and held.volume == deal.volume
            and not (self._netting and held.updated_ms != held.opened_ms)
        )

    def _deal(self, event: Event, volume: float, position: int, ticket: int) -> Iterator[Change]:
        """Do what is planned by the rules, because the account is not as the plan expects it."""
        (planned,) = event.change.deals
        request = TradeRequest(
            action=codes.TRADE_ACTION_DEAL,
            symbol=planned.symbol,
            volume=volume,
            type=planned.type,
            position=position,
            magic=planned.magic,
            comment=planned.comment,
        )
        whole = self._rest.with_rest(self.state, event.at_ms)
        outcome = self.rules.desk.execute(
            whole,
            request,
            event.at_ms,
            Numbered(ticket),
            reason=EXPERT if planned.magic else CLIENT,
        )
        if outcome.result.retcode == MARKET_CLOSED and event.kind is Kind.CLOSES:
            self._postpone(event)
            if not position:
                self._hand.add_part(event.ticket)
        yield from self._made(outcome.change)

    def _postpone(self, event: Event) -> None:
        self._hand.put_off(event, event.at_ms + _PATIENCE_MS)


def _levels(position: Position | None) -> tuple[float, float]:
    return (position.sl, position.tp) if position else (0.0, 0.0)
