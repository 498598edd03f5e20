"""The supervisor as its users meet it: a process, ports and an HTTP API."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import rpyc
from rpyc.core.service import ClassicClient

import terminal_sim
from terminal_sim.market.prices import Market
from terminal_sim.testing import Ready, running

KEY = "a-made-up-key"
ONE_SERVER = """[[servers]]
name = "One"
[[accounts]]
login = 1
password = "a"
server = "One"
"""
LOGIN = "mt5.login(5001001, password='Demo-1001-main', server='MT5Swarm-Demo')"


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(KEY + "\n")
    given = ("--terminals", "2", "--login-seconds", "0.3", "--key-file", str(key))
    with running(*given) as ready:
        yield ready


@pytest.fixture
def control(ready: Ready) -> Iterator[httpx.Client]:
    headers = {"X-Supervisor-Key": KEY}
    with httpx.Client(base_url=ready.control_url, headers=headers, timeout=30) as client:
        yield client


def connected(ready: Ready, n: int) -> Any:
    where = ready.terminals[n - 1]
    connection = rpyc.connect(where.host, where.port, service=ClassicClient)
    connection.execute("import MetaTrader5 as mt5")
    return closing(connection)


def terminal(control: httpx.Client, n: int) -> dict[str, Any]:
    found: dict[str, Any] = control.get("/terminals").json()["terminals"][n - 1]
    return found


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_reports_its_terminals(control: httpx.Client, ready: Ready) -> None:
    answer = control.get("/terminals")
    assert answer.status_code == 200
    states = answer.json()["terminals"]
    assert [state["port"] for state in states] == [where.port for where in ready.terminals]
    for n, state in enumerate(states, 1):
        assert state["n"] == n
        assert state["state"] == "running"
        assert state["in_login_until"] is None
        assert state["memory_bytes"] > 10**6
        assert state["started_at"].endswith("Z")


def test_a_killed_terminal_is_back_on_its_port(control: httpx.Client, ready: Ready) -> None:
    before = terminal(control, 2)
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: terminal(control, 2)["pid"] not in {None, before["pid"]})
    until(lambda: terminal(control, 2)["state"] == "running")
    after = terminal(control, 2)
    assert after["restarts"] == before["restarts"] + 1
    assert after["port"] == before["port"]
    with connected(ready, 2) as connection:
        assert connection.eval("mt5.initialize()")


def test_it_answers_while_a_terminal_is_frozen_and_restarts_it(
    control: httpx.Client, ready: Ready
) -> None:
    with connected(ready, 1) as connection:
        connection.eval("mt5.initialize()")
        rpyc.async_(connection.eval)("mt5.login(1, password='x', server='NoSuch', timeout=600000)")
        until(lambda: terminal(control, 1)["in_login_until"])
        assert control.get("/health/live").status_code == 200
        before = terminal(control, 1)
        answer = control.post("/terminals/1/restart")
    assert answer.status_code == 200
    after = answer.json()["terminal"]
    assert (after["state"], after["in_login_until"]) == ("running", None)
    assert after["pid"] != before["pid"]
    assert ended(before["pid"])
    with connected(ready, 1) as connection:
        assert connection.eval("mt5.initialize()")


def test_the_login_is_reported_and_logged_without_its_password(
    control: httpx.Client, ready: Ready
) -> None:
    with connected(ready, 1) as connection:
        assert connection.eval("mt5.initialize()")
        assert connection.eval(LOGIN)
    assert terminal(control, 1)["logged_in"] == 5001001
    until(lambda: "logged in: 5001001" in control.get("/terminals/1/logs").text)
    lines = control.get("/terminals/1/logs", params={"lines": 1000}).json()["logs"]
    assert all(set(line) == {"timestamp", "level", "message"} for line in lines)
    assert "Demo-1001-main" not in json.dumps(lines)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/terminals/9/logs", 404, "NOT_FOUND"),
        ("POST", "/terminals/0/restart", 404, "NOT_FOUND"),
        ("POST", f"/terminals/{2**70}/restart", 404, "NOT_FOUND"),
        ("GET", "/terminals/x/logs", 422, "INVALID_PARAMETERS"),
        ("GET", "/terminals/1/logs?lines=0", 422, "INVALID_PARAMETERS"),
        ("GET", "/terminals/1/logs?lines=1001", 422, "INVALID_PARAMETERS"),
        ("GET", "/nonsense", 404, "NOT_FOUND"),
        ("DELETE", "/terminals", 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_errors_have_one_shape(
    control: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = control.request(method, path)
    assert answer.status_code == status
    body = answer.json()
    assert (body["success"], body["code"]) == (False, code)
    assert {"error", "details", "retry_after_s", "request_id"} <= set(body)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b'{"name":' + b"[" * 30_000 + b"]" * 30_000 + b"}", 400, "INVALID_PARAMETERS"),
        (b"x" * 65_537, 413, "TOO_LARGE"),
        (b'{"name":"' + b"x" * 10_000_000 + b'"}', 413, "TOO_LARGE"),
        (b'{"name":"' + b"x" * 65_000 + b'"}', 422, "INVALID_PARAMETERS"),
        (b'{"name":"crash","' + b"x" * 65_000 + b'":1}', 422, "INVALID_PARAMETERS"),
        (b'{"name":"trade_refused","symbol":"\\ud800"}', 422, "INVALID_PARAMETERS"),
        (b'{"name":"\\ud800"}', 422, "INVALID_PARAMETERS"),
        (b'{"name":"crash","\\ud800":1}', 422, "INVALID_PARAMETERS"),
        (b'{"name":"login_rejected","login":1' + b"0" * 30 + b"}", 422, "INVALID_PARAMETERS"),
        (b'{"name":"crash","terminal":1' + b"0" * 3000 + b"}", 404, "NOT_FOUND"),
        (b"\xff\xfe", 422, "INVALID_PARAMETERS"),
    ],
    ids=lambda each: str(each)[:20],
)
def test_no_body_is_too_strange_for_an_answer(
    control: httpx.Client, content: bytes, status: int, code: str
) -> None:
    for parts in (content, iter([content[:100], content[100:]])):
        headers = {"Content-Type": "application/json"}
        answer = control.post("/faults", content=parts, headers=headers)
        body = answer.json()
        assert (answer.status_code, body["success"], body["code"]) == (status, False, code)
        assert len(answer.text) < 1000
    assert control.get("/faults").json()["active"] == []


def test_a_body_of_the_greatest_length_is_taken(control: httpx.Client) -> None:
    content = b'{"name":"latency","ms":1,"terminal":1}'.ljust(65_536)
    headers = {"Content-Type": "application/json"}
    answer = control.post("/faults", content=content, headers=headers)
    assert answer.status_code == 201, answer.text
    assert control.delete("/faults").json()["mended"] == 1


@pytest.mark.parametrize("key", [None, "", "wrong", "schlüssel".encode()])
def test_without_the_key_only_liveness_is_told(ready: Ready, key: str | bytes | None) -> None:
    headers: dict[str, Any] = {} if key is None else {"X-Supervisor-Key": key}
    with httpx.Client(base_url=ready.control_url, headers=headers) as client:
        assert client.get("/health/live").status_code == 200
        for method, path in (("GET", "/terminals"), ("POST", "/drain"), ("GET", "/nonsense")):
            answer = client.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")


def test_every_process_sees_the_same_market(ready: Ready) -> None:
    ask = "mt5.initialize() and " + LOGIN + " and mt5.copy_ticks_range('GBPJPY', {0}, {1}, -1)"
    seen = []
    for n in (1, 2):
        with connected(ready, n) as connection:
            ticks = ask.format(1_790_000_000, 1_790_000_059)
            seen.append(connection.eval(f"[t[:4] for t in ({ticks}).tolist()]"))
            seen[-1] = [tuple(tick) for tick in seen[-1]]
    utc_ms = 1_790_000_000_000 - 3 * 3_600_000
    here = Market(20250101).ticks("GBPJPY", utc_ms, utc_ms + 59_001)
    assert seen[0] == seen[1]
    assert [tick[1:3] for tick in seen[0]] == [(bid, ask) for _, bid, ask in here.tolist()]


@pytest.mark.long
def test_draining_is_shown() -> None:
    with running() as ready, httpx.Client(base_url=ready.control_url) as client:
        assert client.post("/drain").json() == {"success": True, "draining": True}
        assert terminal(client, 1)["state"] == "draining"


@pytest.mark.long
def test_asking_for_a_restart_skips_the_wait_after_many_crashes() -> None:
    with running() as ready, httpx.Client(base_url=ready.control_url, timeout=5) as control:
        for crashes in range(9):
            until(lambda: terminal(control, 1)["state"] == "running")
            before = terminal(control, 1)
            if crashes < 3:
                os.kill(before["pid"], signal.SIGKILL)
                killed = before["pid"]
                until(lambda: terminal(control, 1)["pid"] != killed)  # noqa: B023 - called at once
            else:
                assert control.post("/terminals/1/restart").status_code == 200
        assert terminal(control, 1)["restarts"] == 9


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_terminals_end_with_their_supervisor_even_frozen(number: signal.Signals) -> None:
    with running("--terminals", "2") as ready, httpx.Client(base_url=ready.control_url) as control:
        pids = [state["pid"] for state in control.get("/terminals").json()["terminals"]]
        with connected(ready, 1) as connection:
            connection.eval("mt5.initialize()")
            rpyc.async_(connection.eval)("mt5.login(1, password='x', server='N', timeout=600000)")
            until(lambda: terminal(control, 1)["in_login_until"])
            os.kill(ready.pid, number)
            until(lambda: all(map(ended, [ready.pid, *pids])))


@pytest.mark.long
def test_a_stopped_terminal_is_ended_by_force() -> None:
    with running() as ready, httpx.Client(base_url=ready.control_url) as control:
        pid = terminal(control, 1)["pid"]
        os.kill(pid, signal.SIGSTOP)
        os.kill(ready.pid, signal.SIGTERM)
        until(lambda: ended(pid) and ended(ready.pid))


@pytest.mark.long
def test_faults_of_a_stopped_terminal_end_when_it_goes_on() -> None:
    with running() as ready, httpx.Client(base_url=ready.control_url, timeout=30) as control:
        pid = terminal(control, 1)["pid"]
        with connected(ready, 1) as connection:
            assert connection.eval("mt5.initialize()")
            assert connection.eval(LOGIN)
            names = ["copy_ticks_range", "copy_rates_range"] * 16
            fault = {"name": "ipc_error", "functions": names}
            os.kill(pid, signal.SIGSTOP)

            def begin(_number: int) -> int:
                return httpx.post(ready.control_url + "/faults", json=fault, timeout=60).status_code

            # The second time the terminal's pipe is full.
            for _ in range(2):
                with ThreadPoolExecutor(66) as pool:
                    statuses = list(pool.map(begin, range(66)))
                assert statuses.count(201) == 64
                assert statuses.count(409) == 2
                assert control.delete("/faults").json()["mended"] == 64
            os.kill(pid, signal.SIGCONT)
            # What is begun after all that has been ended is told after it.
            assert control.post("/faults", json={"name": "slow_login"}).status_code == 201
            until(lambda: control.get("/faults").json()["active"][0]["applied"])
            asked = "mt5.copy_rates_range('EURUSD', 1, 1790000000, 1790000600)"
            assert connection.eval(f"{asked} is not None")
            assert control.delete("/faults").json()["mended"] == 1
        assert control.get("/faults").json()["active"] == []


@pytest.mark.long
def test_a_terminal_with_all_the_faults_it_may_have_starts_again() -> None:
    names = ["copy_ticks_range"] * 32
    with running() as ready, httpx.Client(base_url=ready.control_url, timeout=30) as control:
        for _ in range(64):
            wanted = {"name": "ipc_error", "functions": names}
            assert control.post("/faults", json=wanted).status_code == 201
        assert control.post("/terminals/1/restart").status_code == 200
        with connected(ready, 1) as connection:
            assert connection.eval("mt5.initialize()")
            assert connection.eval("mt5.copy_ticks_range('EURUSD', 1, 2, -1) is None")
        until(lambda: all(each["applied"] for each in control.get("/faults").json()["active"]))


@pytest.mark.long
@pytest.mark.parametrize("how", [{}, {"times": None, "seconds": 5}], ids=["once", "again"])
def test_a_running_freeze_is_listed_and_ends_with_a_restart(how: dict[str, Any]) -> None:
    with running() as ready, httpx.Client(base_url=ready.control_url, timeout=30) as control:
        fault = {"name": "freeze", "hold_s": 600, "terminal": 1, **how}
        (begun,) = control.post("/faults", json=fault).json()["faults"]

        def acted() -> list[int]:
            return [each["acted"] for each in control.get("/faults").json()["active"]]

        until(lambda: acted() == [1])
        for path in (f"/faults/{begun['id']}", "/faults"):
            answer = control.delete(path)
            assert (answer.status_code, answer.json()["code"]) == (409, "REFUSED")
            assert "`terminal-sim restart 1` ends it at once" in answer.json()["error"]
        assert acted() == [1]
        assert control.post("/terminals/1/restart").status_code == 200
        assert acted() == []
        with connected(ready, 1) as connection:
            assert connection.eval("mt5.initialize()")


def serve(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "terminal_sim", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("kind", ["scenario", "key", "empty key", "host", "port", "ready"])
def test_what_cannot_start_says_so_in_one_line(kind: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("seed = [")
    (tmp_path / "empty").write_text("\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = ("--port-base", "0", "--control-port", "0")
        arguments, reason = {
            "scenario": ((*free, "--scenario", str(tmp_path / "bad.toml")), "bad.toml: "),
            "key": ((*free, "--key-file", str(tmp_path / "none")), "No such file"),
            "empty key": ((*free, "--key-file", str(tmp_path / "empty")), "is empty"),
            "host": ((*free, "--host", "0.0.0.0"), "only a loopback"),  # noqa: S104 - refused
            "ready": ((*free, "--ready-file", str(tmp_path / "no" / "r")), "directory does not"),
            "port": (("--control-port", "0", "--port-base", str(port)), f"port {port}"),
        }[kind]
        done = serve(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("terminal-sim: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_ready_file_that_cannot_be_written_ends_it(tmp_path: Path) -> None:
    (tmp_path / "ready").mkdir()
    ports = ("--port-base", "0", "--control-port", "0")
    done = serve(*ports, "--ready-file", str(tmp_path / "ready"))
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said == f"terminal-sim: {tmp_path / 'ready'}: Is a directory"
    assert list(tmp_path.iterdir()) == [tmp_path / "ready"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--terminals", "-1"), "--terminals"),
        (("--terminals", "501"), "--terminals"),
        (("--control-port", "70000"), "--control-port"),
        (("--port-base", "65535", "--terminals", "2"), "2 ports from there on do not exist"),
        (("--login-seconds", "nan"), "--login-seconds"),
        (("--broker", "Demo"), "NAME=HOST:PORT"),
        (("--broker", "Demo=host:0"), "NAME=HOST:PORT"),
        (("--broker", "Demo=host:1", "--terminals", "0"), "nothing to run"),
        (("--data-dir", "no/such"), "no/such: no does not exist"),
        (("--data-dir", __file__), f"{__file__}: is not a directory"),
        (("--data-dir", f"{__file__}/x"), f"{__file__}/x: is not a directory"),
        (("--what", "1"), "--what"),
    ],
)
def test_nonsense_options_are_refused(arguments: tuple[str, str], reason: str) -> None:
    done = serve(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("terminal-sim: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_scenario_whose_brokers_are_all_elsewhere_leaves_nothing_without_terminals(
    tmp_path: Path,
) -> None:
    scenario = tmp_path / "one.toml"
    scenario.write_text(ONE_SERVER)
    where = "One=127.0.0.1:1"
    done = serve("--scenario", str(scenario), "--broker", where, "--terminals", "0")
    assert done.returncode == 2
    assert "all brokers are run elsewhere" in done.stderr


@pytest.mark.long
def test_a_data_directory_is_made_and_is_of_one_simulator_at_a_time(tmp_path: Path) -> None:
    data, ready_file = tmp_path / "data", tmp_path / "ready"
    ready_file.write_text("of the first")
    options = "--data-dir", str(data), "--terminals", "0"
    for _ in range(2):
        with running(*options) as ready:
            assert data.stat().st_mode & 0o777 == 0o700
            port = ready.control_url.rpartition(":")[2]
            # The port is taken, too: the directory comes first.
            done = serve(*options, "--control-port", port, "--ready-file", str(ready_file))
        assert done.returncode == 2
        assert done.stderr == f"terminal-sim: {data} is in use by another simulator\n"
    assert ready_file.read_text() == "of the first"


@pytest.mark.long
def test_a_data_directory_without_brokers_is_nobodys(tmp_path: Path) -> None:
    options = "--data-dir", str(tmp_path), "--broker", "One=127.0.0.1:1"
    with running(*options), running(*options):
        assert list(tmp_path.iterdir()) == []


def test_a_ready_file_of_before_is_gone_when_it_starts(tmp_path: Path) -> None:
    stale = tmp_path / "ready"
    stale.write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = serve("--control-port", port, "--port-base", "0", "--ready-file", str(stale))
    assert done.returncode == 2
    assert not stale.exists()


ENTRYPOINT = Path(terminal_sim.__path__[0]) / "docker" / "entrypoint.sh"


@pytest.mark.parametrize(
    ("role", "scenario", "expected"),
    [
        ("terminal", "", "serve --broker A=b:1"),
        ("terminal", "/s.toml", "serve --scenario /s.toml --broker A=b:1"),
        ("broker", "/s.toml", "serve --broker-port 8200 --data-dir /d --scenario /s.toml"),
        ("all", "", "serve --broker-port 8200 --data-dir /d --broker A=b:1"),
    ],
)
def test_the_image_passes_the_scenario_in_every_role(
    role: str, scenario: str, expected: str, tmp_path: Path
) -> None:
    shell = shutil.which("sh")
    assert shell
    command = tmp_path / "terminal-sim"
    command.write_text(f'#!{shell}\necho "$@"\n')
    command.chmod(0o755)
    variables = {
        "PATH": str(tmp_path),
        "MT5_ROLE": role,
        "MT5_SCENARIO": scenario,
        "MT5_BROKERS": "A=b:1",
        "MT5_TERMINALS": "1",
        "MT5_DATA_DIR": "/d",
        "MT5_DRAIN_S": "60",
        "SUPERVISOR_KEY_FILE": "/k",
    }
    done = subprocess.run(
        [shell, str(ENTRYPOINT)], env=variables, capture_output=True, text=True, check=True
    )
    always = (
        "--host 0.0.0.0 --terminals {} --port-base 8001 --control-port 8100 --key-file /k"
        " --drain-seconds 60 "
    )
    given = always.format(0 if role == "broker" else 1)
    assert done.stdout.strip().replace(given, "") == expected


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ('name = "latenci"', "line 7: no fault is named 'latenci'"),
        ('name = "latency"\nms = "fast"', "line 7: latency: ms: expected float, got str"),
        ('name = "crash"\nafter_s = -1', "line 7: after_s: must be from 0"),
        ('name = "requote"\nserver = "Two"', "line 9: $.faults[0].server: no server is named"),
        (
            'name = "crash"\nterminal = 3',
            "line 9: $.faults[0].terminal: there are terminals 1 to 1",
        ),
    ],
)
def test_planned_faults_are_refused_before_any_port_opens(
    fault: str, reason: str, tmp_path: Path
) -> None:
    scenario = tmp_path / "one.toml"
    scenario.write_text(f"{ONE_SERVER}[[faults]]\n{fault}\n")
    done = serve("--scenario", str(scenario))
    assert done.returncode == 2
    assert done.stderr.startswith(f"terminal-sim: {scenario}: ")
    assert reason in done.stderr
    assert "listen" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("terminals", "expected"),
    [
        ("2", [("autotrading_off", 2, None), ("requote", None, "One")]),
        ("0", [("requote", None, "One")]),
    ],
)
def test_planned_faults_begin_at_their_times_where_they_are_wanted(
    terminals: str, expected: list[Any], tmp_path: Path
) -> None:
    scenario = tmp_path / "one.toml"
    planned = (
        '[[faults]]\nname = "autotrading_off"\nterminal = 2\n'
        '[[faults]]\nname = "requote"\nafter_s = 0.5\ntimes = 4\n'
    )
    scenario.write_text(ONE_SERVER + planned)
    with (
        running("--scenario", str(scenario), "--terminals", terminals) as ready,
        httpx.Client(base_url=ready.control_url) as control,
    ):

        def active() -> list[Any]:
            found = control.get("/faults").json()["active"]
            return [(each["name"], each.get("terminal"), each.get("server")) for each in found]

        until(lambda: active() == expected)


def test_two_connections_of_a_terminal_share_one_module(ready: Ready) -> None:
    with connected(ready, 2) as one, connected(ready, 2) as two:
        assert one.eval("id(mt5)") == two.eval("id(mt5)")
