"""Which times can be restored, and from what."""

import datetime as dt
from dataclasses import dataclass
from typing import Protocol

from backup.barman import FullBackup
from backup.timelines import HistoryMissing, Period, Timelines


class NotPossible(Exception):
    """A time cannot be restored; says which can."""


class Log(Protocol):
    """The write-ahead log that was received."""

    def last_commit(self, timeline: int, /) -> dt.datetime | None:
        """When the last transaction of a timeline ended; None if there is none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a time is restored.

    Args:
        to: The time.
        backup: The full backup to begin with.
        timeline: Whose log is followed.
        whole: To the end of it: nothing was committed between that and the time.
    """

    to: dt.datetime
    backup: FullBackup
    timeline: int
    whole: bool


class Points:
    """What a catalogue of backups, and the log between them, can give back.

    Args:
        backups: Complete ones, oldest first.
        timelines: Which there were at what time.
        log: What was received.
    """

    def __init__(self, backups: list[FullBackup], timelines: Timelines, log: Log) -> None:
        self.backups = backups
        self._timelines = timelines
        self._log = log

    @property
    def earliest(self) -> dt.datetime | None:
        """The end of the oldest full backup."""
        return self.backups[0].ended if self.backups else None

    @property
    def latest(self) -> dt.datetime | None:
        """The last commit that was received, or when the cluster was last seen to begin anew."""
        if not self.backups:
            return None
        period = self._period(dt.datetime.max.replace(tzinfo=dt.UTC))
        return max(filter(None, (self._log.last_commit(period.timeline), period.since)))

    def plan(self, to: dt.datetime, now: dt.datetime) -> Plan:
        """How to come to the state that the database had at a time.

        Raises:
            NotPossible: There is no way.
        """
        if to > now:
            raise NotPossible(f"{shown(to)} is in the future. {self._range()}")
        period = self._period(to)
        backup = self._base(to, period.timeline)
        last = self._log.last_commit(period.timeline)
        if period.until is None and to > max(filter(None, (last, period.since))):
            raise NotPossible(
                f"the log that was received does not reach {shown(to)}. {self._range()}"
            )
        return Plan(to, backup, period.timeline, whole=last is None or to >= last)

    def _period(self, time: dt.datetime) -> Period:
        period = self._timelines.at(time)
        if period is not None:
            return period
        if not self.backups:
            raise NotPossible(self._range())
        newest = self.backups[-1]
        return Period(newest.timeline, newest.ended, None)

    def _base(self, to: dt.datetime, timeline: int) -> FullBackup:
        """The newest full backup from which the log of a timeline leads to a time."""
        try:
            left = self._timelines.ancestors(timeline)
        except HistoryMissing as missing:
            raise NotPossible(str(missing)) from None
        for backup in reversed(self.backups):
            on_the_way = backup.timeline == timeline or backup.end_lsn <= left.get(
                backup.timeline, -1
            )
            if on_the_way and backup.ended <= to:
                return backup
        raise NotPossible(f"there is no full backup before {shown(to)}. {self._range()}")

    def _range(self) -> str:
        earliest, latest = self.earliest, self.latest
        if earliest is None or latest is None:
            return "There is no full backup"
        return f"Times from {shown(earliest)} to {shown(latest)} can be restored"

    def table(self) -> str:
        """The full backups, and the times that can be restored."""
        lines = [f"{'full backup':<18}{'ended':<30}{'timeline':>8}{'MB':>10}"]
        for one in self.backups:
            size = f"{one.size / 1e6:.1f}"
            lines.append(f"{one.backup_id:<18}{shown(one.ended):<30}{one.timeline:>8}{size:>10}")
        return "\n".join([*lines, "", self._range() + "."])


def shown(time: dt.datetime) -> str:
    """A time to the microsecond, as it can be given back."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
