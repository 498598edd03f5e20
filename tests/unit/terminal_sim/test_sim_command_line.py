"""The commands, as somebody types them."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import rpyc
from rpyc.core.service import ClassicClient

from terminal_sim.__main__ import main
from terminal_sim.cli.control import Control
from terminal_sim.faults.catalogue import descriptions
from terminal_sim.faults.injection import BROKER_KINDS, TERMINAL_KINDS, optional
from terminal_sim.testing import Ready, running

KEY = "a-made-up-key"
LOGIN = "5001001"


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text(KEY)
    return path


@pytest.fixture(scope="module")
def ready(key_file: Path) -> Iterator[Ready]:
    with running("--terminals", "2", "--key-file", str(key_file)) as ready:
        yield ready


class Shell:
    """Types commands and reads what they say."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.code = 0
        self.said = ""
        self.complained = ""

    def __call__(self, *words: str) -> str:
        self.code = main(words)
        self.said, self.complained = self._capsys.readouterr()
        return self.said

    def fails(self, *words: str, code: int = 1) -> str:
        self(*words)
        assert self.code == code, self.said + self.complained
        assert self.complained.startswith("terminal-sim: ")
        assert self.complained.count("\n") == 1
        return self.complained


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("COLUMNS", "160")
    return Shell(capsys)


@pytest.fixture
def at(ready: Ready, key_file: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("TERMINAL_SIM_URL", ready.control_url)
    monkeypatch.setenv("TERMINAL_SIM_KEY_FILE", str(key_file))
    return shell


def test_the_catalogue_needs_no_simulator(shell: Shell) -> None:
    said = shell("fault")
    assert shell.code == 0
    assert all(name in said for name in (*TERMINAL_KINDS, *BROKER_KINDS))


def test_breaking_listing_and_mending(at: Shell) -> None:
    said = at("fault", "latency", "--terminal", "2", "ms=2", "functions=version,orders_get")
    assert (at.code, "latency ms=2" in said, "terminal 2" in said) == (0, True, True)
    at("fault", "requote", "times=none", "seconds=60")
    said = at("faults")
    assert "functions=version,orders_get" in said
    assert "requote" in said
    number = said.split()[0]
    assert at("mend", number) == "mended: 1\n"
    assert "is on" in at.fails("mend", number)
    assert at("mend", "--all") == "mended: 1\n"
    assert at("faults") == "no fault is on\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("fault", "latenci"), "no fault is named"),
        (("fault", "latency", "ms"), "NAME=VALUE"),
        (("fault", "latency", "ms=slow"), "ms: expected float"),
        (("fault", "latency", "ms=nan"), "ms: expected float"),
        (("fault", "latency", "ms=1", "--server", "A"), "'server'"),
        (("fault", "requote", "--terminal", "1"), "fault of brokers"),
        (("mend",), "--all"),
        (("mend", "1", "--all"), "--all"),
        (("open", "EURUSD", "buy", "much", "--account", "1"), "volume"),
        (("open", "EURUSD", "buy", "1"), "--account"),
        (("open", "EURUSD", "buy", "nan", "--account", "1"), "not a finite number"),
        (("open", "EURUSD", "buy", "1e400", "--account", "1"), "not a finite number"),
        (("open", "EURUSD", "buy", "1", "--sl", "inf", "--account", "1"), "not a finite number"),
        (("deposit", "nan", "--account", "1"), "not a finite number"),
        (("close", "1", "--account", "1", "--volume", "nan"), "not a finite number"),
        (("open", "\udcff", "buy", "1", "--account", "1", "--server", "A"), "not valid Unicode"),
        (("account", "1", "--server", "\udcff"), "not valid Unicode"),
        (("fault", "market_closed", "symbol=\udcff"), "valid Unicode"),
        (("nonsense",), "nonsense"),
        (("restart",), "--server"),
        (("restart", "1", "--server", "A"), "--server"),
        (("logs",), "--server"),
        (("logs", "1", "--lines", "0"), "--lines"),
        (("deposit", "10", "--acount", "1"), "--account"),
        (("fault", "latency", "ms=none"), "ms: expected float"),
    ],
)
def test_what_is_not_understood_is_said_in_one_line(
    shell: Shell, words: tuple[str, ...], reason: str
) -> None:
    assert reason in shell.fails(*words, code=2)


