"""Which times can be restored, and from what."""

import datetime as dt
from dataclasses import dataclass
from typing import Protocol

from backup.barman import FullBackup
from backup.gaps import Gaps
from backup.timelines import HistoryMissing, Period, Timelines
from backup.wal import End


class NotPossible(Exception):
    """A time cannot be restored; says which can."""


class Log(Protocol):
    """The write-ahead log that was received."""

    def last_end(self, timeline: int, /) -> End | None:
        """The last end of a transaction on a timeline; None if none was received."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a time is restored.

    Args:
        to: The time.
        backup: The full backup to begin with.
        timeline: Whose log is followed.
        last: Where in the log its last transaction ended, if the time is that of its end: no later
            one would tell the server that it has arrived.
    """

    to: dt.datetime
    backup: FullBackup
    timeline: int
    last: str | None


class Points:
    """What a catalogue of backups, and the log between them, can give back.

    Args:
        backups: Complete ones, oldest first.
        timelines: Which there were at what time.
        log: What was received.
        gaps: Where it has holes.
    """

    def __init__(
        self, backups: list[FullBackup], timelines: Timelines, log: Log, gaps: Gaps
    ) -> None:
        self.backups = backups
        self._gaps = gaps
        self._timelines = timelines
        self._log = log

    @property
    def earliest(self) -> dt.datetime | None:
        """The end of the oldest full backup."""
        return self.backups[0].ended if self.backups else None

    @property
    def latest(self) -> dt.datetime | None:
        """When the last transaction ended that was received of the cluster as it is now."""
        if not self.backups:
            return None
        end = self._log.last_end(self._period(dt.datetime.max.replace(tzinfo=dt.UTC)).timeline)
        return None if end is None else end.at

    def plan(self, to: dt.datetime, now: dt.datetime) -> Plan:
        """How to come to the state that the database had at a time.

        Raises:
            NotPossible: There is no way.
        """
        if to > now:
            raise NotPossible(f"{shown(to)} is in the future. {self._range()}")
        timeline = self._period(to).timeline
        backup = self._base(to, timeline)
        end = self._log.last_end(timeline)
        if end is None or to > end.at:
            # What came after that nobody knows, even if the cluster has gone another way since.
            reach = "nothing" if end is None else f"only what was until {shown(end.at)}"
            raise NotPossible(
                f"of the way that the cluster was on at {shown(to)}, {reach} was received."
                f" {self._range()}"
            )
        return Plan(to, backup, timeline, end.lsn if to == end.at else None)

    def table(self) -> str:
        """The full backups, and the times that can be restored."""
        lines = [f"{'full backup':<18}{'ended':<30}{'timeline':>8}{'MB':>10}"]
        for one in self.backups:
            size = f"{one.size / 1e6:.1f}"
            lines.append(f"{one.backup_id:<18}{shown(one.ended):<30}{one.timeline:>8}{size:>10}")
        return "\n".join([*lines, "", f"{self._range()}."])

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
        cut_off = False
        for backup in reversed(self.backups):
            leads_on = backup.end_lsn <= left.get(backup.timeline, -1)
            if backup.ended <= to and (backup.timeline == timeline or leads_on):
                if not self._gaps.between(backup.began, to):
                    return backup
                cut_off = True
        if cut_off:
            raise NotPossible(
                f"the log on the way to {shown(to)} has a hole: the backup was away for too long,"
                f" and there was no full one between. {self._range()}"
            )
        raise NotPossible(f"there is no full backup before {shown(to)}. {self._range()}")

    def _range(self) -> str:
        earliest, latest = self.earliest, self.latest
        if earliest is None:
            return "There is no full backup"
        if latest is None:
            return f"Nothing was received since the last restore; before it, from {shown(earliest)}"
        holes = [f"after {shown(a)} until {shown(b)}" for a, b in self._gaps.all() if b > earliest]
        but = (
            f", but for what lies {' and '.join(holes)}, or before the next full one"
            if holes
            else ""
        )
        return f"Times from {shown(earliest)} to {shown(latest)} can be restored{but}"


def shown(time: dt.datetime) -> str:
    """A time to the microsecond, as it can be given back."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
