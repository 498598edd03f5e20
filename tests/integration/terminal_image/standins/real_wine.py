"""Real Wine where there is one: for what it can do without installers that cannot be had."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

REAL, STANDIN = "/usr/bin/wine.real", "/usr/bin/wine.standin"
arguments = sys.argv[1:]


def setup() -> None:
    """Notepad is MetaTrader; as the real installer does, this one ends by starting it."""
    drive_c = Path(os.environ["WINEPREFIX"]) / "drive_c"
    installed = drive_c / "Program Files" / "MetaTrader 5"
    (installed / "Config").mkdir(parents=True)
    (installed / "Config" / "servers.dat").write_text("servers")
    shutil.copy(drive_c / "windows" / "system32" / "notepad.exe", installed / "terminal64.exe")
    subprocess.Popen([REAL, str(installed / "terminal64.exe")])


if arguments[0].endswith("mt5setup.exe"):
    setup()
elif arguments[0] in {"--version", "wineboot", "reg", "start"} or "terminal64" in arguments[0]:
    os.execv(REAL, ["wine", *arguments])  # noqa: S606 - as `exec` in a script
else:
    os.execv(STANDIN, ["/usr/bin/wine", *arguments])  # noqa: S606 - likewise
