"""Brokers as their users meet them: two terminals of an account, people elsewhere, restarts."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import rpyc
from rpyc.core.service import ClassicClient

from terminal_sim.broker.messages import LENGTH_BYTES, Act, Answer, Refused
from terminal_sim.testing import Ready, running

SERVER = "Two-Demo"
LOGIN = f"mt5.initialize() and mt5.login(77, password='one', server='{SERVER}')"
SCENARIO = f"""
seed = 5
[[servers]]
name = "{SERVER}"
[[accounts]]
login = 77
password = "one"
server = "{SERVER}"
[[accounts]]
login = 78
password = "two"
server = "{SERVER}"
margin_mode = "netting"
balance = 100
"""
ACCOUNT = f"/accounts/{SERVER}/77"
OPENING = {"symbol": "EURUSD", "type": "buy", "volume": 0.1}


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenario") / "two.toml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture(scope="module")
def ready(scenario: Path) -> Iterator[Ready]:
    options = "--scenario", str(scenario), "--login-seconds", "0.05", "--terminals", "2"
    with running(*options) as ready:
        yield ready


@pytest.fixture
def control(ready: Ready) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=ready.control_url, timeout=30) as client:
        yield client


@contextlib.contextmanager
def terminal(ready: Ready, n: int = 1) -> Iterator[Callable[[str], Any]]:
    where = ready.terminals[n - 1]
    link = rpyc.connect(where.host, where.port, service=ClassicClient)
    with contextlib.closing(link):
        link.execute("import MetaTrader5 as mt5")
        assert link.eval(LOGIN)
        yield link.eval


def made(answer: httpx.Response, status: int = 201) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def account(control: httpx.Client) -> dict[str, Any]:
    return dict(made(control.get(ACCOUNT), 200)["account"])


def holds(seen: Callable[[str], Any], count: int) -> bool:
    return bool(seen("mt5.positions_total()") == count)


def test_what_a_person_elsewhere_does_shows_in_every_terminal(
    ready: Ready, control: httpx.Client
) -> None:
    with terminal(ready, 1) as one, terminal(ready, 2) as two:
        done = made(control.post(f"{ACCOUNT}/positions", json={**OPENING, "by": "mobile"}))
        assert done["retcode"] == 10009
        ticket = done["order"]
        for seen in (one, two):
            until(partial(holds, seen, 1))
            assert seen("mt5.positions_get()[0].ticket") == ticket
            assert seen("mt5.positions_get()[0].reason == mt5.POSITION_REASON_MOBILE")
        position = f"{ACCOUNT}/positions/{ticket}"
        made(control.patch(position, json={"sl": 0.5}), 200)
        until(lambda: one("mt5.positions_get()[0].sl") == 0.5)
        made(control.patch(position, json={"tp": 2.5}), 200)
        until(lambda: two("mt5.positions_get()[0].tp") == 2.5)
        assert two("mt5.positions_get()[0].sl") == 0.5
        made(control.delete(position, params={"volume": 0.04}), 200)
        until(lambda: two("mt5.positions_get()[0].volume") == 0.06)
        made(control.delete(position), 200)
        until(lambda: one("mt5.positions_total()") == 0 == two("mt5.positions_total()"))


def test_an_order_of_one_terminal_moves_the_other(ready: Ready, control: httpx.Client) -> None:
    with terminal(ready, 1) as one, terminal(ready, 2) as two:
        request = "{'action': 1, 'symbol': 'EURUSD', 'volume': 0.1, 'type': 0}"
        assert one(f"mt5.order_send({request}).retcode") == 10009
        until(lambda: two("mt5.positions_total()") == 1)
        ticket = two("mt5.positions_get()[0].ticket")
    made(control.delete(f"{ACCOUNT}/positions/{ticket}"), 200)


def test_pending_orders_and_money(ready: Ready, control: httpx.Client) -> None:
    before = account(control)["balance"]
    wanted = {"symbol": "EURUSD", "type": "buy_limit", "volume": 0.2, "price": 0.5}
    ticket = made(control.post(f"{ACCOUNT}/orders", json=wanted))["order"]
    with terminal(ready) as seen:
        assert seen("mt5.orders_get()[0].price_open") == 0.5
        made(control.patch(f"{ACCOUNT}/orders/{ticket}", json={"price": 0.6}), 200)
        until(lambda: seen("mt5.orders_get()[0].price_open") == 0.6)
        made(control.delete(f"{ACCOUNT}/orders/{ticket}"), 200)
        until(lambda: seen("mt5.orders_total()") == 0)
        made(control.post(f"{ACCOUNT}/deposits", json={"amount": 250.5}))
        until(lambda: seen("mt5.account_info().balance") == pytest.approx(before + 250.5))
        made(control.post(f"{ACCOUNT}/deposits", json={"amount": -250.5}))
        until(lambda: seen("mt5.account_info().balance") == pytest.approx(before))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/accounts/None/77", None, 404, "NOT_FOUND"),
        ("GET", f"/accounts/{SERVER}/79", None, 404, "NOT_FOUND"),
        ("GET", f"/accounts/{SERVER}/x", None, 422, "INVALID_PARAMETERS"),
        ("GET", f"/accounts/{SERVER}/{2**70}", None, 422, "INVALID_PARAMETERS"),
        ("DELETE", f"{ACCOUNT}/positions/1", None, 404, "NOT_FOUND"),
        ("DELETE", f"{ACCOUNT}/positions/1?volume=nan", None, 422, "INVALID_PARAMETERS"),
        ("DELETE", f"{ACCOUNT}/orders/1", None, 404, "NOT_FOUND"),
        ("PATCH", f"{ACCOUNT}/positions/1", {"sl": 1}, 404, "NOT_FOUND"),
        ("POST", f"{ACCOUNT}/positions", {}, 422, "INVALID_PARAMETERS"),
        ("POST", f"{ACCOUNT}/positions", {**OPENING, "typ": 1}, 422, "INVALID_PARAMETERS"),
        ("POST", f"{ACCOUNT}/positions", {**OPENING, "volume": -1}, 422, "INVALID_PARAMETERS"),
        ("POST", f"{ACCOUNT}/positions", {**OPENING, "by": "fax"}, 422, "INVALID_PARAMETERS"),
        ("POST", f"{ACCOUNT}/deposits", {"amount": "x"}, 422, "INVALID_PARAMETERS"),
        ("POST", f"{ACCOUNT}/deposits", {"amount": "12"}, 422, "INVALID_PARAMETERS"),
        ("POST", f"{ACCOUNT}/deposits", {"amount": True}, 422, "INVALID_PARAMETERS"),
        ("POST", f"{ACCOUNT}/positions", {**OPENING, "volume": "1"}, 422, "INVALID_PARAMETERS"),
        (
            "POST",
            f"{ACCOUNT}/positions",
            {**OPENING, "symbol": "E" * 32},
            422,
            "INVALID_PARAMETERS",
        ),
        ("POST", "/brokers/None/restart", None, 404, "NOT_FOUND"),
        ("POST", "/faults", {"name": "crash", "terminal": 9}, 404, "NOT_FOUND"),
        ("POST", "/faults", {"name": "requote", "server": "None"}, 404, "NOT_FOUND"),
        ("POST", "/faults", {"name": "crush"}, 422, "INVALID_PARAMETERS"),
        ("POST", "/faults", [], 422, "INVALID_PARAMETERS"),
        ("DELETE", "/faults/999", None, 404, "NOT_FOUND"),
    ],
)
def test_errors_say_what_is_wrong(
    control: httpx.Client, method: str, path: str, body: Any, status: int, code: str
) -> None:
    answer = control.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json()["success"] is False


@pytest.mark.parametrize(
    ("path", "body", "field", "sentence"),
    [
        ("positions", {**OPENING, "symbol": "EURUSX"}, "body.symbol", "no symbol 'EURUSX'."),
        (
            "orders",
            {**OPENING, "type": "buy_stop", "price": 1, "symbol": "X"},
            "body.symbol",
            "'X'.",
        ),
        ("deposits", {"amount": 0}, "body.amount", "A deposit of 0 changes nothing"),
        ("positions", {**OPENING, "volume": -1}, "body.volume", "should be greater than 0"),
    ],
)
def test_a_parameter_that_is_not_valid_comes_with_its_reason(
    control: httpx.Client, path: str, body: Any, field: str, sentence: str
) -> None:
    answer = control.post(f"{ACCOUNT}/{path}", json=body)
    assert answer.status_code == 422, answer.text
    assert sentence in answer.json()["error"]
    details = answer.json()["details"]
    assert details["fields"] == [field]
    (found,) = details["reasons"]
    assert found["field"] == field
    assert found["reason"] in answer.json()["error"]


@pytest.mark.parametrize(
    "strange",
    [
        b'"symbol":"\\ud800"',
        b'"symbol":"EURUSD","\\ud800":1',
        b'"symbol":"EURUSD","' + b"k" * 60_000 + b'":1',
    ],
)
def test_texts_nobody_can_send_are_refused(control: httpx.Client, strange: bytes) -> None:
    content = b'{"type":"buy","volume":1,' + strange + b"}"
    headers = {"Content-Type": "application/json"}
    answer = control.post(f"{ACCOUNT}/positions", content=content, headers=headers)
    assert answer.status_code == 422, answer.text
    assert len(answer.text) < 1000


@pytest.mark.parametrize(
    ("path", "body", "retcode"),
    [
        (f"{ACCOUNT}/positions", {**OPENING, "volume": 0.001}, 10014),
        (f"{ACCOUNT}/positions", {**OPENING, "sl": 9.0}, 10016),
        (f"/accounts/{SERVER}/78/positions", {**OPENING, "volume": 50}, 10019),
        (
            f"{ACCOUNT}/orders",
            {"symbol": "EURUSD", "type": "buy_limit", "volume": 0.1, "price": 90},
            10015,
        ),
        (f"/accounts/{SERVER}/78/deposits", {"amount": -1000}, 10019),
    ],
)
def test_what_the_broker_refuses_comes_with_its_retcode(
    control: httpx.Client, path: str, body: Any, retcode: int
) -> None:
    answer = control.post(path, json=body)
    assert answer.status_code == 409, answer.text
    assert answer.json()["code"] == "REFUSED"
    assert answer.json()["details"]["retcode"] == retcode
    assert str(retcode) in answer.json()["error"]


def test_brokers_are_told(control: httpx.Client, ready: Ready) -> None:
    (broker,) = made(control.get("/brokers"), 200)["brokers"]
    assert broker["server"] == SERVER == ready.brokers[0].server
    assert broker["port"] == ready.brokers[0].port
    assert broker["state"] == "running"
    assert broker["accounts"] == [77, 78]
    assert broker["persists"] is False
    assert "listens on port" in control.get(f"/brokers/{SERVER}/logs").text


def test_nobody_else_acts_without_the_brokers_key(ready: Ready) -> None:

    async def ask() -> Answer:
        reader, writer = await asyncio.open_connection(ready.brokers[0].host, ready.brokers[0].port)
        body = msgspec.msgpack.encode(Act(1, 77, deposit=5.0))
        writer.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)
        while True:
            size = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
            body = await reader.readexactly(size)
            told: Answer = msgspec.msgpack.decode(body, type=Answer)
            if getattr(told, "id", None) == 1:
                writer.close()
                return told

    told = asyncio.run(asyncio.wait_for(ask(), 30))
    assert isinstance(told, Refused)
    assert told.reason == "forbidden"


def test_a_terminal_restart_loses_nothing_and_a_broker_is_found_again(
    ready: Ready, control: httpx.Client
) -> None:
    ticket = made(control.post(f"{ACCOUNT}/positions", json=OPENING))["order"]
    assert control.post("/terminals/1/restart").status_code == 200
    with terminal(ready, 1) as seen:
        assert seen("mt5.positions_get()[0].ticket") == ticket
        made(control.delete(f"{ACCOUNT}/positions/{ticket}"), 200)
        (before,) = made(control.get("/brokers"), 200)["brokers"]
        answer = control.post(f"/brokers/{SERVER}/restart")
        after = made(answer, 200)["broker"]
        assert after["pid"] != before["pid"]
        assert after["port"] == before["port"]
        assert after["restarts"] == before["restarts"] + 1
        until(lambda: seen("mt5.terminal_info().connected"))
        assert (
            seen("mt5.order_send({'action': 1, 'symbol': 'EURUSD', 'volume': 0.1}).retcode")
            == 10009
        )
    until(lambda: control.get(ACCOUNT).status_code == 200)
    for position in account(control)["positions"]:
        made(control.delete(f"{ACCOUNT}/positions/{position['ticket']}"), 200)


def test_a_brokers_fault_outlives_its_restart(control: httpx.Client) -> None:
    made(control.post("/faults", json={"name": "requote", "times": 2}))
    assert control.post(f"{ACCOUNT}/positions", json=OPENING).json()["details"]["retcode"] == 10004
    until(lambda: control.get("/faults").json()["active"][0]["acted"] == 1)
    assert control.post(f"/brokers/{SERVER}/restart").status_code == 200
    assert control.post(f"{ACCOUNT}/positions", json=OPENING).json()["details"]["retcode"] == 10004
    until(lambda: not control.get("/faults").json()["active"])
    ticket = made(control.post(f"{ACCOUNT}/positions", json=OPENING))["order"]
    made(control.delete(f"{ACCOUNT}/positions/{ticket}"), 200)


@pytest.mark.parametrize(
    ("wanted", "sentence", "stays"),
    [
        ({"login": 79}, f"The password of account 79 at {SERVER} is not known here", True),
        ({"login": 78, "server": "Elsewhere"}, "knows no server 'Elsewhere'", True),
        ({"login": 78, "password": "x"}, f"did not let account 78 at {SERVER} in", False),
    ],
)
def test_a_switch_that_fails_says_why(
    ready: Ready, control: httpx.Client, wanted: dict[str, Any], sentence: str, stays: bool
) -> None:
    with terminal(ready) as seen:
        answer = control.post("/faults", json={"name": "account_switched", "terminal": 1, **wanted})
        assert (answer.status_code, answer.json()["code"]) == (409, "REFUSED"), answer.text
        assert sentence in answer.json()["error"]
        (fault,) = answer.json()["details"]["faults"]
        assert (fault["applied"], sentence in fault["error"]) == (False, True)
        assert seen("mt5.account_info() is not None") is stays
    assert not control.get("/faults").json()["active"]


@pytest.mark.long
def test_killed_brokers_and_whole_simulators_lose_nothing_with_a_data_directory(
    scenario: Path, tmp_path: Path
) -> None:
    options = "--scenario", str(scenario), "--terminals", "0", "--data-dir", str(tmp_path)
    with running(*options) as ready, httpx.Client(base_url=ready.control_url) as control:
        first = made(control.post(f"{ACCOUNT}/positions", json=OPENING))["order"]
        pid = control.get("/brokers").json()["brokers"][0]["pid"]
        second = made(control.post(f"{ACCOUNT}/positions", json=OPENING))["order"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: control.get(ACCOUNT).status_code == 200)
        tickets = [each["ticket"] for each in account(control)["positions"]]
        assert tickets == [first, second]
    with running(*options) as ready, httpx.Client(base_url=ready.control_url) as control:
        assert [each["ticket"] for each in account(control)["positions"]] == tickets
    scenario_of_another = tmp_path / "other.toml"
    scenario_of_another.write_text(SCENARIO.replace("seed = 5", "seed = 6"))
    another = running("--scenario", str(scenario_of_another), *options[2:])
    with pytest.raises(RuntimeError, match=f"terminal-sim: the broker of {SERVER}: ") as refused:
        another.__enter__()
    assert "Traceback" not in str(refused.value)


@pytest.mark.long
def test_terminals_elsewhere_know_the_scenario_of_their_brokers(
    scenario: Path, tmp_path: Path
) -> None:
    planned = tmp_path / "planned.toml"
    planned.write_text(f'{SCENARIO}[[faults]]\nname = "autotrading_off"\n')
    with running("--scenario", str(scenario), "--terminals", "0") as there:
        where = f"{SERVER}={there.brokers[0].host}:{there.brokers[0].port}"
        given = "--broker", where, "--broker", "Strange=127.0.0.1:1", "--login-seconds", "0.05"
        with (
            running("--scenario", str(planned), *given) as here,
            httpx.Client(base_url=here.control_url, timeout=30) as control,
            terminal(here) as seen,
        ):
            assert here.brokers == ()
            begun = made(control.post("/faults", json={"name": "account_switched", "login": 78}))
            assert begun["faults"][0]["applied"]
            assert seen("mt5.account_info().login") == 78
            until(lambda: control.get("/faults").json()["active"])
            (fault,) = control.get("/faults").json()["active"]
            assert fault["name"] == "autotrading_off"


@pytest.mark.long
def test_brokers_in_one_place_and_terminals_in_another(scenario: Path) -> None:
    brokers = running("--scenario", str(scenario), "--terminals", "0")
    with brokers as there, httpx.Client(base_url=there.control_url) as people:
        assert there.terminals == ()
        where = there.brokers[0]
        elsewhere = f"{where.server}={where.host}:{where.port}"
        options = "--broker", elsewhere, "--terminals", "2", "--login-seconds", "0.05"
        with running(*options) as here, httpx.Client(base_url=here.control_url) as control:
            assert here.brokers == ()
            ticket = made(people.post(f"{ACCOUNT}/positions", json=OPENING))["order"]
            with terminal(here, 1) as one, terminal(here, 2) as two:
                assert one("mt5.positions_get()[0].ticket") == ticket
                made(people.delete(f"{ACCOUNT}/positions/{ticket}"), 200)
                until(lambda: two("mt5.positions_total()") == 0)
            answer = control.get(ACCOUNT)
            assert answer.status_code == 404
            assert f"{where.host}:{where.port}" in answer.json()["error"]
            fault = control.post("/faults", json={"name": "requote", "server": SERVER})
            assert (fault.status_code, "elsewhere" in fault.json()["error"]) == (404, True)
            (told,) = control.get("/brokers").json()["brokers"]
            assert {name: each for name, each in told.items() if each} == {
                "server": SERVER,
                "host": where.host,
                "port": where.port,
                "state": "elsewhere",
            }
