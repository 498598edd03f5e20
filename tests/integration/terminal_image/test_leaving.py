"""Draining, stopping, and what is forgotten when a terminal is released."""

import signal

import pytest
from tests.integration.terminal_image.stage import Stage, connected
from tests.waiting import wait_for

pytestmark = pytest.mark.long


def kept(stage: Stage) -> list[str]:
    """Files of the terminal's config, which the module has put an account into, or not."""
    return sorted(path.name for path in stage.config().iterdir()) if stage.config().exists() else []


def log_in(link: object) -> None:
    mt5 = link.modules.MetaTrader5  # type: ignore[attr-defined]
    assert mt5.initialize()
    assert mt5.login(1001, password="right", server="S")


def test_an_account_is_kept_in_memory_alone(stage: Stage) -> None:
    stage.start()
    stage.running()
    with connected(stage) as link:
        log_in(link)
    assert kept(stage) == ["accounts.dat", "servers.dat"]
    own = stage.prefix / "drive_c" / "mt5" / "1"
    assert (own / "Config").readlink() == stage.config()
    on_disk = [path for path in stage.home.rglob("accounts.dat") if not path.is_symlink()]
    assert not on_disk


def test_a_config_that_lies_on_the_disk_is_moved_into_memory(stage: Stage) -> None:
    link = stage.prefix / "drive_c" / "mt5" / "1" / "Config"
    link.unlink()
    link.mkdir()
    (link / "accounts.dat").touch()
    stage.start()
    stage.running()
    assert link.is_symlink()
    assert kept(stage) == ["servers.dat"]


def test_a_released_terminal_forgets_its_account(stage: Stage) -> None:
    stage.start(MT5_RELEASE_S="1")
    stage.running()
    with connected(stage) as link:
        log_in(link)
        (before,) = stage.processes("terminal64.exe")
        assert "accounts.dat" in kept(stage)
    wait_for(lambda: stage.events("config_cleared"), "it is released")
    stage.running()
    assert kept(stage) == ["servers.dat"]
    assert not before.is_running()
    assert stage.row()["logged_in"] is None
    with connected(stage) as link:
        assert link.modules.MetaTrader5.initialize()
        assert link.modules.MetaTrader5.account_info() is None
    assert [event["why"] for event in stage.events("terminal_reset")] == ["released"]


def test_a_terminal_that_somebody_has_is_not_released(stage: Stage) -> None:
    stage.start(MT5_RELEASE_S="0.5")
    stage.running()
    with connected(stage) as link:
        log_in(link)
        # Other connections come and go, and the supervisor asks its own questions.
        for _ in range(3):
            with connected(stage):
                wait_for(lambda: stage.row()["clients"] == 2, "both are counted")
            wait_for(lambda: stage.row()["clients"] == 1, "one is counted")
        assert not stage.events("terminal_reset")
        assert link.modules.MetaTrader5.account_info().login == 1001


def test_a_terminal_that_ends_keeps_its_account(stage: Stage) -> None:
    stage.start()
    stage.running()
    with connected(stage) as link:
        log_in(link)
        stage.processes("terminal64.exe")[0].kill()
        wait_for(lambda: stage.row()["restarts"] == 1, "it is started again")
        mt5 = link.modules.MetaTrader5
        wait_for(mt5.initialize, "it is reached again")
        assert mt5.account_info().login == 1001


def test_a_restart_that_is_asked_for_forgets_the_account(stage: Stage) -> None:
    stage.start()
    stage.running()
    with connected(stage) as link:
        log_in(link)
    assert stage.ask("POST", "/terminals/1/restart").status_code == 200
    assert kept(stage) == ["servers.dat"]


def test_without_clients_it_stops_when_told(stage: Stage) -> None:
    stage.start()
    stage.running()
    stage.signal()
    assert stage.exit_code() == 0
    assert not stage.processes("terminal64.exe")
    assert not stage.processes("serve.py")
    assert not stage.processes("Xvfb")
    assert kept(stage) == []
    assert stage.events("stopped")
    said = (stage.home / "logs" / "terminal-1.jsonl").read_text()
    assert "was asked to end" in said


def test_clients_may_stay_until_they_have_left(stage: Stage) -> None:
    stage.start()
    stage.running()
    with connected(stage) as link:
        log_in(link)
        stage.signal()
        wait_for(lambda: stage.row()["state"] == "draining", "it says that it will stop")
        # Everything goes on, and what ends is still started again.
        stage.processes("terminal64.exe")[0].kill()
        wait_for(lambda: stage.row()["restarts"] == 1, "it is started again")
        wait_for(lambda: stage.row()["state"] == "draining", "it serves again")
        wait_for(link.modules.MetaTrader5.initialize, "it is reached again")
        assert stage.process is not None
        assert stage.process.poll() is None
    assert stage.exit_code() == 0
    assert not stage.events("drain_over")


def test_clients_that_do_not_leave_are_left(stage: Stage) -> None:
    stage.start(MT5_DRAIN_S="3")
    stage.running()
    with connected(stage):
        wait_for(lambda: stage.row()["clients"] == 1, "the client is counted")
        stage.signal()
        assert stage.exit_code() == 0
    assert stage.events("drain_over")[0]["clients"] == 1


def test_a_second_signal_ends_it_at_once(stage: Stage) -> None:
    stage.start()
    stage.running()
    with connected(stage):
        stage.signal()
        wait_for(lambda: stage.events("draining"), "it drains")
        stage.signal()
        assert stage.exit_code() == 128 + signal.SIGTERM
    assert not stage.processes("terminal64.exe")
    assert not stage.processes("serve.py")


def test_a_terminal_that_does_not_end_when_asked_is_ended(stage: Stage) -> None:
    stage.plan("terminal", "ignore-sigterm")
    stage.start()
    stage.running()
    (stubborn,) = stage.processes("terminal64.exe")
    stage.signal()
    assert stage.exit_code() == 0
    assert not stubborn.is_running()


@pytest.mark.parametrize("times", [1, 2])
def test_draining_can_be_asked_for_and_ends_nothing(stage: Stage, times: int) -> None:
    stage.start()
    stage.running()
    for _ in range(times):
        assert stage.ask("POST", "/drain").json() == {"success": True, "draining": True}
    assert stage.row()["state"] == "draining"
    assert stage.command("health").returncode == 0
