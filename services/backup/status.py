"""How the backups stand: written by the scheduler, judged by the health check."""

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from backup.files import put
from backup.settings import Settings

FULL_S: Final = 26 * 3600.0
"""A day, and what one may take."""

SNAPSHOT_LATE: Final = 4 / 3
"""Of the time between two: 20 min of 15."""

LOOKS: Final = 5.0
"""So many looks without a word, and the scheduler has died."""

COPIES: Final = 4.0
"""So many copies that failed, or one that takes as long, are worth a look."""


@dataclass(frozen=True, slots=True)
class Status:
    """What there was at a look; None is never.

    Args:
        looked: When that was.
        receiving: Whether the log was being received.
        full: End of the newest full backup.
        snapshot: Time of the newest snapshot of Redis.
        copied: When the second place was last brought up to date.
    """

    looked: dt.datetime
    receiving: bool
    full: dt.datetime | None
    snapshot: dt.datetime | None
    copied: dt.datetime | None

    def write(self, path: Path) -> None:
        """Put it where the health check finds it."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        put(path, json.dumps(fields, default=dt.datetime.isoformat))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What was written last; None before that."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        times = {
            name: None if fields[name] is None else dt.datetime.fromisoformat(fields[name])
            for name in ("full", "snapshot", "copied")
        }
        return cls(dt.datetime.fromisoformat(fields["looked"]), fields["receiving"], **times)


def looks(status: Status | None, now: dt.datetime, settings: Settings) -> bool:
    """Whether the scheduler lives; nothing else that fails would be mended by another start."""
    return status is not None and not _older(status.looked, now, LOOKS * max(settings.look_s, 10.0))


def faults(status: Status | None, now: dt.datetime, settings: Settings) -> list[str]:
    """What is not as it should be, a line each; none if all is well."""
    if status is None or not looks(status, now, settings):
        return ["the scheduler does not look after the backups"]
    found = []
    if not status.receiving:
        found.append("the write-ahead log of Postgres is not being received")
    if _older(status.full, now, FULL_S):
        found.append(f"no full backup of Postgres within 26 h: {_last(status.full)}")
    if _older(status.snapshot, now, settings.snapshot_s * SNAPSHOT_LATE):
        minutes = settings.snapshot_s * SNAPSHOT_LATE / 60
        found.append(f"no snapshot of Redis within {minutes:g} min: {_last(status.snapshot)}")
    if settings.remote is not None and _older(status.copied, now, settings.copy_s * COPIES):
        found.append(f"{settings.remote.url} is not up to date: {_last(status.copied)}")
    return found


def _older(at: dt.datetime | None, now: dt.datetime, seconds: float) -> bool:
    return at is None or (now - at).total_seconds() > seconds


def _last(at: dt.datetime | None) -> str:
    return "there was none" if at is None else f"the last was {at.isoformat(timespec='seconds')}"
