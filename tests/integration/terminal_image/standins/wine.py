"""Stands in for `wine` and `wineserver`: what the supervisor runs, done as far as it shows.

Installed as a script of each name. A Windows path on Z is a path of this machine, one on C lies in
the prefix. What runs, and with which environment, is written down beside it (`$STAGE/ran`).
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

STAGE = Path(__file__).resolve().parent.parent
PREFIX = Path(os.environ["WINEPREFIX"])
DRIVE_C = PREFIX / "drive_c"
INSTALLED = DRIVE_C / "Program Files" / "MetaTrader 5"


def unix(path: str) -> Path:
    drive, _, rest = path.partition(":\\")
    root = {"Z": Path("/"), "C": DRIVE_C}[drive]
    return root / rest.replace("\\", "/")


def planned(name: str) -> str | None:
    """What a test has planned for a program, such as `hang` or `fail`."""
    path = STAGE / "plans" / name
    return path.read_text() if path.exists() else None


def end_with_parent() -> None:
    # So that nothing outlives a supervisor that a test has killed.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def note(arguments: list[str]) -> None:
    if not os.access(STAGE, os.W_OK):
        return
    with (STAGE / "ran").open("a") as file:
        file.write(json.dumps({"argv": arguments, "environment": dict(os.environ)}) + "\n")


def wineboot() -> None:
    (DRIVE_C / "windows").mkdir(parents=True)


def msiexec(package: str) -> None:
    assert unix(package).read_text() == "mono"
    (DRIVE_C / "windows" / "mono").mkdir()


def python_installer(options: list[str]) -> None:
    target = next(option for option in options if option.startswith("TargetDir="))
    executable = unix(target.partition("=")[2]) / "python.exe"
    executable.parent.mkdir()
    executable.touch()


def setup() -> None:
    (INSTALLED / "Config").mkdir(parents=True)
    (INSTALLED / "Config" / "servers.dat").write_text("servers")
    (INSTALLED / "terminal64.exe").touch()


def python(arguments: list[str]) -> None:
    assert (DRIVE_C / "Python39" / "python.exe").exists()
    if "pip" in arguments or arguments[0].endswith("check_packages.py"):
        return
    # Only where the paths are is another on this machine; what they say to the server stays.
    at = next(i for i, each in enumerate(arguments) if each.endswith("serve.py"))
    rest = arguments[at + 1 :]
    rest[rest.index("--board") + 1] = str(unix(rest[rest.index("--board") + 1]))
    os.environ["PYTHONPATH"] = str(STAGE / "module")
    # The arguments of before remain visible, as those of a program in Wine do.
    os.execv(  # noqa: S606 - as `exec` in a script
        sys.executable, [sys.executable, "-c", RUN, str(unix(arguments[at])), *rest, *arguments]
    )


RUN = """
import runpy, sys
given = sys.argv[1:]
end = given.index("-u")
sys.argv = given[:end]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def terminal(executable: str) -> None:
    """Run until killed; whose directory it is, its file of processes says."""
    print(f"{executable} runs", flush=True)  # noqa: T201 - its output

    def asked(_number: int, _frame: object) -> None:
        print(f"{executable} was asked to end", flush=True)  # noqa: T201 - its output
        sys.exit(0)

    signal.signal(signal.SIGTERM, asked)
    if planned("terminal") == "ignore-sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def run(arguments: list[str]) -> None:
    program = arguments[0]
    plan = planned(program.rpartition("\\")[2])
    if plan == "hang":
        time.sleep(600)
    if plan == "fail":
        print(f"{program} fails", flush=True)  # noqa: T201 - its output
        return
    if program == "wineboot":
        wineboot()
    elif program == "msiexec":
        msiexec(arguments[2])
    elif program == "reg":
        pass
    elif program.endswith("mt5setup.exe"):
        assert unix(program).read_text() == "mt5setup"
        setup()
    elif program.endswith("terminal64.exe"):
        terminal(program)
    elif program.startswith("Z:") and program.endswith("python.exe"):
        python_installer(arguments)
    elif program.endswith("python.exe"):
        python(arguments[1:])
    else:
        raise ValueError(program)


if sys.argv[1:] == ["--version"]:
    print("wine-10.0")  # noqa: T201 - its output
elif sys.argv[1:] == ["-f", "-p"]:
    end_with_parent()
    while True:
        time.sleep(60)
elif Path(sys.argv[0]).name == "wine":
    note(sys.argv)
    end_with_parent()
    run(sys.argv[1:])
