"""The environment of everything that is started, and Wine's own commands."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from terminal.supervisor.events import tell

if TYPE_CHECKING:
    from terminal.supervisor.settings import Settings

# Of our own environment only these go on; the rest, above all where secrets lie, is not for them.
_PASSED_ON = ("PATH", "LANG", "LANGUAGE", "LC_ALL", "TZ")
_SERVER_S = 30.0


def environment(settings: Settings) -> dict[str, str]:
    """The variables of the display, of Wine and of what runs in it."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        **passed,
        "HOME": str(settings.home),
        "XDG_RUNTIME_DIR": str(settings.run_dir),
        "DISPLAY": f":{settings.display}",
        "WINEPREFIX": str(settings.prefix),
        # Wine tells of each thing it only half does, thousands of times a minute.
        "WINEDEBUG": "fixme-all",
        # It would write menu entries for a desktop that is not there.
        "WINEDLLOVERRIDES": "winemenubuilder.exe=d",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def end_wine(variables: dict[str, str]) -> None:
    """End every process of the prefix, and have its registry written to the disk."""
    for option in ("-k", "-w"):
        try:
            subprocess.run(  # noqa: S603 - a command of ours
                ["wineserver", option],  # noqa: S607 - where the base image has it
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_SERVER_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:  # noqa: PERF203 - two rounds
            tell("wineserver_failed", "warning", option=option, error=str(error))
