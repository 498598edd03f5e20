"""Output of a terminal's parts, kept in two files of bounded size."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

from terminal.supervisor.events import iso, tell

if TYPE_CHECKING:
    from pathlib import Path

MOST_LINES = 1000
"""The most lines that can be asked for."""
FILE_BYTES = 1_000_000
"""A file that is larger gives way to a new one; the one before it is kept."""
LINE_CHARACTERS = 2000
"""The rest of a longer line is cut off."""


class BoundedLog:
    """Lines with their instants, for one terminal or for the first boot.

    Args:
        path: Of the newer file; the older one has `.1` behind its name.
        file_bytes: What a file may hold.
    """

    def __init__(self, path: Path, file_bytes: int = FILE_BYTES) -> None:
        self._path = path
        self._older = path.with_name(path.name + ".1")
        self._file_bytes = file_bytes
        self._lock = threading.Lock()
        self._failing = False
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, message: str, level: str = "INFO", moment_s: float | None = None) -> None:
        """Keep a line, stamped with `moment_s` (epoch seconds; None: now).

        A full disk loses lines and is told once: whoever prints them must not stop for it.
        """
        line = {
            "timestamp": iso(time.time() if moment_s is None else moment_s),
            "level": level,
            "message": message[:LINE_CHARACTERS],
        }
        text = json.dumps(line) + "\n"
        with self._lock:
            try:
                self._write(text)
            except OSError as error:
                if not self._failing:
                    tell("log_lost", "error", path=str(self._path), error=str(error))
                self._failing = True
            else:
                self._failing = False

    def last(self, count: int) -> list[dict[str, str]]:
        """The newest lines, oldest first: `[{timestamp, level, message}]`."""
        with self._lock:
            kept = [
                line
                for path in (self._older, self._path)
                if path.exists()
                for line in path.read_text(encoding="ascii").splitlines()
            ]
        return [parsed for line in kept[-count:] if (parsed := _parsed(line))]

    def _write(self, text: str) -> None:
        if self._path.exists() and self._path.stat().st_size + len(text) > self._file_bytes:
            self._path.replace(self._older)
        with self._path.open("a", encoding="ascii") as file:
            file.write(text)


def _parsed(line: str) -> dict[str, str] | None:
    """A line as it was written; None for what a full disk or a kill has cut off."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
