"""The module's state: connection, login, errors."""

import sys
import threading
import time
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terminal_sim.catalogue import catalogue
from terminal_sim.market.bars import FIRST_S
from terminal_sim.module.arguments import mask
from terminal_sim.module.build import build, install
from terminal_sim.terminal.frozen_sleep import hold_interpreter
from terminal_sim.terminal.session import Terminal, Timing
from terminal_sim.testing import DirectBrokers, ManualClock, MemoryBoard


def test_the_module_has_every_constant_struct_and_present_function(mt5: Any) -> None:
    known = catalogue()
    assert {name: getattr(mt5, name) for name in known.constants} == known.constants
    assert all(hasattr(mt5, name) for name in known.structs)
    assert all(callable(getattr(mt5, name)) for name in known.functions)
    assert all(callable(getattr(mt5, name)) for name in ("Buy", "Sell", "Close", "_RawOrder"))


def test_import_gives_the_simulated_module(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "MetaTrader5", None)
    module = install(terminal)
    assert __import__("MetaTrader5") is module


def test_a_login_is_announced_before_it_freezes(mt5: Any, board: MemoryBoard) -> None:
    assert mt5.login(5001002, password="Demo-1002-main", server="MT5Swarm-Demo")
    assert board.logins[-1] == 5001002
    assert board.untils[-1] == 0
    assert board.untils[-2] > 0
    assert not mt5.login(5001002, password="wrong", server="MT5Swarm-Demo")
    assert board.logins[-1] == 0


def test_a_login_slower_than_its_timeout_fails(mt5: Any, terminal: Terminal) -> None:
    terminal.timing = Timing(login_seconds=3600)
    given = {"password": "Demo-1002-main", "server": "MT5Swarm-Demo", "timeout": 1}
    assert mt5.login(5001002, **given) is False
    assert mt5.last_error() == (-10005, "IPC timeout")
    assert mt5.account_info() is None


def test_the_account_logged_in_must_still_prove_itself(mt5: Any) -> None:
    assert mt5.account_info().login == 5001001
    assert mt5.login(5001001, password="wrong") is False
    assert mt5.account_info() is None
    assert mt5.login(5001001)
    assert mt5.account_info().login == 5001001


def test_an_initialize_whose_login_fails_leaves_no_connection(mt5: Any) -> None:
    assert mt5.initialize(login=5001001, password="wrong", server="MT5Swarm-Demo") is False
    assert mt5.last_error() == (-6, "Terminal: Authorization failed")
    assert mt5.account_info() is None
    assert mt5.last_error() == (-10004, "No IPC connection")


def test_a_naive_date_is_local_time(mt5: Any, clock: ManualClock) -> None:
    moment = datetime.fromtimestamp(clock.at_ms // 1000 - 3600, UTC)
    naive = moment.astimezone().replace(tzinfo=None)
    first = mt5.copy_rates_from("EURUSD", 1, moment, 5)
    assert first.tolist() == mt5.copy_rates_from("EURUSD", 1, naive, 5).tolist()
    assert first.tolist() == mt5.copy_rates_from("EURUSD", 1, moment.timestamp(), 5).tolist()


def test_terminal_times_are_the_brokers_wall_clock(mt5: Any, clock: ManualClock) -> None:
    ahead = mt5.symbol_info_tick("EURUSD").time_msc - clock.at_ms
    assert 7_200_000 - 2000 < ahead <= 7_200_000


def test_answers_are_bounded(mt5: Any) -> None:
    assert len(mt5.copy_rates_from_pos("EURUSD", 1, 0, 2**31 - 1)) == 100_000
    bars = mt5.copy_rates_range("EURUSD", 1, 0, 2**40)
    assert len(bars) == 100_000
    assert bars["time"][-1] == mt5.copy_rates_from_pos("EURUSD", 1, 0, 1)["time"][0]
    assert len(mt5.copy_ticks_from("EURUSD", 10**9, 2**31 - 1, -1)) == 1_000_000


def test_ticks_from_before_the_market_are_counted_from_its_first(mt5: Any) -> None:
    first = mt5.copy_ticks_from("EURUSD", FIRST_S, 5, -1)
    assert len(first) == 5
    for early in (0, 10**8):
        assert mt5.copy_ticks_from("EURUSD", early, 5, -1).tolist() == first.tolist()
        found = mt5.copy_ticks_range("EURUSD", early, FIRST_S + 86_400, -1)
        assert found[:5].tolist() == first.tolist()
    assert len(mt5.copy_ticks_range("EURUSD", 0, FIRST_S - 1, -1)) == 0


def test_as_many_ticks_come_across_an_hour_the_clock_skips(mt5: Any) -> None:
    # On 2026-03-08 the clock goes from 09:00 to 10:00.
    skipped = int(datetime(2026, 3, 8, 9, tzinfo=UTC).timestamp())
    ticks = mt5.copy_ticks_from("EURUSD", skipped - 5, 5000, -1)
    assert len(ticks) == 5000
    assert not ((ticks["time"] >= skipped) & (ticks["time"] < skipped + 3600)).any()
    assert ticks["time"][0] < skipped < ticks["time"][-1]
    assert (ticks["time_msc"][1:] > ticks["time_msc"][:-1]).all()


def test_no_ticks_are_trades(mt5: Any) -> None:
    assert len(mt5.copy_ticks_from("EURUSD", 10**9, 5, mt5.COPY_TICKS_TRADE)) == 0


def test_the_days_extremes_grow_as_if_they_were_found_anew(
    mt5: Any, brokers: DirectBrokers, clock: ManualClock, board: MemoryBoard
) -> None:
    # Over a midnight of the server's clock, at 22:00 UTC.
    clock.at_ms += 9 * 3_600_000
    for minutes in (0, 1, 1, 7, 30, 20, 1):
        clock.at_ms += minutes * 60_000
        # Nothing but the day is remembered: the present minute may have brought a new extreme.
        clock.at_ms -= clock.at_ms % 60_000
        fresh = build(Terminal(brokers, clock, Timing(login_seconds=0), board))
        assert fresh.initialize()
        assert fresh.login(5001001, password="Demo-1001-main", server="MT5Swarm-Demo")
        for symbol in ("EURUSD", "GBPJPY"):
            assert mt5.symbol_info(symbol) == fresh.symbol_info(symbol)
            (bar,) = mt5.copy_rates_from_pos(symbol, mt5.TIMEFRAME_D1, 0, 1)
            info = mt5.symbol_info(symbol)
            assert (info.session_open, info.bidhigh, info.bidlow) == (
                bar["open"],
                bar["high"],
                bar["low"],
            )


def test_a_symbol_with_positions_cannot_be_hidden(mt5: Any) -> None:
    assert mt5.symbol_select("EURUSD", False) is False
    assert mt5.symbol_select("NZDUSD", False) is True
    assert mt5.symbol_info("NZDUSD").visible is False
    assert mt5.symbol_select("NZDUSD") is True
    assert mt5.symbol_info("NZDUSD").select is True


@pytest.mark.parametrize(
    ("group", "wanted"),
    [
        ("*", {"EURUSD", "GBPUSD", "USDJPY"}),
        ("*USD*", {"EURUSD", "GBPUSD", "USDJPY"}),
        ("*USD", {"EURUSD", "GBPUSD"}),
        ("EUR*,GBP*", {"EURUSD", "GBPUSD"}),
        ("*,!*JPY", {"EURUSD", "GBPUSD"}),
        ("*, !EUR*, !*JPY*", {"GBPUSD"}),
        ("E*R*D", {"EURUSD"}),
        ("eur*", set()),
        ("EURUSDX*", set()),
        ("*RUSD*USD", set()),
        ("", set()),
    ],
)
def test_group_masks(group: str, wanted: set[str]) -> None:
    names = {"EURUSD", "GBPUSD", "USDJPY"}
    assert {name for name in names if mask(group)(name)} == wanted


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.datetimes(),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["EURUSD", 1, 16408, -1, 10, 1_700_000_000]),
)
NO_FAILURE = {"last_error"}
KEYWORD_FUNCTIONS = (
    "initialize",
    "login",
    "symbols_get",
    "positions_get",
    "orders_get",
    "history_deals_get",
    "history_orders_get",
)


