"""The books balance whatever is asked of them, at every tick."""

from collections import defaultdict
from math import isfinite
from typing import Any, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.terminal_sim.broker.trading import Trading

from terminal_sim.broker import codes
from terminal_sim.broker.rollover import rollovers_between
from terminal_sim.broker.values import Deal, Terms

SYMBOLS = ("EURUSD", "USDJPY", "XAUUSD")
TERMS = Terms("Tests", "Tests Ltd", 11, "EET-US", commission=2.5)
CENT = 0.005
VOLUMES = st.integers(1, 300).map(lambda hundredths: hundredths / 100)
# A stop or an order stands so far from the market, as a share of the price.
AWAY = st.sampled_from([2e-5, 1e-4, 1e-3, 0.02])


class Accounting(RuleBasedStateMachine):
    """Random requests, ticks and nights, on either kind of account."""

    mode: Literal["hedging", "netting"]

    @initialize(
        mode=st.sampled_from(["hedging", "netting"]),
        currency=st.sampled_from(["USD", "EUR", "JPY"]),
        balance=st.sampled_from([2_000.0, 100_000.0, 10_000_000.0]),
    )
    def open_account(self, mode: Any, currency: str, balance: float) -> None:
        self.mode = mode
        self.trading = Trading(mode, currency=currency, balance=balance, terms=TERMS)

    @rule(symbol=st.sampled_from(SYMBOLS), sign=st.sampled_from([1, -1]), volume=VOLUMES)
    def deal(self, symbol: str, sign: int, volume: float) -> None:
        self.trading.market(sign, symbol, volume)

    @rule(symbol=st.sampled_from(SYMBOLS), sign=st.sampled_from([1, -1]), volume=VOLUMES, away=AWAY)
    def deal_with_stops(self, symbol: str, sign: int, volume: float, away: float) -> None:
        bid = self.trading.quote(symbol).bid
        loss, win = bid * (1 - sign * away) - sign * away, bid * (1 + sign * 2 * away)
        self.trading.market(sign, symbol, volume, sl=loss, tp=win)

    @rule(number=st.integers(0, 20), share=st.sampled_from([0.1, 0.5, 0.9, 1.0]))
    def close(self, number: int, share: float) -> None:
        held = list(self.trading.state.positions.values())
        if not held:
            return
        position = held[number % len(held)]
        volume = max(0.01, round(position.volume * share, 2))
        retcode = self.trading.market(
            -position.sign, position.symbol, volume, position=position.ticket
        )
        assert retcode == 10009

    @rule(
        kind=st.integers(codes.ORDER_TYPE_BUY_LIMIT, codes.ORDER_TYPE_SELL_STOP),
        symbol=st.sampled_from(SYMBOLS),
        volume=VOLUMES,
        away=AWAY,
        seconds=st.sampled_from([0, 20]),
    )
    def place(self, kind: int, symbol: str, volume: float, away: float, seconds: int) -> None:
        quote = self.trading.quote(symbol)
        below = kind in {codes.ORDER_TYPE_BUY_LIMIT, codes.ORDER_TYPE_SELL_STOP}
        price = quote.bid * (1 - away) if below else quote.ask * (1 + away)
        expiration = self.trading.wall.wall_ms(self.trading.now_ms) // 1000 + seconds
        self.trading.pending(
            kind,
            price,
            symbol,
            volume=volume,
            type_time=2 if seconds else 0,
            expiration=expiration if seconds else 0,
        )

    @rule(number=st.integers(0, 20), remove=st.booleans(), away=AWAY)
    def change_order(self, number: int, remove: bool, away: float) -> None:
        pending = list(self.trading.state.orders.values())
        if not pending:
            return
        order = pending[number % len(pending)]
        if remove:
            assert self.trading.send(action=8, order=order.ticket) == 10009
            return
        below = order.type in {codes.ORDER_TYPE_BUY_LIMIT, codes.ORDER_TYPE_SELL_STOP}
        price = order.price_open * (1 - away if below else 1 + away)
        self.trading.send(action=7, order=order.ticket, price=price)

    @rule(number=st.integers(0, 20), away=AWAY)
    def change_stops(self, number: int, away: float) -> None:
        held = list(self.trading.state.positions.values())
        if held:
            position = held[number % len(held)]
            sl = self.trading.quote(position.symbol).bid * (1 - position.sign * 3 * away)
            self.trading.send(action=6, position=position.ticket, symbol=position.symbol, sl=sl)

    @rule(passed=st.sampled_from([50, 400, 5_000, 60_000, 3_600_000, 86_400_000]))
    def pass_time(self, passed: int) -> None:
        since, until = self.trading.now_ms, self.trading.now_ms + passed
        stops = [*rollovers_between(self.trading.wall, since, until), until]
        for stop in stops:
            self._reach(stop)
            if stop != until:
                self.trading.roll(stop)
        self.trading.now_ms = until

    def _reach(self, until: int) -> None:
        trading = self.trading
        expiries = {o.expires_ms for o in trading.state.orders.values() if o.expires_ms <= until}
        for expiry in sorted(expiries - {0}):
            trading.advance(expiry)
            trading.apply(trading.desk.expire(trading.state, expiry))
        trading.advance(until)
        self.equity_is_balance_credit_and_floating_profit()

    @invariant()
    def equity_is_balance_credit_and_floating_profit(self) -> None:
        valued, state = self.trading.value(), self.trading.state
        swaps = sum(position.swap for position in state.positions.values())
        floating = sum(valued.profit.tolist()) + swaps
        assert abs(valued.floating - floating) < CENT
        assert abs(valued.equity - (valued.balance + valued.credit + floating)) < CENT
        assert abs(valued.margin_free - (valued.equity - valued.margin)) < CENT
        assert (valued.balance, valued.credit) == (state.balance, state.credit)
        assert (valued.margin_level == 0) == (valued.margin == 0 or valued.equity == 0)
        if valued.margin:
            assert valued.margin_level == valued.equity / valued.margin * 100

    @invariant()
    def deals_sum_to_the_balance(self) -> None:
        moved = sum(d.profit + d.swap + d.commission + d.fee for d in self.trading.deals)
        assert abs(self.trading.deposit + moved - self.trading.state.balance) < CENT

    @invariant()
    def volume_is_conserved(self) -> None:
        open_volume: dict[int, float] = defaultdict(float)
        for position in self.trading.state.positions.values():
            open_volume[position.identifier] += position.sign * position.volume
        for deal in self.trading.deals:
            open_volume[deal.position_id] -= _signed(deal)
        assert all(abs(volume) < 1e-6 for volume in open_volume.values())

    @invariant()
    def entries_say_what_deals_did(self) -> None:
        volume: dict[int, float] = defaultdict(float)
        for deal in self.trading.deals:
            before = volume[deal.position_id]
            after = volume[deal.position_id] = round(before + _signed(deal), 6)
            grown, turned = abs(after) > abs(before), before * after < 0
            expected = codes.DEAL_ENTRY_IN if grown else codes.DEAL_ENTRY_OUT
            assert deal.entry == (codes.DEAL_ENTRY_INOUT if turned else expected)

    @invariant()
    def netting_never_holds_two_positions_of_a_symbol(self) -> None:
        symbols = [position.symbol for position in self.trading.state.positions.values()]
        assert self.mode == "hedging" or len(set(symbols)) == len(symbols)

    @invariant()
    def no_figure_is_nonsense(self) -> None:
        for position in self.trading.state.positions.values():
            figures = (position.volume, position.price_open, position.margin)
            assert all(isfinite(figure) and figure > 0 for figure in figures)
            assert isfinite(position.swap)
        valued = self.trading.value()
        assert all(isfinite(x) for x in (valued.equity, valued.margin, valued.margin_level))
        assert valued.margin >= 0
        for order in self.trading.done:
            assert order.volume_current >= 0
            assert order.done_ms >= order.setup_ms

    @invariant()
    def tickets_are_given_once_and_history_explains_them(self) -> None:
        done = [order.ticket for order in self.trading.done]
        deals = [deal.ticket for deal in self.trading.deals]
        every = [*done, *deals, *self.trading.state.orders]
        assert len(set(every)) == len(every)
        filled = {o.ticket for o in self.trading.done if o.state == codes.ORDER_STATE_FILLED}
        assert {deal.order for deal in self.trading.deals} == filled
        assert set(self.trading.state.positions) <= filled


def _signed(deal: Deal) -> float:
    return deal.volume if deal.type == codes.DEAL_TYPE_BUY else -deal.volume


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(max_examples=80, stateful_step_count=30)
