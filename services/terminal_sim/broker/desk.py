"""A broker's desk: decides requests, fills what the market has reached, and never changes a state.

Every method returns a :class:`~terminal_sim.broker.values.Change` for the caller to apply.
"""

from collections.abc import Container
from dataclasses import dataclass

from msgspec.structs import replace

from terminal_sim.broker import orders, retcodes
from terminal_sim.broker.amounts import Prices
from terminal_sim.broker.codes import (
    DEAL_ENTRY_OUT,
    DEAL_REASON_EXPERT,
    DEAL_REASON_SL,
    DEAL_REASON_TP,
    TRADE_ACTION_DEAL,
    TRADE_ACTION_MODIFY,
    TRADE_ACTION_PENDING,
    TRADE_ACTION_REMOVE,
    TRADE_ACTION_SLTP,
    order_sign,
)
from terminal_sim.broker.days import TradingHours
from terminal_sim.broker.dealing import Instruction, Tickets, deal
from terminal_sim.broker.margins import held_margin
from terminal_sim.broker.requests import instructed, restopped, target
from terminal_sim.broker.retcodes import Refusal, objected, refused
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.triggers import Trigger, Watcher
from terminal_sim.broker.values import (
    NOTHING,
    Change,
    CheckResult,
    Order,
    Position,
    Terms,
    TradeRequest,
    TradeResult,
)
from terminal_sim.broker.valuing import Valuation, Valuer
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.tape import Tape

__all__ = ["EXPERT", "Desk", "Outcome", "Tickets"]

EXPERT = DEAL_REASON_EXPERT
"""Reason of what a program asks for."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request.

    Attributes:
        result: The answer.
        change: What it did to the account; ``NOTHING`` when it was refused.
    """

    result: TradeResult
    change: Change


