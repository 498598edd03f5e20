"""order_*, market_book_*, the package's own helpers, and what faults do to calls."""

import math
import os
import random
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terminal_sim.catalogue import catalogue
from terminal_sim.faults.active import ActiveFaults
from terminal_sim.faults.kinds import (
    AccountSwitched,
    AnswerLost,
    AutotradingOff,
    BrokerDisconnected,
    CrashInCall,
    HistoryEmpty,
    IpcError,
    Latency,
    Requote,
    SlowLogin,
)
from terminal_sim.market.clocks import WallClock
from terminal_sim.module.build import build
from terminal_sim.scenario.model import Scenario
from terminal_sim.terminal import mischance
from terminal_sim.terminal.commands import NotSwitched
from terminal_sim.terminal.mischance import CRASH_CODE, delay_ms, lognormal_sigma
from terminal_sim.terminal.session import Terminal, Timing
from terminal_sim.testing import DirectBrokers, ManualClock, MemoryBoard

SERVER = "MT5Swarm-Demo"
BRUNO = {"login": 5001002, "password": "Demo-1002-main", "server": SERVER}
BUY = {"action": 1, "symbol": "EURUSD", "volume": 0.1, "type": 0, "price": 1.1, "deviation": 10}
TIMEOUT = (-10005, "IPC timeout")


@pytest.fixture(scope="module")
def shared(demo: Scenario) -> Any:
    """A module for tests that do not mind what it was asked before."""
    clock = ManualClock(1_795_005_296_789)
    brokers = DirectBrokers.of(demo, clock)
    module = build(Terminal(brokers, clock, Timing(login_seconds=0), MemoryBoard()))
    assert module.initialize(login=5001001, password="Demo-1001-main")
    return module


def bought(mt5: Any, **fields: Any) -> Any:
    result = mt5.order_send({**BUY, **fields})
    assert result.retcode == mt5.TRADE_RETCODE_DONE, result
    return result


def test_a_market_order_opens_a_position_and_its_opposite_closes_it(mt5: Any) -> None:
    before = mt5.positions_total()
    result = bought(mt5, comment="mine", magic=5, sl=0.5)
    tick = mt5.symbol_info_tick("EURUSD")
    assert (result.volume, result.price, result.comment) == (0.1, tick.ask, "Request executed")
    assert result.deal
    assert result.request_id
    assert result.request == (1, 5, 0, "EURUSD", 0.1, 1.1, 0, 0.5, 0, 10, 0, 0, 0, 0, "mine", 0, 0)
    assert result.request.comment == "mine"
    (row,) = mt5.positions_get(ticket=result.order)
    assert (row.symbol, row.type, row.volume, row.magic, row.comment, row.sl) == (
        *("EURUSD", 0, 0.1, 5, "mine", 0.5),
    )
    assert (row.price_open, row.price_current) == (tick.ask, tick.bid)
    half = bought(mt5, type=1, position=row.ticket, volume=0.04)
    assert mt5.positions_get(ticket=result.order)[0].volume == pytest.approx(0.06)
    rest = bought(mt5, type=1, position=row.ticket, volume=0.06)
    assert mt5.positions_total() == before
    deals = mt5.history_deals_get(position=result.order)
    assert [deal.ticket for deal in deals] == [result.deal, half.deal, rest.deal]
    assert [deal.entry for deal in deals] == [0, 1, 1]
    (order,) = mt5.history_orders_get(ticket=half.order)
    assert (order.state, order.position_id) == (mt5.ORDER_STATE_FILLED, result.order)
    assert mt5.history_deals_get(ticket=half.order) == (deals[1],)


def test_every_request_has_an_id_of_its_own(mt5: Any) -> None:
    ids = [bought(mt5, volume=0.01).request_id for _ in range(3)]
    assert len(set(ids)) == 3


def test_a_request_may_be_a_dictionary_or_keywords(shared: Any) -> None:
    one, two = shared.order_send(BUY), shared.order_send(**BUY)
    assert one.retcode == two.retcode == shared.TRADE_RETCODE_DONE
    assert one.request == two.request


