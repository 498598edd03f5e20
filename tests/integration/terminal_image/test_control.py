"""The control API, logs, refusals at the start, and where secrets are not."""

import json
import shutil
import socket
from pathlib import Path

import httpx
import pytest
from tests.integration.terminal_image.stage import KEY, Stage, connected, frozen
from tests.waiting import wait_for

from terminal_sim.testing import running

pytestmark = pytest.mark.long

ROW = {
    "n", "port", "pid", "state", "in_login_until", "memory_bytes", "version", "restarts",
    "started_at", "logged_in", "answering", "clients",
}  # fmt: skip
FAILURE = {"success", "error", "code", "details", "retry_after_s", "request_id"}


def test_a_terminal_is_reported_in_full(up: Stage) -> None:
    (row,) = up.ask("GET", "/terminals").json()["terminals"]
    assert set(row) == ROW
    assert row["memory_bytes"] > 1_000_000
    assert row["started_at"].endswith("Z")


def test_every_route_but_one_wants_the_key(up: Stage) -> None:
    wanted = [("GET", "/terminals"), ("POST", "/terminals/1/restart"), ("GET", "/terminals/1/logs"),
              ("POST", "/drain"), ("GET", "/nothing")]  # fmt: skip
    before = up.row()["restarts"]
    for method, path in wanted:
        for key in ("", "wrong", KEY + "x", KEY[:-1]):
            answer = up.ask(method, path, key=key)
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
            assert set(answer.json()) == FAILURE
    assert up.row()["restarts"] == before
    assert up.row()["state"] == "running"
    live = up.ask("GET", "/health/live", key="")
    assert (live.status_code, live.json()) == (200, {"success": True, "status": "ok"})


FAILING = [
    ("GET", "/nothing", 404, "NOT_FOUND"),
    ("POST", "/terminals/2/restart", 404, "NOT_FOUND"),
    ("GET", "/terminals/0/logs", 404, "NOT_FOUND"),
    ("GET", "/terminals/one/logs", 422, "INVALID_PARAMETERS"),
    ("GET", "/terminals/1/logs?lines=0", 422, "INVALID_PARAMETERS"),
    ("GET", "/terminals/1/logs?lines=1001", 422, "INVALID_PARAMETERS"),
    ("GET", "/terminals/1/logs?lines=ten", 422, "INVALID_PARAMETERS"),
    ("POST", "/terminals", 405, "METHOD_NOT_ALLOWED"),
    ("DELETE", "/drain", 405, "METHOD_NOT_ALLOWED"),
]


