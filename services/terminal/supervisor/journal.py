"""MetaTrader's own journal, followed into the log of its terminal.

A terminal prints nothing; it writes a file a day, `logs/YYYYMMDD.log`, in UTF-16 with tabs: two
letters, a level, the local time, who speaks, what is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from terminal.supervisor.events import tell

if TYPE_CHECKING:
    from pathlib import Path

    from terminal.supervisor.logs import BoundedLog

# Days that are kept on the volume: what was said has been copied.
_DAYS_KEPT = 7
# Of one look; the rest comes with the next.
_MOST_BYTES = 1 << 17
_LEVELS = {"0": "INFO", "1": "WARNING", "2": "ERROR"}
_COLUMNS = 5
_LINE_END = "\n".encode("utf-16-le")


class Journal:
    """The journal of one terminal.

    Args:
        directory: Where the terminal writes it.
        log: Where it goes.
    """

    def __init__(self, directory: Path, log: BoundedLog) -> None:
        self._directory = directory
        self._log = log
        self._file: Path | None = None
        self._read = 0
        self._failing = False

    def skip(self) -> None:
        """Begin behind what is there: it was copied by whoever ran before."""
        files = self._files()
        if files:
            self._file, self._read = files[-1], files[-1].stat().st_size // 2 * 2

    def follow(self) -> None:
        """Copy what has been written since, and remove what is old; what fails is told once."""
        try:
            self._follow()
        except OSError as error:
            if not self._failing:
                tell("journal_lost", "warning", path=str(self._directory), error=str(error))
            self._failing = True
        else:
            self._failing = False

    def _follow(self) -> None:
        files = self._files()
        if not files:
            return
        if self._file is None or self._file not in files:
            self._file, self._read = files[-1], 0
        self._copy(self._file)
        if self._file != files[-1]:
            self._file, self._read = files[-1], 0
        for old in files[:-_DAYS_KEPT]:
            old.unlink()

    def _files(self) -> list[Path]:
        found = self._directory.glob("*.log") if self._directory.is_dir() else ()
        return sorted(path for path in found if path.stem.isdigit())

    def _copy(self, path: Path) -> None:
        with path.open("rb") as file:
            file.seek(self._read)
            piece = file.read(_MOST_BYTES)
        # Up to the last whole line; the terminal may be in the middle of one.
        end = piece.rfind(_LINE_END)
        while end > 0 and end % 2:
            # Half of one character and half of the next.
            end = piece.rfind(_LINE_END, 0, end + 1)
        whole = end + len(_LINE_END) if end >= 0 else 0
        if not whole and len(piece) == _MOST_BYTES:
            whole = len(piece)
        self._read += whole
        text = piece[:whole].decode("utf-16-le", "replace")
        for line in text.lstrip("\ufeff").splitlines():
            columns = line.split("\t", _COLUMNS - 1)
            if len(columns) == _COLUMNS:
                self._log.append(f"{columns[3]}: {columns[4]}", _LEVELS.get(columns[1], "INFO"))
            elif line.strip():
                self._log.append(line)