class Claiming:
    """Claims to be a dictionary, as a proxy of a remote one does."""

    __class__ = dict  # type: ignore[assignment]  # the claim


class Lots(float):
    """As numpy's float64, a float."""


@pytest.mark.parametrize("function", ["order_send", "order_check"])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1,), {}), ((BUY, BUY), {}), ((BUY,), {"volume": 1.0}), ((Claiming(),), {})],
)
def test_what_is_no_request_at_all(
    shared: Any, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    assert getattr(shared, function)(*args, **kwargs) is None
    assert shared.last_error() == (-2, "Unnamed arguments not allowed")


@pytest.mark.parametrize("function", ["order_send", "order_check"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sl", 0),
        ("tp", None),
        ("volume", None),
        ("volume", "1"),
        ("volume", 1),
        ("price", 1),
        ("magic", -1),
        ("magic", 2**64),
        ("magic", 1.0),
        ("type", "buy"),
        ("position", 1.5),
        ("expiration", datetime(2027, 1, 1, tzinfo=UTC)),
        ("comment", 5),
        ("comment", "x" * 30),
        ("comment", "\ud800"),
        ("symbol", "X" * 32),
        ("symbol", None),
    ],
)
def test_a_field_of_a_wrong_kind_is_named(
    shared: Any, function: str, field: str, value: object
) -> None:
    held = shared.positions_total()
    assert getattr(shared, function)({**BUY, field: value}) is None
    assert shared.last_error() == (-2, f'Invalid "{field}" argument')
    assert shared.positions_total() == held


def test_fields_it_does_not_know_and_subclasses_do_no_harm(shared: Any) -> None:
    given = {**BUY, "volume": Lots(0.1), "comment": "x" * 29, "colour": object()}
    assert shared.order_send(given).retcode == shared.TRADE_RETCODE_DONE


FIELDS = catalogue().structs["TradeRequest"]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.integers(0, 12),
    st.floats(),
    st.floats(0.01, 2),
    st.text(max_size=33),
    st.sampled_from(["EURUSD", "XAUUSD", 0.1, 1.1, 5, 6, 7, 8, 10, math.nan, math.inf]),
)


@settings(
    max_examples=400,
)
@given(
    st.sampled_from(["order_send", "order_check"]), st.dictionaries(st.sampled_from(FIELDS), VALUES)
)
def test_no_request_whatsoever_gives_a_traceback(
    shared: Any, function: str, fields: dict[str, Any]
) -> None:
    result = getattr(shared, function)({**BUY, **fields})
    code, text = shared.last_error()
    if result is None:
        assert (code, text.startswith('Invalid "')) == (-2, True)
    else:
        assert code == 1
        assert result.comment
        assert isinstance(result.retcode, int)
        assert isinstance(result.request.volume, float)


def test_a_check_trades_nothing_and_tells_what_would_be_left(mt5: Any) -> None:
    info, held = mt5.account_info(), mt5.positions_total()
    result = mt5.order_check(BUY)
    assert (result.retcode, result.comment) == (0, "Done")
    assert result.balance == info.balance
    assert result.margin > info.margin
    assert result.margin_free < info.margin_free
    assert result.request.symbol == "EURUSD"
    assert mt5.order_check({**BUY, "volume": 99.0}).retcode == mt5.TRADE_RETCODE_NO_MONEY
    assert mt5.positions_total() == held