def test_what_cannot_be_done_is_said_in_one_shape(up: Stage) -> None:
    for method, path, status, code in FAILING:
        answer = up.ask(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
        assert set(answer.json()) == FAILURE


def shapes(answer: httpx.Response, row: str | None = None) -> tuple[object, ...]:
    """Status and names of an answer, and of one of its rows."""
    body = answer.json()
    rows = body.get(row) or {}
    named = rows if isinstance(rows, dict) else rows[0]
    return answer.status_code, set(body), set(named), body.get("code")


def test_it_speaks_as_the_simulators_supervisor_does(up: Stage, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    with running("--terminals", "1", "--key-file", str(key)) as simulator:

        def both(method: str, path: str, row: str | None = None) -> None:
            url, headers = simulator.control_url + path, {"X-Supervisor-Key": KEY}
            theirs = shapes(httpx.request(method, url, headers=headers, timeout=60), row)
            status, names, row_names, code = shapes(up.ask(method, path), row)
            # What it says besides is free.
            more = {"answering", "clients"} if row in {"terminals", "terminal"} else set()
            assert isinstance(row_names, set)
            assert (status, names, row_names - more, code) == theirs, path

        both("GET", "/health/live")
        both("GET", "/terminals", "terminals")
        both("GET", "/terminals/1/logs?lines=5", "logs")
        both("POST", "/terminals/1/restart", "terminal")
        both("POST", "/terminals/9/restart")
        both("GET", "/terminals/one/logs")
        both("GET", "/terminals/1/logs?lines=0")
        both("GET", "/nothing")
        both("POST", "/terminals")


def test_bodies_are_bounded_and_garbage_is_refused(up: Stage) -> None:
    assert up.ask("POST", "/terminals/7/restart", content=b"x" * 70_000).status_code == 413
    with socket.create_connection(("127.0.0.1", up.control_port)) as link:
        link.sendall(b"\x16\x03\x01 is no HTTP\r\n\r\n")
        link.settimeout(10)
        assert link.recv(1000)
    assert up.ask("GET", "/health/live").status_code == 200


def test_many_requests_go_through_one_connection(up: Stage) -> None:
    headers = {"X-Supervisor-Key": KEY}
    with httpx.Client(base_url=f"http://127.0.0.1:{up.control_port}", headers=headers) as client:
        for _ in range(20):
            assert client.get("/terminals").status_code == 200
            assert client.post("/terminals/7/restart", json={"n": 7}).status_code == 404


def test_it_answers_while_a_terminal_is_frozen(up: Stage) -> None:
    with frozen(up, 20_000):
        wait_for(lambda: up.row()["answering"] is False, "the silence is noticed")
        assert up.ask("POST", "/terminals/1/restart").status_code == 200
    up.running()


def test_what_parts_print_can_be_read(up: Stage) -> None:
    said = up.ask("GET", "/terminals/1/logs").json()["logs"]
    assert {tuple(line) for line in said} == {("timestamp", "level", "message")}
    assert any("C:\\mt5\\1\\terminal64.exe runs" in line["message"] for line in said)
    assert any("serving C:\\mt5\\1 on port" in line["message"] for line in said)
    assert len(up.ask("GET", "/terminals/1/logs?lines=1").json()["logs"]) == 1


def test_logs_are_bounded(up: Stage) -> None:
    with connected(up) as link:
        link.execute("import sys\nfor n in range(30000): print(n, 'x' * 100)\nsys.stdout.flush()")
        link.execute("print('y' * 1_000_000); print('the last', flush=True)")

    def newest() -> list[dict[str, str]]:
        logs: list[dict[str, str]] = up.ask("GET", "/terminals/1/logs?lines=1000").json()["logs"]
        return logs

    wait_for(lambda: any("the last" in line["message"] for line in newest()), "all is kept")
    assert len(newest()) == 1000
    sizes = [path.stat().st_size for path in (up.home / "logs").glob("terminal-1*")]
    assert len(sizes) == 2
    assert max(sizes) <= 1_000_000


def test_what_metatrader_writes_into_its_journal_can_be_read(up: Stage) -> None:
    journal = up.prefix / "drive_c" / "mt5" / "1" / "logs"
    journal.mkdir()
    line = "KK\t2\t10:00:00.000\tNetwork\t'1001': authorization on S failed\r\n"
    (journal / "20260102.log").write_bytes(("\ufeff" + line).encode("utf-16-le"))

    def told() -> list[dict[str, str]]:
        logs = up.ask("GET", "/terminals/1/logs").json()["logs"]
        return [line for line in logs if line["message"].startswith("Network")]

    wait_for(told, "the journal is copied")
    assert told()[0]["message"] == "Network: '1001': authorization on S failed"
    assert told()[0]["level"] == "ERROR"
    with (journal / "20260102.log").open("ab") as file:
        file.write(line.encode("utf-16-le") * 2)
    wait_for(lambda: len(told()) == 3, "what comes is copied")


def test_secrets_are_in_no_argument_environment_or_log(stage: Stage) -> None:
    password = stage.directory / "vnc_password"
    password.write_text("seen-by-nobody\n")
    for name in ("Xvnc", "openbox"):
        (stage.directory / "bin" / name).symlink_to("Xvfb")
    (stage.directory / "bin" / "openbox").unlink()
    (stage.directory / "bin" / "openbox").symlink_to("/bin/cat")
    openssl = stage.directory / "bin" / "openssl"
    openssl.write_text(
        f'#!/bin/sh\nprintf \'{{"argv": ["openssl %s"], "environment": {{}}}}\\n\' "$*" '
        f'>> {stage.directory}/ran\nexec {shutil.which("openssl")} "$@"\n'
    )
    openssl.chmod(0o755)
    stage.start(MT5_VNC="1", FILE__PASSWORD=password, SOMEBODYS_SECRET="in-the-environment")
    stage.running()
    with connected(stage) as link:
        mt5 = link.modules.MetaTrader5
        assert mt5.initialize()
        assert mt5.login(1001, password="right", server="S")
        assert not mt5.login(1001, password="wrong-and-secret", server="S")
    secrets = (KEY, "seen-by-nobody", "in-the-environment", "wrong-and-secret")
    everything = json.dumps(stage.ran()) + "".join(stage.output)
    for path in stage.home.rglob("*.jsonl*"):
        everything += path.read_text()
    for process in stage.processes(""):
        everything += str(process.cmdline()) + str(process.environ())
    assert not [secret for secret in secrets if secret in everything]
    assert "openssl passwd" in everything
    hashed = (stage.memory / "vnc" / "passwords").read_text()
    assert hashed.startswith("mt5:$5$kasm$")
    assert (stage.memory / "vnc").stat().st_mode & 0o077 == 0
    (argv,) = [each["argv"] for each in stage.ran() if each["argv"][0].endswith("Xvnc")]
    assert argv[argv.index("-KasmPasswordFile") + 1] == str(stage.memory / "vnc" / "passwords")
    assert "-DisableBasicAuth" not in argv
    assert argv[argv.index("-sslOnly") + 1] == "1"
    assert not [each for each in stage.ran() if each["argv"][0].endswith("Xvfb")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SUPERVISOR_KEY_FILE": "/nowhere/key"}, "/nowhere/key: No such file or directory"),
        ({"SUPERVISOR_KEY_FILE": "{empty}"}, "is empty"),
        ({"TERMINALS": "0"}, "TERMINALS is a whole number from 1 to 50, not '0'"),
        ({"TERMINALS": "five"}, "TERMINALS is a whole number from 1 to 50, not 'five'"),
        ({"MT5_DRAIN_S": "soon"}, "MT5_DRAIN_S is a number of seconds, not 'soon'"),
        ({"MT5_VNC": "yes"}, "MT5_VNC is 0 or 1, not 'yes'"),
        ({"MT5_VNC": "1"}, "MT5_VNC=1 wants FILE__PASSWORD"),
        (
            {"MT5_VNC": "1", "FILE__PASSWORD": "/nowhere/password"},
            "/nowhere/password: No such file",
        ),
        ({"MT5_RUN_DIR": "{disk}"}, "has to be a tmpfs"),
        ({"MT5_HOME": "/proc/nowhere", "WINEPREFIX": "/proc/x"}, "/proc/nowhere"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    empty: Stage, changes: dict[str, str], said: str
) -> None:
    (empty.directory / "empty").touch()
    places = {"empty": empty.directory / "empty", "disk": Path(__file__).parent}
    done = empty.command(**{name: value.format(**places) for name, value in changes.items()})
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not empty.ran()


def test_a_port_in_use_is_refused(up: Stage) -> None:
    done = up.command()
    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert up.row()["state"] == "running"
