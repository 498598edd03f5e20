"""Processes as Linux shows them: which run what, and what they take."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROC = Path("/proc")


def running(words: Iterable[str], variable: str) -> list[int]:
    """Ids of the processes with all of `words` among their arguments.

    Args:
        words: Ends of arguments, in any case and with either slash: Wine shows a program by the
            Windows path it was started with, or by the Unix path.
        variable: `NAME=value` that they have in their environment, such as their Wine prefix.
    """
    wanted = [_plain(word) for word in words]
    found = []
    for pid, arguments in _all():
        plain = [_plain(argument) for argument in arguments]
        if all(any(argument.endswith(word) for argument in plain) for word in wanted):
            with suppress(OSError):
                environment = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
                if variable.encode() in environment:
                    found.append(pid)
    return found


def birth(pid: int) -> str | None:
    """When a process began, in the kernel's own counting; None: it has ended.

    An id and a birth together name a process for ever.
    """
    try:
        # The name before the last parenthesis may hold anything.
        fields = (PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, *others = fields.rpartition(")")[2].split()
    return None if state in "ZX" else others[18]


def send(pid: int, number: int) -> None:
    """Signal a process, unless it has ended meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def memory_bytes(pids: Iterable[int]) -> int | None:
    """Proportional share of processes together (PSS); None where it cannot be read."""
    shares = [share for pid in pids if (share := _pss(pid)) is not None]
    return sum(shares) if shares else None


class Adopted:
    """A process that somebody else started, watched as if it were a child.

    Args:
        pid: Its id.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._birth = birth(pid)

    def poll(self) -> int | None:
        """None while it runs; how it ended is nobody's to know."""
        alive = self._birth is not None and birth(self.pid) == self._birth
        return None if alive else 0

    def terminate(self) -> None:
        """Ask it to end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            send(self.pid, number)


def _all() -> Iterator[tuple[int, list[str]]]:
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if birth(int(entry.name)) is None:
                continue
            line = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            yield int(entry.name), line.split("\0")


def _plain(argument: str) -> str:
    return argument.strip('"').replace("/", "\\").lower()


def _pss(pid: int) -> int | None:
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    lines = (line.split() for line in text.splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == "Pss:"), None)