def test_a_pending_order_is_shown_on_the_brokers_clock_and_removed(
    mt5: Any, clock: ManualClock
) -> None:
    tick, wall = mt5.symbol_info_tick("EURUSD"), WallClock("EET-US")
    until = wall.wall_ms(clock.at_ms) // 1000 + 86_400
    pending = {"action": 5, "type": 2, "price": round(tick.ask * 0.9, 5), "type_filling": 2}
    result = bought(mt5, **pending, type_time=2, expiration=until)
    (row,) = mt5.orders_get(ticket=result.order)
    assert (row.time_expiration, row.time_setup_msc) == (until, wall.wall_ms(clock.at_ms))
    assert (row.type, row.price_open, row.price_current) == (2, pending["price"], tick.ask)
    assert (row.time_done, row.time_done_msc, row.position_id) == (0, 0, 0)
    assert mt5.order_send({"action": 8, "order": row.ticket}).retcode == mt5.TRADE_RETCODE_DONE
    assert mt5.orders_get(ticket=result.order) == ()
    (done,) = mt5.history_orders_get(ticket=result.order)
    assert (done.state, done.time_done_msc) == (mt5.ORDER_STATE_CANCELED, row.time_setup_msc)


def test_a_read_only_password_trades_nothing(mt5: Any) -> None:
    assert mt5.login(5001001, password="Demo-1001-view", server=SERVER)
    assert mt5.account_info().trade_allowed is False
    assert mt5.order_send(BUY).retcode == mt5.TRADE_RETCODE_TRADE_DISABLED


def test_the_autotrading_button(mt5: Any, terminal: Terminal) -> None:
    terminal.inject(1, AutotradingOff())
    held = mt5.positions_total()
    assert mt5.terminal_info().trade_allowed is False
    result = mt5.order_send(BUY)
    assert (result.retcode, result.comment) == (10027, "AutoTrading disabled by client")
    assert (result.request.volume, mt5.positions_total()) == (0.1, held)
    terminal.mend(1)
    assert mt5.terminal_info().trade_allowed is True
    assert bought(mt5)


def test_without_a_line_everything_stands_still(
    mt5: Any, terminal: Terminal, clock: ManualClock
) -> None:
    terminal.inject(1, BrokerDisconnected())
    info, tick, held = mt5.account_info(), mt5.symbol_info_tick("EURUSD"), mt5.positions_get()
    assert (info.trade_allowed, mt5.terminal_info().connected) == (False, False)
    clock.at_ms += 120_000
    assert (mt5.account_info(), mt5.positions_get()) == (info, held)
    assert mt5.symbol_info_tick("EURUSD") == tick
    assert mt5.copy_rates_from_pos("EURUSD", 1, 0, 1)["time"][0] <= tick.time
    assert mt5.copy_ticks_range("EURUSD", tick.time + 1, tick.time + 60, -1).size == 0
    for function in (mt5.order_send, mt5.order_check):
        assert (function(BUY).retcode, function(BUY).comment) == (10031, "No connection")
        assert mt5.last_error()[0] == 1
    assert mt5.history_deals_get(0, 2**32) is None
    assert mt5.last_error()[0] == -1
    terminal.mend(1)
    terminal.tend_line()
    assert mt5.terminal_info().connected is True
    assert mt5.symbol_info_tick("EURUSD").time_msc > tick.time_msc
    assert bought(mt5)


def test_nobody_logs_in_without_a_line(mt5: Any, terminal: Terminal) -> None:
    terminal.inject(1, BrokerDisconnected())
    assert mt5.login(**BRUNO, timeout=1) is False
    assert mt5.last_error() == TIMEOUT
    terminal.mend(1)
    assert mt5.login(**BRUNO)


def test_a_login_that_waits_for_nothing_is_announced_as_long_as_it_takes(
    mt5: Any, terminal: Terminal, clock: ManualClock, board: MemoryBoard
) -> None:
    assert mt5.login(1, password="x", server="No such", timeout=300) is False
    assert clock.at_ms + 300 in board.untils
    assert board.untils[-1] == 0
    assert mt5.account_info() is None


def test_history_that_was_seen_is_there_without_a_line(mt5: Any, terminal: Terminal) -> None:
    seen = mt5.history_deals_get(0, 2**32)
    terminal.inject(1, BrokerDisconnected())
    assert mt5.history_deals_get(0, 2**32, group="*") == seen
    assert seen


