"""The first boot: from an empty volume to terminals that answer, or nothing that stays."""

import signal

import pytest
from tests.integration.terminal_image.stage import Stage
from tests.waiting import wait_for

pytestmark = pytest.mark.long

STEPS = [
    "download MetaTrader's installer",
    "make the prefix",
    "install Mono",
    "install Python",
    "install packages",
    "install MetaTrader",
]


def steps(empty: Stage) -> list[str]:
    return [event["step"] for event in empty.events("first_boot_step")]


def test_an_empty_volume_becomes_terminals_that_answer(empty: Stage) -> None:
    empty.start()
    empty.running()
    assert steps(empty) == STEPS
    ran = [entry["argv"][1:] for entry in empty.ran()]
    pip = next(arguments for arguments in ran if "pip" in arguments)
    assert {"--no-index", "--require-hashes", "--no-deps"} <= set(pip)
    assert not (empty.home / "mt5setup.exe").exists()
    assert empty.command("health").returncode == 0


def test_a_volume_that_was_made_is_used_as_it_is(stage: Stage) -> None:
    kept = stage.prefix / "drive_c" / "kept"
    kept.touch()
    stage.start()
    stage.running()
    assert not steps(stage)
    assert kept.exists()


def test_a_first_boot_that_was_killed_begins_anew(empty: Stage) -> None:
    empty.plan("mt5setup.exe", "hang")
    empty.start()
    wait_for(lambda: empty.processes("mt5setup.exe"), "MetaTrader's installer runs")
    empty.signal(signal.SIGKILL)
    empty.exit_code()
    half = empty.prefix / "drive_c" / "half"
    half.touch()
    empty.plan("mt5setup.exe", None)
    empty.output.clear()
    empty.start()
    empty.running()
    assert steps(empty) == STEPS
    assert not half.exists()


def test_another_image_makes_another_prefix(stage: Stage) -> None:
    old = stage.prefix / "drive_c" / "old"
    old.touch()
    (stage.image / "installers" / "SHA256SUMS").write_text("1")
    stage.start()
    stage.running()
    assert steps(stage) == STEPS
    assert not old.exists()


def test_a_step_that_fails_is_told_and_tried_again(empty: Stage) -> None:
    empty.plan("mt5setup.exe", "fail")
    empty.start(MT5_SETUP_S="5")
    wait_for(lambda: empty.events("first_boot_failed"), "the failure is told")
    assert "MetaTrader was not installed" in empty.events("first_boot_failed")[0]["why"]
    assert empty.row()["state"] == "starting"
    assert empty.command("health").returncode == 1
    empty.plan("mt5setup.exe", None)
    empty.running()


def test_what_cannot_be_downloaded_costs_nothing_but_time(empty: Stage) -> None:
    installer = empty.directory / "site" / "mt5setup.exe"
    aside = installer.rename(installer.with_name("aside"))
    empty.start()
    wait_for(lambda: empty.events("first_boot_failed"), "the failure is told")
    assert "404" in empty.events("first_boot_failed")[0]["why"]
    assert not empty.prefix.exists()
    aside.rename(installer)
    empty.running()


def test_a_container_can_be_stopped_in_its_first_boot(empty: Stage) -> None:
    empty.plan("mt5setup.exe", "hang")
    empty.start()
    wait_for(lambda: empty.processes("mt5setup.exe"), "MetaTrader's installer runs")
    empty.signal()
    assert empty.exit_code() == 0
    assert not (empty.home / "mt5-prefix.json").exists()