@settings(max_examples=1000)
@given(
    st.sampled_from(catalogue().functions),
    st.one_of(
        st.lists(ANYTHING, max_size=6),
        st.tuples(st.sampled_from(["EURUSD", 0]), ANYTHING, ANYTHING, ANYTHING),
        st.tuples(st.just(0), st.just("EURUSD"), ANYTHING, ANYTHING),
    ),
)
def test_no_argument_whatsoever_gives_a_traceback(
    fuzzed: Any, name: str, arguments: list[Any]
) -> None:
    if fuzzed.account_info() is None:
        assert fuzzed.initialize(login=5001001, password="Demo-1001-main")
    try:
        answer = getattr(fuzzed, name)(*arguments)
    except TypeError as error:
        assert " argument" in str(error)  # noqa: PT017 - of the parser, as a C function's
        return
    code, text = fuzzed.last_error()
    assert isinstance(text, str)
    if name not in NO_FAILURE:
        assert (code == 1) == (answer is not None and answer is not False)


@settings(max_examples=100)
@given(
    st.sampled_from([*KEYWORD_FUNCTIONS, "order_send", "order_check"]),
    st.sampled_from(["symbol", "group", "ticket", "position", "login", "volume", "comment"]),
    ANYTHING,
)
def test_no_keyword_whatsoever_gives_a_traceback(
    fuzzed: Any, name: str, key: str, value: Any
) -> None:
    try:
        answer = getattr(fuzzed, name)(**{key: value})
    except TypeError as error:
        assert "invalid keyword argument" in str(error)  # noqa: PT017 - some pairs do not exist
    else:
        assert (fuzzed.last_error()[0] == 1) == (answer is not None and answer is not False)


@pytest.fixture(scope="module")
def fuzzed(demo: Any) -> Any:
    clock = ManualClock(1_795_005_296_789)
    brokers = DirectBrokers.of(demo, clock)
    module = install(Terminal(brokers, clock, Timing(login_seconds=0), MemoryBoard()))
    del sys.modules["MetaTrader5"]
    module.initialize()
    module.login(5001001, password="Demo-1001-main")
    return module


def test_a_frozen_interpreter_runs_no_other_thread_and_does_not_spin() -> None:
    beats: list[float] = []
    stop = threading.Event()

    def beat() -> None:
        while not stop.is_set():
            beats.append(time.monotonic())

    thread = threading.Thread(target=beat)
    thread.start()
    done: list[int] = []
    try:
        while len(beats) < 100:
            time.sleep(0)
        used = time.thread_time()
        hold_interpreter(0.2, partial(done.append, 1))
        used = time.thread_time() - used
    finally:
        stop.set()
        thread.join()
    assert done == [1]
    assert used < 0.1
    assert max(b - a for a, b in pairwise(beats)) >= 0.2
