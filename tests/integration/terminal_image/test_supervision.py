"""Terminals are watched: what ends is started again, what freezes is found, logins are let be."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import rpyc
from tests.integration.terminal_image.stage import Stage, connected, frozen
from tests.waiting import wait_for

pytestmark = pytest.mark.long


def restarted(stage: Stage, count: int) -> None:
    """Wait until the first terminal was started again so often."""
    wait_for(lambda: stage.row()["restarts"] >= count, "it is started again")


def ended(stage: Stage, count: int) -> None:
    """Wait until so many ends of parts were noticed."""
    wait_for(lambda: len(stage.events("part_ended")) >= count, "the end is noticed")


def test_a_terminal_that_ends_is_started_again_and_its_server_is_left_alone(stage: Stage) -> None:
    stage.start()
    stage.running()
    (before,) = stage.processes("terminal64.exe")
    (server,) = stage.processes("serve.py")
    before.kill()
    before.wait()
    wait_for(lambda: stage.row()["restarts"] == 1, "it is started again")
    stage.running()
    (after,) = stage.processes("terminal64.exe")
    assert after.pid == stage.row()["pid"] != before.pid
    assert server.is_running()
    assert stage.processes("serve.py") == [server]


def test_a_server_that_ends_is_started_again_and_its_terminal_is_left_alone(stage: Stage) -> None:
    stage.start()
    stage.running()
    (terminal,) = stage.processes("terminal64.exe")
    (server,) = stage.processes("serve.py")
    server.kill()
    server.wait()
    wait_for(lambda: stage.row()["restarts"] == 1, "it is started again")
    stage.running()
    with connected(stage) as link:
        assert link.modules.sys.version_info[0] == 3
    assert stage.processes("terminal64.exe") == [terminal]


def test_each_end_in_a_row_is_waited_for_longer(stage: Stage) -> None:
    stage.start()
    stage.running()
    for count in range(1, 5):
        for process in stage.processes("terminal64.exe"):
            process.kill()
        restarted(stage, count)
    waits = [event["again_in_s"] for event in stage.events("part_ended")]
    assert waits == [0.0, 0.1, 0.2, 0.4]


def test_a_terminal_that_the_module_has_started_is_watched_and_not_doubled(stage: Stage) -> None:
    stage.start()
    stage.running()
    (before,) = stage.processes("terminal64.exe")
    # Nobody looks while the module is quicker.
    stage.signal(signal.SIGSTOP)
    before.kill()
    wait_for(lambda: stage.processes("terminal64.exe") == [], "it has ended")
    with connected(stage) as link:
        assert link.modules.MetaTrader5.initialize()
    (adopted,) = stage.processes("terminal64.exe")
    stage.signal(signal.SIGCONT)
    restarted(stage, 1)
    assert stage.processes("terminal64.exe") == [adopted]
    assert stage.row()["pid"] == adopted.pid
    adopted.kill()
    restarted(stage, 2)
    assert adopted.pid not in {each.pid for each in stage.processes("terminal64.exe")}


def test_an_interpreter_that_freezes_is_unhealthy(stage: Stage) -> None:
    stage.start()
    stage.running()
    with frozen(stage, 300_000):
        wait_for(lambda: stage.row()["answering"] is False, "the silence is noticed")
        said = stage.command("health")
        assert (said.returncode, said.stdout) == (1, "terminal 1 does not answer\n")
        assert stage.row()["state"] == "running"


def test_a_login_may_hold_the_interpreter_until_its_time_is_over(stage: Stage) -> None:
    stage.start(MT5_FROZEN_S="4")
    stage.running()
    with connected(stage) as link:
        mt5 = link.modules.MetaTrader5
        assert mt5.initialize()
        # Longer than an interpreter may otherwise be silent.
        rpyc.async_(mt5.login)(1001, password="slow", server="S", timeout=7000)
        wait_for(lambda: stage.row()["in_login_until"], "the login is known")
        wait_for(lambda: stage.row()["answering"] is False, "the interpreter is held")
        assert stage.row()["state"] == "running"
        assert stage.command("health").returncode == 0
        wait_for(lambda: stage.row()["answering"], "the login is over")
        assert not stage.events("terminal_frozen")
        assert stage.row()["in_login_until"] is None


def test_a_login_that_outlasts_its_time_is_no_excuse_and_both_parts_begin_anew(
    stage: Stage,
) -> None:
    stage.start(MT5_FROZEN_S="4")
    stage.running()
    with connected(stage) as link:
        mt5 = link.modules.MetaTrader5
        assert mt5.initialize()
        # The module itself takes longer than it was told to.
        link.execute(
            "import MetaTrader5, ctypes\n"
            "def late(*args, **kwargs): ctypes.PyDLL(None).usleep(300_000_000)\n"
            "MetaTrader5.login.__wrapped__.__code__ = late.__code__\n"
        )
        rpyc.async_(mt5.login)(1001, password="right", server="S", timeout=1)
        (server,) = stage.processes("serve.py")
        (terminal,) = stage.processes("terminal64.exe")
        wait_for(lambda: stage.events("terminal_frozen"), "it is given up")
    wait_for(lambda: not server.is_running() and not terminal.is_running(), "both are ended")
    stage.running()
    assert stage.command("health").returncode == 0


def test_who_is_in_and_which_version_it_is_can_be_read(stage: Stage) -> None:
    stage.start()
    stage.running()
    assert (stage.row()["logged_in"], stage.row()["version"]) == (None, None)
    with connected(stage) as link:
        mt5 = link.modules.MetaTrader5
        assert mt5.initialize()
        assert mt5.login(1001, password="right", server="S")
        assert (stage.row()["logged_in"], stage.row()["version"]) == (1001, "5.0.5430")
        assert not mt5.login(1002, password="wrong", server="S")
        assert mt5.last_error()[0] == -6
        assert stage.row()["logged_in"] is None


@pytest.mark.parametrize("program", ["terminal64.exe", "serve.py"])
def test_a_restart_that_is_asked_for_begins_both_parts_anew(stage: Stage, program: str) -> None:
    stage.start()
    stage.running()
    before = {
        process.pid for name in ("terminal64.exe", "serve.py") for process in stage.processes(name)
    }
    answer = stage.ask("POST", "/terminals/1/restart").json()
    assert answer["success"]
    assert answer["terminal"]["state"] == "running"
    assert not before & {process.pid for process in stage.processes(program)}


def test_the_display_comes_back_and_terminals_wait_for_it(stage: Stage) -> None:
    stage.start()
    stage.running()
    (display,) = stage.processes("Xvfb")
    display.kill()
    wait_for(lambda: stage.processes("Xvfb") not in ([], [display]), "it is started again")
    (argv,) = {tuple(e["argv"][1:]) for e in stage.ran() if e["argv"][0].endswith("Xvfb")}
    assert argv[argv.index("-nolisten") + 1] == "tcp"


def test_programs_that_have_lost_wines_server_are_started_again(stage: Stage) -> None:
    stage.start()
    stage.running()
    before = [*stage.processes("terminal64.exe"), *stage.processes("serve.py")]
    (server,) = stage.processes("-p")
    server.kill()
    wait_for(lambda: not any(each.is_running() for each in before), "they are ended")
    stage.running()


def test_several_terminals_have_a_port_a_directory_and_a_server_each(
    stages: Callable[..., Stage], volume: Path
) -> None:
    stage = stages(3)
    stage.take_over(volume)
    stage.start()
    stage.running()
    assert [row["port"] for row in stage.rows()] == [stage.port_base + n for n in range(3)]
    paths = []
    for number in (1, 2, 3):
        with connected(stage, number) as link:
            mt5 = link.modules.MetaTrader5
            assert mt5.initialize()
            paths.append(str(mt5.terminal_info().path))
            assert mt5.login(1000 + number, password="right", server="S")
    assert paths == [f"C:\\mt5\\{number}" for number in (1, 2, 3)]
    assert [row["logged_in"] for row in stage.rows()] == [1001, 1002, 1003]
    for number in (1, 2, 3):
        with connected(stage, number) as link:
            assert link.modules.MetaTrader5.account_info().login == 1000 + number
