"""What faults there are, how they are asked for, and what is refused: without any process."""

from pathlib import Path
from select import PIPE_BUF
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import terminal_sim
from terminal_sim.catalogue import catalogue
from terminal_sim.faults.active import ActiveFaults
from terminal_sim.faults.catalogue import descriptions, markdown
from terminal_sim.faults.injection import BROKER_KINDS, TERMINAL_KINDS, FaultRefused, read
from terminal_sim.faults.kinds import (
    AccountSwitched,
    BrokerFault,
    Crash,
    IpcError,
    Latency,
    Requote,
    TerminalFault,
)
from terminal_sim.process.wire import Begin, encode

KINDS = {**TERMINAL_KINDS, **BROKER_KINDS}


def test_every_fault_is_described() -> None:
    told = {each.name: each for each in descriptions()}
    assert set(told) == set(KINDS)
    assert len(told) == len(get_args(TerminalFault)) + len(get_args(BrokerFault))
    for name, each in told.items():
        assert each.what
        assert each.in_practice
        assert "``" not in each.what + each.in_practice
        fields = set(KINDS[name].__struct_fields__)
        left_out = {"times", "seconds"} - set(KINDS[name].ends)
        assert set(each.parameters) == fields - left_out


def test_the_document_has_the_table_of_the_code() -> None:
    text = (Path(next(iter(terminal_sim.__path__))) / "FAULTS.md").read_text(encoding="utf-8")
    assert text.endswith("## All of them\n\n" + markdown()), (
        "run: terminal-sim fault --markdown, and put its table at the end of FAULTS.md"
    )


