"""Which timeline the cluster was on at what time: each restore begins another one."""

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backup.barman import lsn
from backup.files import put

HOME: Final = Path("timelines")
"""Below the directory of all backups."""

_ANCESTOR: Final = re.compile(r"^\s*(\d+)\s+([0-9A-Fa-f]+/[0-9A-Fa-f]+)", re.MULTILINE)


class HistoryMissing(Exception):
    """What a timeline came from is not known; names it."""


@dataclass(frozen=True, slots=True)
class Period:
    """A time during which the cluster was on one timeline.

    Args:
        timeline: Its number.
        since: When the cluster came to be on it.
        until: When it left it; None if it is there still.
    """

    timeline: int
    since: dt.datetime
    until: dt.datetime | None


class Timelines:
    """A record of timelines as they came, and of what each came from.

    Args:
        directory: Of all backups.
        received: A timeline's history as the server sent it, or None.
    """

    def __init__(self, directory: Path, received: Callable[[int], str | None]) -> None:
        self._directory = directory / HOME
        self._log = self._directory / "log"
        self._received = received

    def periods(self) -> list[Period]:
        """All that are known, oldest first."""
        try:
            lines = self._log.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        begun = [line.split() for line in lines]
        since = [(int(timeline), dt.datetime.fromisoformat(at)) for at, timeline in begun]
        ends = [*(at for _, at in since[1:]), None]
        return [Period(one, at, end) for (one, at), end in zip(since, ends, strict=True)]

    def note(self, timeline: int, at: dt.datetime, history: str | None = None) -> bool:
        """Write down which timeline the cluster is on; whether it was on another before.

        Args:
            timeline: Its number.
            at: Since when, or when it was seen.
            history: What it came from, if the server has not sent that yet.
        """
        if history is not None:
            put(self._directory / f"{timeline:08X}.history", history)
        known = self.periods()
        if known and known[-1].timeline == timeline:
            return False
        lines = [f"{one.since.isoformat()} {one.timeline}\n" for one in known]
        put(self._log, "".join([*lines, f"{at.isoformat()} {timeline}\n"]))
        return bool(known)

    def at(self, time: dt.datetime) -> Period | None:
        """Where the cluster was at a time, or, before all that is known, at the beginning."""
        periods = self.periods()
        earlier = [period for period in periods if period.since <= time]
        return earlier[-1] if earlier else next(iter(periods), None)

    def ancestors(self, timeline: int) -> dict[int, int]:
        """Where in the log (LSN) a timeline's line of descent left each timeline before it.

        Raises:
            HistoryMissing: It is not known.
        """
        if timeline == 1:
            return {}
        text = self._received(timeline) or self._kept(timeline)
        if text is None:
            raise HistoryMissing(f"the history of timeline {timeline} is missing")
        return {int(parent): lsn(left) for parent, left in _ANCESTOR.findall(text)}

    def _kept(self, timeline: int) -> str | None:
        try:
            return (self._directory / f"{timeline:08X}.history").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