def test_an_account_that_is_not_let_in_again_is_gone(
    mt5: Any, terminal: Terminal, board: MemoryBoard
) -> None:
    assert terminal.session
    terminal.session.line.refused = True
    assert mt5.account_info() is None
    assert mt5.last_error() == (-6, "Terminal: Authorization failed")
    assert (mt5.terminal_info().connected, board.logins[-1]) == (False, 0)
    assert mt5.login(5001001)


@pytest.mark.parametrize(
    ("answer", "retcode"), [("timeout", 10012), ("connection", 10031), ("none", None)]
)
def test_a_lost_answer_leaves_the_position(
    mt5: Any, brokers: DirectBrokers, answer: Any, retcode: int | None
) -> None:
    held = mt5.positions_total()
    brokers.houses[SERVER].inject(1, AnswerLost(answer=answer, times=1))
    result = mt5.order_send(BUY)
    if retcode is None:
        assert (result, mt5.last_error()) == (None, TIMEOUT)
    else:
        assert result.retcode == retcode
    assert mt5.positions_total() == held + 1


def test_buy_sell_and_close(mt5: Any) -> None:
    one, two = mt5.Buy("NZDUSD", 0.1, comment="in"), mt5.Sell("NZDUSD", 0.2)
    assert [row.type for row in mt5.positions_get(symbol="NZDUSD")][-2:] == [0, 1]
    assert mt5.positions_get(ticket=one.order)[0].comment == "in"
    assert mt5.Close("NZDUSD", ticket=two.order, comment="out") is True
    assert mt5.positions_get(ticket=two.order) == ()
    assert mt5.Close("NZDUSD") is True
    assert mt5.Close("NZDUSD") is False
    assert mt5.Buy("NZDUSD", 0.1, 0.6).retcode == mt5.TRADE_RETCODE_DONE
    assert mt5.Buy("NOPE", 0.1) is None
    assert mt5.Sell("NZDUSD", "much") is None
    assert mt5._RawOrder(0, "NZDUSD", 0.01, 0.6, None, None).volume == 0.01
    mt5.shutdown()
    assert mt5.Close("NZDUSD") is None


def test_helpers_try_again_after_requotes(mt5: Any, brokers: DirectBrokers) -> None:
    house = brokers.houses[SERVER]
    house.inject(1, Requote(times=9))
    assert mt5.Buy("EURUSD", 0.1).retcode == mt5.TRADE_RETCODE_DONE
    house.inject(2, Requote(times=10))
    assert mt5.Sell("EURUSD", 0.1).retcode == mt5.TRADE_RETCODE_REQUOTE
    assert mt5.Sell("EURUSD", 0.1).retcode == mt5.TRADE_RETCODE_DONE
    mt5.Buy("NZDUSD", 0.1), mt5.Buy("NZDUSD", 0.1)
    house.inject(3, Requote(times=10))
    assert mt5.Close("NZDUSD") == "Partially"


def test_what_an_order_would_take(mt5: Any) -> None:
    before, tick = mt5.account_info().margin, mt5.symbol_info_tick("USDCAD")
    margin = mt5.order_calc_margin(0, "USDCAD", 0.5, tick.ask)
    assert margin == pytest.approx(500)
    bought(mt5, symbol="USDCAD", volume=0.5)
    assert mt5.account_info().margin == pytest.approx(before + margin)
    assert mt5.order_calc_profit(0, "EURUSD", 1.0, 1.1, 1.101) == pytest.approx(100)
    assert mt5.order_calc_profit(1, "EURUSD", 1, 1.1, 1.101) == pytest.approx(-100)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((0, "NOPE", 1.0, 1.1), -4),
        ((9, "EURUSD", 1.0, 1.1), -2),
        ((-1, "EURUSD", 1.0, 1.1), -2),
        (("buy", "EURUSD", 1.0, 1.1), -2),
        ((0, 5, 1.0, 1.1), -2),
        ((0, "EURUSD", 0.0, 1.1), -2),
        ((0, "EURUSD", math.nan, 1.1), -2),
        ((0, "EURUSD", 1.0, -1.1), -2),
        ((0, "EURUSD", 10**400, 1.1), -2),
        ((0, "EURUSD", 1.0, math.inf), -2),
        ((0, "EURUSD", 1.0, 1e15), -2),
        ((0, "EURUSD", 1e16, 1.1), -2),
    ],
)
def test_estimates_of_nonsense(shared: Any, arguments: tuple[Any, ...], code: int) -> None:
    assert shared.order_calc_margin(*arguments) is None
    assert shared.last_error()[0] == code
    assert shared.order_calc_profit(*arguments, 1.1) is None
    assert shared.last_error()[0] == code