def test_a_password_can_stay_in_a_file(at: Shell, ready: Ready, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("Demo-1001-main\n")
    said = at(
        *("fault", "account_switched", "--terminal", "1"),
        *("login=" + LOGIN, "password=@" + str(tmp_path / "password")),
    )
    assert (at.code, "password=***" in said) == (0, True), at.complained
    headers = {"X-Supervisor-Key": KEY}
    with httpx.Client(base_url=ready.control_url, headers=headers) as control:
        # The answer to the fault came after the switch.
        state = control.get("/terminals").json()["terminals"][0]
        assert str(state["logged_in"]) == LOGIN
    assert "No such file" in at.fails("fault", "account_switched", "login=1", "password=@/none")


def test_what_is_no_supervisor_is_called_so(shell: Shell) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert "is not a terminal supervisor" in shell.fails("faults", "--url", url)


def test_who_cannot_be_asked(shell: Shell, ready: Ready, tmp_path: Path) -> None:
    assert "is the simulator running" in shell.fails("faults", "--url", "http://127.0.0.1:1")
    assert "--url" in shell.fails("faults", "--url", "nonsense://")
    assert "--key-file" in shell.fails("faults", "--url", ready.control_url)
    (tmp_path / "other").write_text("another-made-up-key")
    wrong = shell.fails("faults", "--url", ready.control_url, "--key-file", str(tmp_path / "other"))
    assert "the one given is wrong" in wrong
    missing = str(tmp_path / "none")
    assert "No such file" in shell.fails("faults", "--key-file", missing)


def test_a_person_trades(at: Shell) -> None:
    said = at("open", "EURUSD", "buy", "0.1", "--account", LOGIN, "--comment", "by hand")
    assert (at.code, said.startswith("10009 ")) == (0, True), at.complained
    ticket = said.split("order ")[1].split(",")[0]
    assert f"position {ticket}  EURUSD buy 0.1" in at("account", LOGIN)
    assert at("close", ticket, "--account", LOGIN, "--volume", "0.04").startswith("10009 ")
    assert at("close", ticket, "--account", LOGIN).startswith("10009 ")
    assert "no position" in at.fails("close", ticket, "--account", LOGIN)
    assert "10014" in at.fails("open", "EURUSD", "buy", "0.001", "--account", LOGIN)
    assert "has an account 9" in at.fails("open", "EURUSD", "buy", "1", "--account", "9")
    assert "body.type" in at.fails("open", "EURUSD", "hold", "1", "--account", LOGIN)


def test_money_is_paid_in_and_out(at: Shell) -> None:
    before = balance(at("account", LOGIN))
    said = at("deposit", "100", "--account", LOGIN)
    assert (at.code, said.startswith("10009 "), "100.00 paid in" in said) == (0, True, True)
    assert balance(said) == pytest.approx(before + 100)
    said = at("deposit", "-40.5", "--account", LOGIN)
    assert (at.code, "40.50 paid out" in said) == (0, True), at.complained
    assert balance(said) == pytest.approx(before + 59.5)
    said = at("deposit", "--account", LOGIN, "--", "-59.5")
    assert balance(said) == pytest.approx(before), at.complained
    assert said.endswith(" USD\n")


def balance(said: str) -> float:
    line = next(each for each in said.splitlines() if each.startswith("balance"))
    return float(line.split()[1])


def test_none_is_a_word_where_it_is_one_of_a_parameters_values(at: Shell) -> None:
    said = at("fault", "answer_lost", "answer=none", "login=none", "times=1", "seconds=none")
    assert (at.code, "answer=none times=1 " in said) == (0, True), at.complained
    assert at("mend", said.split()[0]) == "mended: 1\n"


@pytest.mark.parametrize("name", [*TERMINAL_KINDS, *BROKER_KINDS])
def test_none_leaves_open_what_the_catalogue_says_may_be(name: str) -> None:
    described = next(each for each in descriptions() if each.name == name)
    open_ = {key for key, each in described.parameters.items() if each.type.endswith("or none")}
    where = "terminal" if described.scope == "terminal" else "server"
    assert open_ | {where} == optional(name) & ({*described.parameters, where})


def test_a_fault_that_could_not_begin_everywhere_fails(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = {"id": 1, "name": "latency", "parameters": {}, "acted": 0}
    rows = [
        begun | {"terminal": 1, "applied": True, "error": None},
        begun | {"terminal": 2, "applied": False, "error": "it is full"},
    ]
    monkeypatch.setattr(Control, "ask", lambda *_, **__: {"faults": rows})
    assert "begin on terminal 2: it is full" in shell.fails("fault", "latency", "ms=1")
    assert "terminal 1" in shell.said


def test_processes_are_started_again_and_their_logs_read(at: Shell, ready: Ready) -> None:
    server = ready.brokers[0].server
    for where, name in ((("2",), "terminal 2"), (("--server", server), server)):
        said = at("restart", *where)
        assert (at.code, f"{name} is running: port " in said) == (0, True), at.complained
        pid = said.split()[-1]
        assert pid in at("status")
        until(partial(at, "logs", *where, "--lines", "1"))
        assert (at.code, at.said.count("\n")) == (0, 1), at.complained
    assert "no terminal 99" in at.fails("restart", "99")
    assert "'Nowhere'" in at.fails("logs", "--server", "Nowhere")


@pytest.mark.long
def test_brokers_elsewhere(at: Shell, ready: Ready, shell: Shell, key_file: Path) -> None:
    there = ready.brokers[0]
    where = f"{there.server}={there.host}:{there.port}"
    with running("--terminals", "1", "--broker", where, "--key-file", str(key_file)) as here:
        url = ("--url", here.control_url)
        said = shell("status", *url)
        assert (shell.code, "elsewhere" in said) == (0, True), shell.complained
        healthy = "0 brokers and 1 terminal serve; 1 broker run elsewhere\n"
        assert shell("health", *url) == healthy, shell.complained
        no_account = shell.fails("account", LOGIN, *url)
        assert f"run elsewhere, with a supervisor there: {there.server}" in no_account
        assert "run elsewhere" in shell.fails("restart", "--server", there.server, *url)
        with httpx.Client(headers={"X-Supervisor-Key": KEY}) as control:
            far = control.get(f"{here.control_url}/brokers").json()["brokers"]
            near = control.get(f"{ready.control_url}/brokers").json()["brokers"]
        assert [set(row) for row in far] == [set(near[0])]
        unknown = ("pid", "memory_bytes", "restarts", "started_at", "persists")
        assert [far[0][name] for name in unknown] == [None] * len(unknown)
        assert far[0]["accounts"] == []


def test_help_is_all_that_is_said_without_a_command(shell: Shell) -> None:
    assert "Usage: terminal-sim" in shell()
    assert (shell.code, shell.complained) == (2, "")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "No.", "details": {"fields": ["body.a", "body.b"]}}, "No. body.a, body.b"),
        (
            {
                "error": "body.a: too low.",
                "details": {
                    "fields": ["body.a", "body.b"],
                    "reasons": [
                        {"field": "body.a", "reason": "too low"},
                        {"field": "body.b", "reason": "is no text"},
                    ],
                },
            },
            "body.a: too low. body.b: is no text",
        ),
        ({"error": "No.", "details": {}}, "No."),
        ({}, "Unprocessable Entity"),
    ],
)
def test_a_failure_names_each_field_once(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, body: dict[str, object], said: str
) -> None:
    answer = httpx.Response(422, json=body)
    monkeypatch.setattr(httpx.Client, "request", lambda *_, **__: answer)
    assert shell.fails("faults") == f"terminal-sim: {said}\n"