def test_where_a_fault_is_wanted() -> None:
    assert read({"name": "crash", "terminal": 2}).terminal == 2
    assert read({"name": "crash"}).terminal is None
    assert read({"name": "requote", "server": "A"}).server == "A"
    switched = read({"name": "account_switched", "terminal": 1, "login": 5, "server": "A"})
    assert switched.terminal == 1
    assert switched.server is None
    assert switched.fault == AccountSwitched(login=5, server="A")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({}, "a fault needs a name"),
        ({"name": "latenci"}, "no fault is named 'latenci'"),
        ({"name": ["latency"]}, "no fault is named"),
        ({"name": "latency"}, "the parameter 'ms' is missing"),
        ({"name": "latency", "ms": "5"}, "ms: expected float, got str"),
        ({"name": "latency", "ms": float("nan")}, "ms: expected float >= 0"),
        ({"name": "latency", "ms": 1, "delay": 2}, "no parameter is named 'delay'"),
        ({"name": "latency", "ms": 1, "functions": ["order_sent"]}, "no function 'order_sent'"),
        ({"name": "latency", "ms": 1, "terminal": "one"}, "terminal: expected int"),
        ({"name": "latency", "ms": 1, "times": 0}, "times: expected int >= 1"),
        ({"name": "requote", "terminal": 1}, "is a fault of brokers"),
        ({"name": "requote", "server": 1}, "server: expected str"),
        ({"name": "clock_shift", "times": 2}, "takes seconds, not times"),
        ({"name": "clock_shift", "by_s": 90}, "multiple of 60"),
        ({"name": "account_switched", "login": 1, "seconds": 3}, "happens once, not seconds"),
        ({"name": "ipc_error", "code": -7}, "code: invalid enum value -7"),
        ({"name": "login_rejected", "login": 10**30}, "login: expected int <= 922337203685"),
        ({"name": "account_switched", "login": 2**63}, "login: expected int <= 922337203685"),
        ({"name": "requote", "login": 0}, "login: expected int >= 1"),
        ({"name": "requote", "times": 10**30}, "times: expected int <= 1000000000"),
        ({"name": "login_rate_limit", "count": 2**64}, "count: expected int <= 1000000000"),
        ({"name": "latency", "ms": 10**400}, "ms: number out of range"),
        ({"name": "latency", "ms": 1, "functions": ["login"] * 33}, "array of length <= 32"),
        ({"name": "trade_refused", "symbol": "E" * 300_000}, "symbol: expected str of length"),
        ({"name": "account_switched", "login": 1, "password": "p" * 65}, "password: expected str"),
        ({"name": "market_closed", "symbol": "NOSUCH"}, "no symbol is named 'NOSUCH'"),
        ({"name": "trade_refused", "symbol": "\ud800"}, "surrogate"),
        ({"name": "account_switched", "login": 1, "password": "\udfff"}, "surrogate"),
        ({"name": "requote", "server": "\ud800"}, "surrogate"),
        ({"name": "latency", "ms": 1, "\ud800": 1}, "surrogate"),
        ({"name": "latency", "ms": 1, "functions": ["\ud800"]}, "surrogate"),
        ({"name": "\ud800"}, "surrogate"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(asked: dict[str, Any], reason: str) -> None:
    with pytest.raises(FaultRefused) as refused:
        read(asked)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("asked", [{"name": "x" * 10**6}, {"name": "crash", "x" * 10**6: 1}])
def test_what_somebody_gave_is_repeated_in_part(asked: dict[str, Any]) -> None:
    with pytest.raises(FaultRefused, match="xxx…") as refused:
        read(asked)
    assert len(str(refused.value)) < 1000


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["\ud800", "EURUSD", 10**30, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
FIELDS = sorted({name for kind in KINDS.values() for name in kind.__struct_fields__})


@settings(max_examples=200)
@given(
    name=st.sampled_from(sorted(KINDS)),
    rest=st.dictionaries(st.sampled_from([*FIELDS, "terminal"]), JSON, max_size=4),
)
def test_whatever_is_asked_for_is_a_fault_or_refused(name: str, rest: dict[str, Any]) -> None:
    try:
        injection = read({"name": name, **rest})
    except FaultRefused as refused:
        assert str(refused)  # noqa: PT017 - either is fine, nothing else is
        return
    again = msgspec.json.decode(msgspec.json.encode(injection.fault), type=type(injection.fault))
    assert again == injection.fault
    msgspec.msgpack.encode(injection.fault)


def test_the_largest_command_is_written_whole_or_not_at_all() -> None:
    longest = max(catalogue().functions, key=len)
    largest = Latency(ms=1 / 3, spread_ms=1 / 3, functions=(longest,) * 32)
    assert read({"name": "latency", **msgspec.structs.asdict(largest)}).fault == largest
    secret = "\0" * 64
    switched = AccountSwitched(login=2**63 - 1, server=secret, password=secret)
    commands = Begin(2**63 - 1, largest), Begin(2**63 - 1, switched)
    assert max(len(encode(each)) for each in commands) < PIPE_BUF


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(
        read({"name": "account_switched", "login": 1, "password": "secret"})
    )


class Acts:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.now = 0.0

    def faults(self) -> ActiveFaults:
        return ActiveFaults(self.ids.append, lambda: self.now)


def test_faults_end_after_their_times_and_seconds() -> None:
    acts = Acts()
    faults = acts.faults()
    faults.add(1, Latency(ms=1, times=2))
    faults.add(2, Latency(ms=2, seconds=10))
    taken = [faults.take(Latency) for _ in range(3)]
    assert [each.ms if each else None for each in taken] == [1, 1, 2]
    assert acts.ids == [1, 1, 2]
    acts.now = 10.0
    assert faults.first(Latency) is None
    assert not faults


def test_the_oldest_that_is_wanted_acts() -> None:
    acts = Acts()
    faults = acts.faults()
    faults.add(1, IpcError(functions=("orders_get",)))
    faults.add(2, IpcError(code=-10000))
    faults.add(3, Requote())
    found = faults.take(IpcError, lambda fault: not fault.functions)
    assert found == IpcError(code=-10000)
    assert acts.ids == [2]
    faults.remove(2)
    faults.remove(2)
    assert faults.first(IpcError) == IpcError(functions=("orders_get",))
    faults.remove(None)
    assert faults.first(Requote) is None


def test_a_crash_is_one_crash_unless_told_otherwise() -> None:
    assert Crash().times == 1