def test_the_depth_of_market_wants_a_subscription(mt5: Any) -> None:
    assert mt5.market_book_get("EURUSD") is None
    assert mt5.last_error()[0] == -4
    assert mt5.market_book_add("EURUSD") is True
    rows = mt5.market_book_get("EURUSD")
    tick = mt5.symbol_info_tick("EURUSD")
    asks = [row.price for row in rows if row.type == mt5.BOOK_TYPE_SELL]
    bids = [row.price for row in rows if row.type == mt5.BOOK_TYPE_BUY]
    assert (min(asks), max(bids)) == (tick.ask, tick.bid)
    assert [row.price for row in rows] == sorted((*asks, *bids), reverse=True)
    assert all(isinstance(row.volume, int) and row.volume == row.volume_dbl for row in rows)
    assert mt5.market_book_release("EURUSD") is True
    assert mt5.market_book_get("EURUSD") is None
    assert mt5.market_book_release("EURUSD") is False
    assert mt5.market_book_add("NOPE") is False
    assert mt5.market_book_add(5) is False
    assert mt5.last_error() == (-2, 'Invalid "symbol" argument')


def test_history_is_falsely_empty_after_each_login(
    mt5: Any, terminal: Terminal, clock: ManualClock
) -> None:
    span = 0, 2**32
    terminal.inject(1, HistoryEmpty(ready_s=5))
    assert mt5.history_deals_get(*span) == mt5.history_orders_get(*span) == ()
    assert mt5.history_deals_total(*span) == mt5.history_orders_total(*span) == 0
    assert mt5.last_error()[0] == 1
    clock.at_ms += 5000
    assert mt5.history_deals_total(*span) == len(mt5.history_deals_get(*span)) > 0
    assert mt5.history_orders_total(*span) == len(mt5.history_orders_get(*span)) > 0
    assert mt5.login(5001001)
    assert mt5.history_deals_get(*span) == ()


@pytest.mark.parametrize("code", [-10000, -10001, -10002, -10003, -10004, -10005])
def test_ipc_errors(mt5: Any, terminal: Terminal, code: Any) -> None:
    terminal.inject(1, IpcError(code=code, functions=("account_info", "login"), times=2))
    assert mt5.account_info() is None
    assert mt5.last_error()[0] == code
    assert "%" not in mt5.last_error()[1]
    assert mt5.positions_total() > 0
    assert mt5.login(5001001) is False
    assert mt5.account_info() is not None
    assert not terminal.faults


def test_a_slow_login(mt5: Any, terminal: Terminal, board: MemoryBoard) -> None:
    terminal.inject(1, SlowLogin(login_s=40, times=1))
    assert mt5.login(**BRUNO, timeout=20) is False
    assert mt5.last_error() == TIMEOUT
    terminal.inject(1, SlowLogin(login_s=0.02, times=1))
    assert mt5.login(**BRUNO, timeout=20_000) is True


def test_the_account_is_switched_behind_everybodys_back(
    mt5: Any, terminal: Terminal, board: MemoryBoard
) -> None:
    mt5.login("nonsense")
    error = mt5.last_error()
    assert mt5.login(5001001)
    mt5.login("nonsense")
    terminal.switch_account(AccountSwitched(login=5001002, password="Demo-1002-main"))
    assert mt5.last_error() == error
    assert mt5.account_info().login == board.logins[-1] == 5001002
    terminal.switch_account(AccountSwitched(login=5001001))
    assert mt5.account_info().login == 5001001
    for impossible, why in (
        (AccountSwitched(login=5001003), "password of account 5001003 at .* is not known"),
        (AccountSwitched(login=5001002, server="Nowhere"), "knows no server 'Nowhere'"),
    ):
        with pytest.raises(NotSwitched, match=why):
            terminal.switch_account(impossible)
        assert mt5.account_info().login == board.logins[-1] == 5001001
    with pytest.raises(NotSwitched, match="did not let account 5001002 at"):
        terminal.switch_account(AccountSwitched(login=5001002, password="wrong"))
    assert mt5.account_info() is None
    assert board.logins[-1] == 0


