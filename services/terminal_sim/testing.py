"""Doubles and a process fixture for tests of the simulator and of what talks to it."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

# A cold start imports numpy and a web framework; a busy machine may take far longer than usual.
_START_S = 60.0
_STOP_S = 15.0


class ManualClock:
    """A clock that moves when told to.

    Args:
        now_ms: UTC epoch milliseconds.
    """

    def __init__(self, now_ms: int) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        """Return the instant last set."""
        return self.at_ms


class MemoryBoard:
    """A board that remembers every post.

    Attributes:
        untils: What was posted by ``login_until``.
        logins: What was posted by ``logged_in``.
    """

    def __init__(self) -> None:
        self.untils: list[int] = []
        self.logins: list[int] = []

    def login_until(self, until_ms: int) -> None:
        """Remember until when a login may take."""
        self.untils.append(until_ms)

    def logged_in(self, login: int) -> None:
        """Remember which account is logged in."""
        self.logins.append(login)


class Address(msgspec.Struct, frozen=True):
    """Where a terminal listens."""

    n: int
    host: str
    port: int


class Ready(msgspec.Struct, frozen=True):
    """A ready file: what is listening where."""

    control_url: str
    pid: int
    terminals: tuple[Address, ...]


@contextmanager
def running(*arguments: str) -> Iterator[Ready]:
    """Run a simulator of its own on free ports while the block lasts.

    Args:
        arguments: For ``serve``; ports and the ready file are added.

    Raises:
        RuntimeError: It ended or did not become ready.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        ports = ("--port-base", "0", "--control-port", "0", "--ready-file", str(ready))
        command = (sys.executable, "-m", "terminal_sim", "serve", *ports, *arguments)
        with (Path(folder) / "log").open("w+b") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own program
            try:
                _await(ready, process, log.name)
                yield msgspec.json.decode(ready.read_bytes(), type=Ready)
            finally:
                _end(process)


def _await(ready: Path, process: "subprocess.Popen[bytes]", log: str) -> None:
    deadline = time.monotonic() + _START_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(Path(log).read_text(encoding="utf-8", errors="replace"))
        time.sleep(0.01)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