class _Trial:
    """Tickets of deals that are only tried: below all real ones."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        self._last -= 1
        return self._last


class Desk:
    """The trading rules of one server.

    Args:
        tape: Prices.
        terms: Of the server: commission and trading days.
        wall: Its wall clock; after a shift of the clock make a new desk.
    """

    def __init__(self, tape: Tape, terms: Terms, wall: WallClock) -> None:
        self.tape = tape
        self.terms = terms
        self.wall = wall
        self.hours = TradingHours(terms.trading_days, wall)
        self._watcher = Watcher(tape.market, self.hours)

    def execute(
        self,
        state: AccountState,
        request: TradeRequest,
        now_ms: int,
        tickets: Tickets,
        *,
        reason: int = EXPERT,
        investor: bool = False,
    ) -> Outcome:
        """Carry a request out at a UTC instant, or refuse it.

        Args:
            state: The account; stays as it is.
            request: Whatever a client sent.
            now_ms: UTC epoch milliseconds.
            tickets: Numbers for the order and the deal; a refusal takes none.
            reason: ``DEAL_REASON_*`` of who asks.
            investor: The client logged in with the read-only password.
        """
        prices = Prices.of(self.tape, now_ms, state.profile)
        try:
            self._admit(state, request, now_ms, investor=investor)
            change = self._decide(state, request, prices, tickets, reason)
        except Refusal as refusal:
            return Outcome(refused(refusal.retcode), NOTHING)
        return Outcome(_answer(request, change, prices), change)

    def check(
        self, state: AccountState, request: TradeRequest, now_ms: int, *, investor: bool = False
    ) -> CheckResult:
        """Return what would come of a request, with the account as if it had been carried out.

        Figures come also with 10019, because they show what is missing; other refusals have none.
        """
        prices = Prices.of(self.tape, now_ms, state.profile)
        retcode = retcodes.CHECKED
        try:
            self._admit(state, request, now_ms, investor=investor)
            if request.action == TRADE_ACTION_DEAL:
                change = self._tried(state, instructed(state, request, prices, EXPERT), prices)
                retcode = retcodes.NO_MONEY if self._short(state, change, now_ms) else retcode
            else:
                change = self._decide(state, request, prices, _Trial(), EXPERT)
        except Refusal as refusal:
            return objected(refusal.retcode)
        after = self._after(state, change, now_ms)
        return CheckResult(
            retcode=retcode,
            comment=retcodes.TEXTS[retcode],
            balance=after.balance,
            equity=after.equity,
            profit=after.floating,
            margin=after.margin,
            margin_free=after.margin_free,
            margin_level=after.margin_level,
        )

    def next_trigger(
        self, state: AccountState, since_ms: int, until_ms: int, *, halted: Container[str] = ()
    ) -> Trigger | None:
        """Return the first tick in ``(since_ms, until_ms]`` that :meth:`fire` has to act on.

        See :meth:`terminal_sim.broker.triggers.Watcher.next`.
        """
        return self._watcher.next(state, since_ms, until_ms, halted)

    def fire(self, state: AccountState, trigger: Trigger, tickets: Tickets) -> Change:
        """Fill an order or close a position at the tick that reached its price.

        An order the account has no money for ends rejected.

        Raises:
            KeyError: The account does not have it any more.
        """
        prices = Prices.of(self.tape, trigger.at_ms, state.profile)
        if trigger.kind != "order":
            position = state.positions[trigger.ticket]
            return self._deal(state, _stopped(position, trigger), prices, tickets)
        order = state.orders[trigger.ticket]
        try:
            return self._afforded(state, _due(order), prices, tickets)
        except Refusal:
            return orders.rejected(order, prices)

    def expire(self, state: AccountState, now_ms: int) -> Change:
        """End the pending orders whose time has come at a UTC instant."""
        prices = Prices.of(self.tape, now_ms, state.profile)
        due = [o for o in state.orders.values() if o.expires_ms and o.expires_ms <= now_ms]
        ends = [orders.expired(order, prices) for order in due]
        return Change(
            removed=tuple(order.ticket for order in due),
            done=tuple(order for end in ends for order in end.done),
        )

    def _admit(
        self, state: AccountState, request: TradeRequest, now_ms: int, *, investor: bool
    ) -> None:
        """Refuse what nobody may ask, or not now."""
        if investor:
            raise Refusal(retcodes.TRADE_DISABLED)
        if not self.hours.is_open(target(state, request), now_ms):
            raise Refusal(retcodes.MARKET_CLOSED)

    def _decide(
        self,
        state: AccountState,
        request: TradeRequest,
        prices: Prices,
        tickets: Tickets,
        reason: int,
    ) -> Change:
        if request.action == TRADE_ACTION_DEAL:
            instruction = instructed(state, request, prices, reason)
            return self._afforded(state, instruction, prices, tickets)
        if request.action == TRADE_ACTION_PENDING:
            draft = orders.drafted(state, request, prices, self.wall, reason)
            return Change(orders=(replace(draft, ticket=tickets.next()),))
        if request.action == TRADE_ACTION_SLTP:
            return Change(positions=(restopped(state, request, prices),))
        order = state.orders[request.order]
        if request.action == TRADE_ACTION_MODIFY:
            return Change(orders=(orders.modified(order, request, prices, self.wall),))
        return orders.cancelled(order, prices)

    def _deal(
        self, state: AccountState, instruction: Instruction, prices: Prices, tickets: Tickets
    ) -> Change:
        return deal(state, prices, self.terms.commission, instruction, tickets)

    def _tried(self, state: AccountState, instruction: Instruction, prices: Prices) -> Change:
        return self._deal(state, instruction, prices, _Trial())

    def _afforded(
        self, state: AccountState, instruction: Instruction, prices: Prices, tickets: Tickets
    ) -> Change:
        if self._short(state, self._tried(state, instruction, prices), prices.now_ms):
            raise Refusal(retcodes.NO_MONEY)
        return self._deal(state, instruction, prices, tickets)

    def _short(self, state: AccountState, change: Change, now_ms: int) -> bool:
        """Tell whether the account cannot pay for a change: it needs more margin than is free."""
        if all(made.entry == DEAL_ENTRY_OUT for made in change.deals):
            return False
        after = self._after(state, change, now_ms)
        before = held_margin(state.positions.values(), state.profile.margin_mode)
        return after.margin_free < 0 and after.margin > before

    def _after(self, state: AccountState, change: Change, now_ms: int) -> Valuation:
        trial = AccountState(
            state.profile,
            positions=tuple(state.positions.values()),
            orders=tuple(state.orders.values()),
            balance=state.balance,
            credit=state.credit,
        )
        trial.apply(change)
        return Valuer(self.tape).value(trial, now_ms)


def _answer(request: TradeRequest, change: Change, prices: Prices) -> TradeResult:
    done = TradeResult(retcodes.DONE, retcodes.TEXTS[retcodes.DONE])
    if request.action == TRADE_ACTION_DEAL:
        made = change.deals[0]
        quote = prices.quote(made.symbol)
        return TradeResult(
            retcode=done.retcode,
            comment=done.comment,
            deal=made.ticket,
            order=made.order,
            volume=made.volume,
            price=made.price,
            bid=quote.bid,
            ask=quote.ask,
        )
    if request.action == TRADE_ACTION_PENDING:
        order = change.orders[0]
        quote = prices.quote(order.symbol)
        return TradeResult(
            retcode=done.retcode,
            comment=done.comment,
            order=order.ticket,
            volume=order.volume_initial,
            price=order.price_open,
            bid=quote.bid,
            ask=quote.ask,
        )
    if request.action in {TRADE_ACTION_MODIFY, TRADE_ACTION_REMOVE}:
        return TradeResult(retcode=done.retcode, comment=done.comment, order=request.order)
    return done


def _stopped(position: Position, trigger: Trigger) -> Instruction:
    """Return the close of a position by one of its stops, with MetaTrader's comment."""
    by_loss = trigger.kind == "sl"
    level = position.sl if by_loss else position.tp
    digits = INSTRUMENTS[position.symbol].digits
    return Instruction(
        symbol=position.symbol,
        sign=-position.sign,
        volume=position.volume,
        magic=position.magic,
        reason=DEAL_REASON_SL if by_loss else DEAL_REASON_TP,
        comment=f"[{trigger.kind} {level:.{digits}f}]",
        closes=position,
    )


def _due(order: Order) -> Instruction:
    return Instruction(
        symbol=order.symbol,
        sign=order_sign(order.type),
        volume=order.volume_current,
        magic=order.magic,
        reason=order.reason,
        comment=order.comment,
        sl=order.sl,
        tp=order.tp,
        filling=order.type_filling,
        pending=order,
    )
