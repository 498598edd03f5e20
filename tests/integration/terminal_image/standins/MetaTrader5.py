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

PREFIX = Path(os.environ["WINEPREFIX"])
FLAGS = ("trade_allowed", "trade_expert", "fifo_close")
WHOLE = ("trade_mode", "leverage", "limit_orders", "margin_so_mode", "margin_mode")
AMOUNTS = (
    "balance credit profit equity margin margin_free margin_level margin_so_call margin_so_so "
    "margin_initial margin_maintenance assets liabilities commission_blocked"
).split()
TEXTS = ("name", "currency", "company")
_ACCOUNT = {
    **dict.fromkeys(FLAGS, False),
    **dict.fromkeys(WHOLE, 0),
    "currency_digits": 2,
    **dict.fromkeys(AMOUNTS, 0.0),
    **dict.fromkeys(TEXTS, ""),
}
AccountInfo = namedtuple("AccountInfo", ["login", "server", *_ACCOUNT])
TerminalInfo = namedtuple("TerminalInfo", "path data_path connected trade_allowed")
# Real ones are logged in within seconds; none here knows any other account.
PASSWORD, SLOW = "right", "slow"
_state = {"path": None, "error": (1, "Success")}


def _directory(path):
    return PREFIX / "drive_c" / path.partition(":\\")[2].replace("\\", "/")


def _runs(path):
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


def _all():
    made = PREFIX / "drive_c" / "mt5"
    return [f"C:\\mt5\\{each.name}" for each in sorted(made.iterdir()) if each.name.isdigit()]


def _fail(code, text, answer=None):
    _state["error"] = (code, text)
    return answer


def initialize(path=None, login=None, password=None, server=None, timeout=60000, portable=False):
    if path is None:
        found = [each for each in _all() if _runs(each)]
    else:
        found = [path.rpartition("\\")[0]]
        if not _runs(found[0]):
            subprocess.Popen(["wine", path, *(["/portable"] if portable else [])])
            deadline = time.monotonic() + timeout / 1000
            while not _runs(found[0]) and time.monotonic() < deadline:
                time.sleep(0.01)
    if not found:
        return _fail(-10003, "IPC initialize failed", False)
    crossed = PREFIX / "crossed"
    _state["path"] = crossed.read_text() if crossed.exists() else found[0]
    _state["error"] = (1, "Success")
    return True if login is None else globals()["login"](login, password, server, timeout)


def login(login, password=None, server=None, timeout=60000):
    if _state["path"] is None:
        return _fail(-10004, "No IPC connection", False)
    if password == SLOW:
        # Holds the interpreter, as the real one does.
        ctypes.PyDLL(None).usleep(timeout * 1000)
        return _fail(-10005, "IPC timeout", False)
    if password != PASSWORD:
        return _fail(-6, "Terminal: Authorization failed", False)
    config = _directory(_state["path"]) / "config"
    (config if config.exists() else config.with_name("Config")).joinpath("accounts.dat").write_text(
        f"{login} {server} {password}"
    )
    _state["error"] = (1, "Success")
    return True


def shutdown():
    _state["path"] = None
    return True


def version():
    return (500, 5430, "14 Nov 2025") if _state["path"] else None


def last_error():
    return _state["error"]


def terminal_info():
    path = _state["path"]
    if path is None or not _runs(path):
        _state["path"] = None
        return _fail(-10004, "No IPC connection")
    _state["error"] = (1, "Success")
    return TerminalInfo(path, path, True, True)


def account_info():
    if terminal_info() is None:
        return None
    for name in ("config", "Config"):
        kept = _directory(_state["path"]) / name / "accounts.dat"
        if kept.exists():
            login, server, _ = kept.read_text().split(" ")
            return AccountInfo(int(login), server, **_ACCOUNT)
    return _fail(-1, "Terminal: Call failed")


def positions_get():
    return ()


orders_get = positions_get
