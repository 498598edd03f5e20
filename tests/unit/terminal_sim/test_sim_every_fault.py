"""Every fault in turn, felt through the wire; after each the simulator serves again.

MT5_FAULT_RECORD names a file to which what a client saw is written as it happened.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import rpyc
from mt5linux import MetaTrader5
from rpyc.core.service import ClassicClient

from terminal_sim.faults.injection import BROKER_KINDS, TERMINAL_KINDS
from terminal_sim.testing import Ready, running

SERVER = "Faulty-Demo"
ACCOUNT = {"login": 77, "password": "one", "server": SERVER}
SCENARIO = f"""
seed = 5
[[servers]]
name = "{SERVER}"
[[accounts]]
login = 77
password = "one"
server = "{SERVER}"
[[accounts.positions]]
symbol = "EURUSD"
type = "buy"
volume = 0.1
opened_at = "-3d"
closed_at = "-2d"
[[accounts]]
login = 78
password = "two"
server = "{SERVER}"
"""
HEAD = """# Every fault in turn

The record of a run: one simulator, one stock client (mt5linux 1.0.3), every fault of
[FAULTS.md](../services/terminal_sim/FAULTS.md) one after the other, and after each the same proof
that everything serves: log in, read, buy, close, read the history. Written by `make faults`.

| at (s) | fault | what a client saw |
|---|---|---|
"""
AGES = datetime(2001, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC)


# A thread inside the terminal that shows for how long it did not get a turn.
PULSE = """
import threading, time
beats, beating = [], True
def pulse():
    while beating:
        beats.append(time.monotonic())
        time.sleep(0.01)
def gaps():
    seen = list(beats)
    return [later - sooner for sooner, later in zip(seen, seen[1:])] or [0.0]
