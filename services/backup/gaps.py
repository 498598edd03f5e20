"""Where the received log has holes: what PostgreSQL no longer kept when the backup came back."""

import datetime as dt
from pathlib import Path
from typing import Final

from backup.files import put

_FILE: Final = Path("timelines/gaps")


class Gaps:
    """A record of times whose log was not received.

    Args:
        directory: Of all backups.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / _FILE

    def all(self) -> list[tuple[dt.datetime, dt.datetime]]:
        """(last commit before it, when the log was received again), oldest first."""
        try:
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [
            (dt.datetime.fromisoformat(since), dt.datetime.fromisoformat(until))
            for since, until in map(str.split, lines)
        ]

    def note(self, since: dt.datetime, until: dt.datetime) -> None:
        """Write one down."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        known = [*self.all(), (since, until)]
        put(self._file, "".join(f"{a.isoformat()} {b.isoformat()}\n" for a, b in known))

    def between(self, began: dt.datetime, to: dt.datetime) -> bool:
        """Whether the way from a full backup that began then to a time leads over a hole."""
        return any(since < to and began < until for since, until in self.all())