def test_latency_holds_calls(mt5: Any, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[float] = []
    monkeypatch.setattr(mischance, "hold_interpreter", held.append)
    terminal.inject(1, Latency(ms=250, functions=("version",), times=2))
    mt5.account_info()
    assert held == []
    for _ in range(3):
        mt5.version()
    assert held == [0.25, 0.25]


@pytest.mark.parametrize(
    ("distribution", "middle"),
    [
        ("constant", statistics.mean),
        ("uniform", statistics.mean),
        ("normal", statistics.mean),
        ("lognormal", statistics.median),
    ],
)
def test_delays_are_distributed_as_said(
    distribution: Any, middle: Callable[[list[float]], float]
) -> None:
    fault = Latency(ms=100, spread_ms=20, distribution=distribution)
    chance = random.Random(1)
    drawn = [delay_ms(fault, chance) for _ in range(20_000)]
    assert middle(drawn) == pytest.approx(100, rel=0.02)
    deviation = {"constant": 0.0, "uniform": 20 / math.sqrt(3)}.get(distribution, 20.0)
    assert statistics.pstdev(drawn) == pytest.approx(deviation, rel=0.03)
    again = random.Random(1)
    assert [delay_ms(fault, again) for _ in range(20_000)] == drawn


def test_exponential_delays_have_their_mean() -> None:
    fault, chance = Latency(ms=100, distribution="exponential"), random.Random(1)
    drawn = [delay_ms(fault, chance) for _ in range(20_000)]
    assert statistics.mean(drawn) == pytest.approx(100, rel=0.03)


@given(
    st.builds(
        Latency,
        ms=st.floats(0, 3_600_000),
        spread_ms=st.floats(0, 3_600_000),
        distribution=st.sampled_from(["constant", "uniform", "normal", "lognormal", "exponential"]),
    )
)
def test_no_delay_is_negative_or_endless(fault: Latency) -> None:
    chance = random.Random(2)
    assert all(0 <= delay_ms(fault, chance) <= 3_600_000 for _ in range(20))


@given(st.floats(0.01, 1e6), st.floats(0, 1e6))
def test_the_shape_of_a_lognormal_gives_its_deviation(median: float, deviation: float) -> None:
    x = math.exp(lognormal_sigma(median, deviation) ** 2)
    assert median * math.sqrt(x * (x - 1)) == pytest.approx(deviation, rel=1e-3, abs=median * 1e-6)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("function", ["order_send", "account_info"])
def test_a_crash_in_a_call_comes_when_its_work_is_done(
    brokers: DirectBrokers, clock: ManualClock, function: str
) -> None:
    told, tell = os.pipe()
    house = brokers.houses[SERVER]

    def spent(_fault_id: int) -> None:
        state = house.state(5001001)
        os.write(tell, str(len(state.positions) if state else -1).encode())

    faults = ActiveFaults(spent)
    terminal = Terminal(brokers, clock, Timing(login_seconds=0), MemoryBoard(), faults=faults)
    mt5 = build(terminal)
    assert mt5.initialize(login=5001001, password="Demo-1001-main")
    held = mt5.positions_total()
    terminal.inject(1, CrashInCall(functions=(function,)))
    assert mt5.terminal_info()
    pid = os.fork()
    if not pid:
        getattr(mt5, function)(*((BUY,) if function == "order_send" else ()))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == CRASH_CODE
    assert int(os.read(told, 10)) == held + (function == "order_send")
    os.close(told)
    os.close(tell)
