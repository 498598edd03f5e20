"""The first boot: from an empty volume to terminals that answer, or nothing that stays."""

import signal

from tests.integration.terminal_image.stage import Stage
from tests.waiting import wait_for

STEPS = [
    "download MetaTrader's installer",
    "make the prefix",
    "install Mono",
    "install Python",
    "install packages",
    "install MetaTrader",
]


def steps(stage: Stage) -> list[str]:
    return [event["step"] for event in stage.events("first_boot_step")]


def test_an_empty_volume_becomes_terminals_that_answer(stage: Stage) -> None:
    stage.start()
    stage.running()
    assert steps(stage) == STEPS
    ran = [entry["argv"][1:] for entry in stage.ran()]
    pip = next(arguments for arguments in ran if "pip" in arguments)
    assert {"--no-index", "--require-hashes", "--no-deps"} <= set(pip)
    assert not (stage.home / "mt5setup.exe").exists()
    assert stage.command("health").returncode == 0


def test_a_volume_that_was_made_is_used_as_it_is(stage: Stage) -> None:
    stage.start()
    stage.running()
    stage.signal()
    assert stage.exit_code() == 0
    stage.output.clear()
    kept = stage.prefix / "drive_c" / "kept"
    kept.touch()
    stage.start()
    stage.running()
    assert not steps(stage)
    assert kept.exists()


def test_a_first_boot_that_was_killed_begins_anew(stage: Stage) -> None:
    stage.plan("mt5setup.exe", "hang")
    stage.start()
    wait_for(lambda: stage.processes("mt5setup.exe"), "MetaTrader's installer runs")
    stage.signal(signal.SIGKILL)
    stage.exit_code()
    half = stage.prefix / "drive_c" / "half"
    half.touch()
    stage.plan("mt5setup.exe", None)
    stage.output.clear()
    stage.start()
    stage.running()
    assert steps(stage) == STEPS
    assert not half.exists()


def test_another_image_makes_another_prefix(stage: Stage) -> None:
    stage.start()
    stage.running()
    stage.signal()
    stage.exit_code()
    stage.output.clear()
    (stage.image / "installers" / "SHA256SUMS").write_text("1")
    stage.start()
    stage.running()
    assert steps(stage) == STEPS


def test_a_step_that_fails_is_told_and_tried_again(stage: Stage) -> None:
    stage.plan("mt5setup.exe", "fail")
    stage.start(MT5_SETUP_S="5")
    wait_for(lambda: stage.events("first_boot_failed"), "the failure is told")
    assert "MetaTrader was not installed" in stage.events("first_boot_failed")[0]["why"]
    assert stage.row()["state"] == "starting"
    assert stage.command("health").returncode == 1
    stage.plan("mt5setup.exe", None)
    stage.running()


def test_what_cannot_be_downloaded_costs_nothing_but_time(stage: Stage) -> None:
    installer = stage.directory / "site" / "mt5setup.exe"
    aside = installer.rename(installer.with_name("aside"))
    stage.start()
    wait_for(lambda: stage.events("first_boot_failed"), "the failure is told")
    assert "404" in stage.events("first_boot_failed")[0]["why"]
    assert not stage.prefix.exists()
    aside.rename(installer)
    stage.running()


def test_a_container_can_be_stopped_in_its_first_boot(stage: Stage) -> None:
    stage.plan("mt5setup.exe", "hang")
    stage.start()
    wait_for(lambda: stage.processes("mt5setup.exe"), "MetaTrader's installer runs")
    stage.signal()
    assert stage.exit_code() == 0
    assert not (stage.home / "mt5-prefix.json").exists()