def test_health_and_status(at: Shell) -> None:
    assert at("health") == "1 broker and 2 terminals serve\n"
    said = at("status")
    assert "MT5Swarm-Demo" in said
    assert "running" in said


def test_a_frozen_terminal_is_ill_and_one_in_a_login_is_not(at: Shell, ready: Ready) -> None:

    where = ready.terminals[0]
    link = rpyc.connect(where.host, where.port, service=ClassicClient)
    link.execute("import MetaTrader5 as mt5; mt5.initialize()")
    freezing = rpyc.async_(link.eval)
    login = freezing("mt5.login(1, password='x', server='Nowhere', timeout=4000)")
    headers = {"X-Supervisor-Key": KEY}
    with httpx.Client(base_url=ready.control_url, headers=headers) as control:
        until(lambda: control.get("/terminals").json()["terminals"][0]["in_login_until"])
        assert at("health", "--timeout", "0.5").endswith("serve\n"), at.complained
        assert not login.ready
        link.close()
        assert control.post("/terminals/1/restart").status_code == 200
        assert control.post("/faults", json={"name": "freeze", "hold_s": 3600}).status_code == 201
        both = "terminal-sim: terminal 1 does not answer; terminal 2 does not answer\n"
        until(lambda: at("health", "--timeout", "0.5") == "" and at.complained == both)
        for number in (1, 2):
            assert f"terminal {number} is running" in at("restart", str(number)), at.complained
    assert at("health") == "1 broker and 2 terminals serve\n"


def test_processes_of_the_simulator_import_nothing_of_the_command_line() -> None:

    code = (
        "import runpy, sys; runpy.run_module('terminal_sim', run_name='__mp_main__');"
        "print(sorted({'typer', 'rich', 'fastapi', 'httpx', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout == "[]\n"