threading.Thread(target=pulse, daemon=True).start()
"""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Simulator:
    """A simulator with one terminal, its control API, and clients of the terminal."""

    def __init__(self, ready: Ready, control: httpx.Client) -> None:
        self.where = ready.terminals[0]
        self.control = control
        self.record: list[str] = []
        self.lines_of_faults = 0
        self._began = time.monotonic()

    def saw(self, name: str, what: str) -> None:
        """Note what a client saw."""
        self.record.append(f"| {time.monotonic() - self._began:.1f} | {name} | {what} |")

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        client = MetaTrader5(self.where.host, self.where.port)
        try:
            yield client
        finally:
            with contextlib.suppress(EOFError, OSError):
                client._MetaTrader5__conn.close()

    @contextlib.contextmanager
    def logged_in(self) -> Iterator[Any]:
        with self.client() as mt5:
            assert mt5.initialize()
            assert mt5.login(**ACCOUNT), mt5.last_error()
            yield mt5

    def fault(self, name: str, **parameters: Any) -> dict[str, Any]:
        answer = self.control.post("/faults", json={"name": name, **parameters})
        assert answer.status_code == 201, answer.text
        (begun,) = answer.json()["faults"]
        assert begun["applied"] or name == "freeze"
        told = " ".join(f"{key}={value}" for key, value in parameters.items())
        self.saw(f"`{name} {told}`" if told else f"`{name}`", "begins")
        return dict(begun)

    def mend(self, begun: dict[str, Any]) -> None:
        assert self.control.delete(f"/faults/{begun['id']}").status_code == 200

    def active(self) -> list[dict[str, Any]]:
        return list(self.control.get("/faults").json()["active"])

    def terminal(self) -> dict[str, Any]:
        return dict(self.control.get("/terminals").json()["terminals"][0])

    def account(self) -> dict[str, Any]:
        return dict(self.control.get(f"/accounts/{SERVER}/77").json()["account"])

    def close_all(self) -> None:
        for position in self.account()["positions"]:
            path = f"/accounts/{SERVER}/77/positions/{position['ticket']}"
            assert self.control.delete(path).status_code == 200

    def restarted(self, before: int, times: int = 1) -> bool:
        now = self.terminal()
        return bool(now["state"] == "running" and now["restarts"] == before + times)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    scenario = tmp_path_factory.mktemp("scenario") / "faulty.toml"
    scenario.write_text(SCENARIO)
    options = "--scenario", str(scenario), "--login-seconds", "0.05", "--trade-timeout", "1"
    with (
        running(*options) as ready,
        httpx.Client(base_url=ready.control_url, timeout=30) as control,
    ):
        simulator = Simulator(ready, control)
        yield simulator
    record = os.environ.get("MT5_FAULT_RECORD")
    if record:
        Path(record).write_text(
            HEAD + "\n".join(simulator.record[: simulator.lines_of_faults]) + "\n"
        )


def buy(mt5: Any) -> Any:
    return mt5.order_send(
        {
            "action": mt5.TRADE_ACTION_DEAL,
            "symbol": "EURUSD",
            "volume": 0.01,
            "type": mt5.ORDER_TYPE_BUY,
            "price": mt5.symbol_info_tick("EURUSD").ask,
        }
    )


def serves(simulator: Simulator) -> None:
    """Read the account, trade, and leave nothing behind."""
    with simulator.logged_in() as mt5:
        assert mt5.terminal_info().connected
        assert mt5.account_info().login == 77
        assert mt5.positions_total() == 0
        done = buy(mt5)
        assert done.retcode == 10009, done
        (position,) = mt5.positions_get()
        closed = mt5.order_send(
            {
                "action": mt5.TRADE_ACTION_DEAL,
                "position": position.ticket,
                "symbol": position.symbol,
                "volume": position.volume,
                "type": mt5.ORDER_TYPE_SELL,
                "price": mt5.symbol_info_tick("EURUSD").bid,
            }
        )
        assert closed.retcode == 10009, closed
        assert mt5.positions_get() == ()
        assert mt5.history_deals_total(*AGES) > 2
        simulator.saw("", f"serves: bought {done.order} at {done.price}, closed at {closed.price}")


def latency(simulator: Simulator) -> None:
    where = simulator.where.host, simulator.where.port
    link = rpyc.connect(*where, service=ClassicClient)
    with simulator.logged_in() as mt5, contextlib.closing(link):
        link.execute("import MetaTrader5 as mt5")
        begun = simulator.fault("latency", ms=500, functions=["positions_total"], times=1)
        assert mt5.orders_total() == 0
        assert begun["id"] in {fault["id"] for fault in simulator.active()}
        answer = rpyc.timed(link.eval, 0.1)("mt5.positions_total()")
        with pytest.raises(TimeoutError):
            answer.wait()
        simulator.saw("", "`positions_total()` has no answer within 0.1 s, `orders_total()` had")
        answer.set_expiry(30)
        assert answer.value == 0
        simulator.saw("", "then it answers")
    until(lambda: not simulator.active())


def freeze(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        mt5.execute(PULSE)
        until(lambda: mt5.eval("beats"))
        simulator.fault("freeze", hold_s=0.6)
        until(lambda: mt5.eval("max(gaps())") >= 0.5)
        held_s = mt5.eval("max(gaps())")
        mt5.execute("beating = False")
        assert simulator.terminal()["in_login_until"] is None
        simulator.saw("", f"another thread of the process stood still for {held_s:.2f} s")


def crash(simulator: Simulator) -> None:
    before = simulator.terminal()
    simulator.fault("crash", times=3)
    until(lambda: simulator.restarted(before["restarts"], 3))
    assert not simulator.active()
    assert simulator.terminal()["port"] == before["port"]
    simulator.saw("", "the process ended three times and came back on its port")


def crash_in_call(simulator: Simulator) -> None:
    before = simulator.terminal()["restarts"]
    with simulator.logged_in() as mt5:
        simulator.fault("crash_in_call", functions=["order_send"])
        with pytest.raises((EOFError, ConnectionError)) as broken:
            buy(mt5)
        simulator.saw("", f"`order_send()` raised {broken.type.__name__}")
    until(lambda: simulator.restarted(before))
    assert len(simulator.account()["positions"]) == 1, "it was carried out, and nobody was told"
    assert not simulator.active()
    simulator.saw("", "the broker has the position")
    simulator.close_all()


def ipc_error(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        simulator.fault("ipc_error", code=-10001, times=2, functions=["account_info"])
        for _ in range(2):
            assert mt5.account_info() is None
            assert mt5.last_error()[0] == -10001
            simulator.saw("", f"`account_info()` is None, {mt5.last_error()}")
        assert mt5.account_info().login == 77


def slow_login(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        simulator.fault("slow_login", login_s=0.4, times=2)
        assert mt5.login(**ACCOUNT, timeout=200) is False
        assert mt5.last_error()[0] == -10005
        simulator.saw("", f"`login(timeout=200)` is False, {mt5.last_error()}")
        assert len(simulator.active()) == 1, "it has acted once"
        assert mt5.login(**ACCOUNT)
        simulator.saw("", "`login()`, which waits longer, is True")
        until(lambda: not simulator.active())


def broker_disconnected(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        begun = simulator.fault("broker_disconnected")
        until(lambda: not mt5.terminal_info().connected)
        ticks = {mt5.symbol_info_tick("EURUSD").time_msc for _ in range(2)}
        equity = mt5.account_info().equity
        assert buy(mt5).retcode == 10031
        simulator.saw("", "`connected` is False, a trade 10031, prices stand still")
        time.sleep(0.7)  # ticks come every 300 ms at the latest; none may come now
        assert {mt5.symbol_info_tick("EURUSD").time_msc} == ticks
        assert mt5.account_info().equity == equity
        simulator.mend(begun)
        until(lambda: mt5.terminal_info().connected)
        until(lambda: mt5.symbol_info_tick("EURUSD").time_msc not in ticks)


def history_empty(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        begun = simulator.fault("history_empty", ready_s=600)
        assert mt5.login(**ACCOUNT)
        assert mt5.history_deals_get(*AGES) == ()
        assert mt5.last_error()[0] == 1
        simulator.saw("", f"`history_deals_get()` is (), {mt5.last_error()}")
        simulator.mend(begun)
        assert len(mt5.history_deals_get(*AGES)) >= 3


def account_switched(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        begun = simulator.fault("account_switched", login=78)
        assert begun["parameters"]["password"] == "***"
        until(lambda: mt5.account_info().login == 78)
        assert simulator.terminal()["logged_in"] == 78
        simulator.saw("", "`account_info().login` is 78, and nobody has called `login()`")


def autotrading_off(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        begun = simulator.fault("autotrading_off")
        assert not mt5.terminal_info().trade_allowed
        assert buy(mt5).retcode == 10027
        simulator.saw("", "`terminal_info().trade_allowed` is False, a trade 10027")
        simulator.mend(begun)
        assert mt5.terminal_info().trade_allowed


def memory_growth(simulator: Simulator) -> None:
    before = simulator.terminal()["memory_bytes"]
    begun = simulator.fault("memory_growth", mb_per_s=500, limit_mb=60)
    until(lambda: simulator.terminal()["memory_bytes"] > before + 55e6)
    grown = simulator.terminal()["memory_bytes"]
    assert grown < before + 80e6
    simulator.saw("", f"the process has grown from {before / 1e6:.0f} to {grown / 1e6:.0f} MB")
    simulator.mend(begun)
    until(lambda: simulator.terminal()["memory_bytes"] < before + 20e6)


def unstable_link(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        simulator.fault("unstable_link", loss=1.0, times=1)
        with pytest.raises((EOFError, ConnectionError)) as broken:
            mt5.version()
        simulator.saw("", f"`version()` raised {broken.type.__name__}: the link was cut")
    with simulator.client() as mt5:
        begun = simulator.fault("unstable_link", delay_ms=3_600_000)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(mt5.initialize)
            try:
                until(lambda: any(fault["acted"] for fault in simulator.active()))
                assert not answer.done()
                simulator.saw("", "`initialize()` has no answer while the link is slow")
            finally:
                simulator.mend(begun)
            assert answer.result()
        simulator.saw("", "`initialize()` is True when it is fast again")
    where = simulator.where.host, simulator.where.port
    patience = {"sync_request_timeout": 0.5}
    link = rpyc.connect(*where, service=ClassicClient, config=patience)
    with contextlib.closing(link):
        link.execute("import MetaTrader5 as mt5")
        simulator.fault("unstable_link", loss=1.0, how="silence", times=1)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                link.eval("mt5.version()")
        simulator.saw("", "no answer ever, on a connection that stays open")


def login_rejected(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        simulator.fault("login_rejected", login=77, times=1)
        assert mt5.login(**ACCOUNT) is False
        assert mt5.last_error()[0] == -6
        simulator.saw("", f"`login()` with the right password is False, {mt5.last_error()}")
        assert mt5.login(**ACCOUNT)


def login_rate_limit(simulator: Simulator) -> None:
    with simulator.client() as mt5:
        assert mt5.initialize()
        begun = simulator.fault("login_rate_limit", count=2, window_s=3600)
        assert [mt5.login(**ACCOUNT) for _ in range(3)] == [True, True, False]
        assert mt5.last_error()[0] == -6
        simulator.saw("", f"the third `login()` is False, {mt5.last_error()}")
        simulator.mend(begun)
        assert mt5.login(**ACCOUNT)


def answer_lost(simulator: Simulator) -> None:
    for answer, retcode in (("timeout", 10012), ("connection", 10031), ("none", None)):
        with simulator.logged_in() as mt5:
            simulator.fault("answer_lost", answer=answer, times=1)
            result = buy(mt5)
            error = mt5.last_error()
            assert (result.retcode if result else None) == retcode
            assert result or error[0] == -10005
            until(lambda: mt5.positions_total() == 1)
            told = result.retcode if result else f"None, {error}"
            simulator.saw("", f"`order_send()` is {told}, and the position is there")
        simulator.close_all()


def requote(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        simulator.fault("requote", times=1)
        result = buy(mt5)
        assert result.retcode == 10004
        assert result.ask > result.bid > 0
        simulator.saw("", f"10004 with {result.bid} / {result.ask}")
        assert mt5.positions_total() == 0


def trade_refused(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        simulator.fault("trade_refused", retcode=10024, symbol="EURUSD", times=1)
        assert buy(mt5).retcode == 10024
        simulator.saw("", "10024, once")
        assert mt5.positions_total() == 0


def market_closed(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        begun = simulator.fault("market_closed", symbol="EURUSD")
        assert buy(mt5).retcode == 10018
        simulator.saw("", "10018")
        simulator.mend(begun)


def clock_shift(simulator: Simulator) -> None:
    with simulator.logged_in() as mt5:
        before = mt5.symbol_info_tick("EURUSD").time
        begun = simulator.fault("clock_shift", by_s=7200)
        until(lambda: 7190 < mt5.symbol_info_tick("EURUSD").time - before < 7300)
        simulator.saw("", "`symbol_info_tick().time` is two hours ahead")
        simulator.mend(begun)
        until(lambda: mt5.symbol_info_tick("EURUSD").time - before < 100)


FELT = {
    felt.__name__: felt
    for felt in (
        latency,
        freeze,
        crash,
        crash_in_call,
        ipc_error,
        slow_login,
        broker_disconnected,
        history_empty,
        account_switched,
        autotrading_off,
        memory_growth,
        unstable_link,
        login_rejected,
        login_rate_limit,
        answer_lost,
        requote,
        trade_refused,
        market_closed,
        clock_shift,
    )
}


@pytest.mark.parametrize("name", [*TERMINAL_KINDS, *BROKER_KINDS])
def test_a_fault_is_felt_and_then_the_simulator_serves_again(
    simulator: Simulator, name: str
) -> None:
    FELT[name](simulator)
    simulator.control.delete("/faults")
    assert simulator.active() == []
    until(lambda: simulator.terminal()["state"] == "running")
    serves(simulator)
    simulator.lines_of_faults = len(simulator.record)


@pytest.mark.long
def test_a_fault_ends_by_its_time_and_outlives_its_process(simulator: Simulator) -> None:
    begun = simulator.fault("ipc_error", code=-10000, functions=["version"], seconds=3)
    with simulator.client() as mt5:
        mt5.initialize()
        assert mt5.version() is None
    assert simulator.control.post("/terminals/1/restart").status_code == 200
    with simulator.client() as mt5:
        mt5.initialize()
        assert [each["id"] for each in simulator.active()] == [begun["id"]]
        assert mt5.version() is None
        until(lambda: not simulator.active())
        assert mt5.version() is not None


def test_no_password_is_told(simulator: Simulator) -> None:
    fault = {"name": "account_switched", "login": 78, "password": "hidden-word"}
    refused = simulator.control.post("/faults", json=fault)
    assert (refused.status_code, "***" in refused.text) == (409, True)
    lines = simulator.control.get("/terminals/1/logs", params={"lines": 1000}).text
    assert "hidden-word" not in refused.text + lines + simulator.control.get("/faults").text
