"""Stands in for the MetaTrader5 package: which terminal it reaches, and who is in there.

Like the real one, it reaches any terminal that runs when it is given no path, and starts the one of
a path when it does not run. An account is in as long as the terminal's `config` holds it.
"""

import ctypes
import os
import subprocess
import time
from collections import namedtuple
from pathlib import Path
from typing import Any, NamedTuple

PREFIX = Path(os.environ["WINEPREFIX"])
_ACCOUNT: dict[str, Any] = {
    **dict.fromkeys(("trade_allowed", "trade_expert", "fifo_close"), False),
    **dict.fromkeys(("trade_mode", "leverage", "limit_orders", "margin_so_mode", "margin_mode"), 0),
    "currency_digits": 2,
    **dict.fromkeys(("balance", "credit", "profit", "equity", "margin", "margin_free"), 0.0),
    **dict.fromkeys(("margin_level", "margin_so_call", "margin_so_so", "margin_initial"), 0.0),
    **dict.fromkeys(("margin_maintenance", "assets", "liabilities", "commission_blocked"), 0.0),
    **dict.fromkeys(("name", "currency", "company"), ""),
}
_FIELDS = ["login", "server", *_ACCOUNT]
AccountInfo: Any = namedtuple("AccountInfo", _FIELDS)  # type: ignore[misc]  # noqa: PYI024


class TerminalInfo(NamedTuple):
    path: str
    data_path: str
    connected: bool
    trade_allowed: bool


# Real ones are logged in within seconds; none here knows any other account.
PASSWORD, SLOW = "right", "slow"
_state: dict[str, Any] = {"path": None, "error": (1, "Success")}


def _directory(path: str) -> Path:
    return PREFIX / "drive_c" / path.partition(":\\")[2].replace("\\", "/")


def _runs(path: str) -> bool:
    executable = path + "\\terminal64.exe"
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                arguments = (process / "cmdline").read_bytes().decode().split("\0")
                variables = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if executable in arguments and f"WINEPREFIX={PREFIX}".encode() in variables:
                return True
    return False


def _all() -> list[str]:
    made = PREFIX / "drive_c" / "mt5"
    return [f"C:\\mt5\\{each.name}" for each in sorted(made.iterdir()) if each.name.isdigit()]


def _fail(code: int, text: str, answer: object = None) -> Any:
    _state["error"] = (code, text)
    return answer


def initialize(
    path: str | None = None,
    login: int | None = None,
    password: str | None = None,
    server: str | None = None,
    timeout: int = 60000,
    portable: bool = False,
) -> bool:
    if path is None:
        found = [each for each in _all() if _runs(each)]
    else:
        found = [path.rpartition("\\")[0]]
        if not _runs(found[0]):
            subprocess.Popen(["wine", path, *(["/portable"] if portable else [])])  # noqa: S607
            deadline = time.monotonic() + timeout / 1000
            while not _runs(found[0]) and time.monotonic() < deadline:
                time.sleep(0.01)
    if not found:
        return bool(_fail(-10003, "IPC initialize failed", False))
    crossed = PREFIX / "crossed"
    _state["path"] = crossed.read_text() if crossed.exists() else found[0]
    _state["error"] = (1, "Success")
    if login is None:
        return True
    return bool(globals()["login"](login, password, server, timeout))


def login(
    login: int, password: str | None = None, server: str | None = None, timeout: int = 60000
) -> bool:
    if _state["path"] is None:
        return bool(_fail(-10004, "No IPC connection", False))
    if password == SLOW:
        # Holds the interpreter, as the real one does.
        ctypes.PyDLL(None).usleep(timeout * 1000)
        return bool(_fail(-10005, "IPC timeout", False))
    if password != PASSWORD:
        return bool(_fail(-6, "Terminal: Authorization failed", False))
    config = _directory(_state["path"]) / "config"
    (config if config.exists() else config.with_name("Config")).joinpath("accounts.dat").write_text(
        f"{login} {server} {password}"
    )
    _state["error"] = (1, "Success")
    return True


def shutdown() -> bool:
    _state["path"] = None
    return True


def version() -> tuple[int, int, str] | None:
    return (500, 5430, "14 Nov 2025") if _state["path"] else None


def last_error() -> tuple[int, str]:
    error: tuple[int, str] = _state["error"]
    return error


def terminal_info() -> TerminalInfo | None:
    path = _state["path"]
    if path is None or not _runs(path):
        _state["path"] = None
        _fail(-10004, "No IPC connection")
        return None
    _state["error"] = (1, "Success")
    return TerminalInfo(path, path, True, True)


def account_info() -> Any:
    if terminal_info() is None:
        return None
    for name in ("config", "Config"):
        kept = _directory(_state["path"]) / name / "accounts.dat"
        if kept.exists():
            login, server, _ = kept.read_text().split(" ")
            return AccountInfo(*(int(login), server, *_ACCOUNT.values()))
    return _fail(-1, "Terminal: Call failed")


def positions_get() -> tuple[()]:
    return ()


orders_get = positions_get
