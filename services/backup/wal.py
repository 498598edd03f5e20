"""The write-ahead log that was received: which segments there are, and of which times."""

import datetime as dt
import gzip
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

from backup.barman import STREAMING, WALS

MOST_SEGMENTS: Final = 64
"""1 GB of log without a commit: there is none, then, that would tell a time."""

SEGMENT_NAME: Final = 24
"""Timeline, and twice eight hexadecimal digits of the position; what is incomplete has a suffix."""

_SEGMENT: Final = re.compile(r"[0-9A-F]{24}(\.partial)?")
_END: Final = re.compile(
    r"lsn: ([0-9A-F]+/[0-9A-F]+), .*desc: (?:COMMIT|ABORT)(?:_PREPARED)? (?:\S+: )?"
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC"
)
_GZIP: Final = b"\x1f\x8b"


class End(NamedTuple):
    """The end of a transaction: when it was, and where in the log (LSN)."""

    at: dt.datetime
    lsn: str


class ReceivedLog:
    """Segments in Barman's archive, and those that are not there yet.

    Args:
        directory: Of all backups.
        environment: For the programs of PostgreSQL; times are told in its zone, UTC.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._wals = directory / WALS
        self._streaming = directory / STREAMING
        self._environment = {**environment, "TZ": "UTC"}

    def last_end(self, timeline: int) -> End | None:
        """The last end of a transaction on a timeline, as far as its log was received."""
        for _, path in zip(range(MOST_SEGMENTS), self._newest_first(timeline), strict=False):
            if ends := self._ends(path):
                return ends[-1]
        return None

    def history(self, timeline: int) -> str | None:
        """What PostgreSQL wrote down of a timeline's ancestors; None if that was not received."""
        name = f"{timeline:08X}.history"
        for directory in (self._wals, self._streaming):
            if (directory / name).exists():
                with _opened(directory / name) as file:
                    return file.read().decode()
        return None

    def _newest_first(self, timeline: int) -> Iterator[Path]:
        """Segments; of one that is there whole and in part, the whole one first."""
        found = [*self._streaming.glob("*"), *self._wals.glob(f"{timeline:08X}*/*")]
        ours = [
            path
            for path in found
            if _SEGMENT.fullmatch(path.name) and path.name.startswith(f"{timeline:08X}")
        ]
        # Whole ones first: a name that goes on with ".partial" is the greater one.
        ours.sort(key=lambda path: path.name)
        ours.sort(key=lambda path: path.name[:SEGMENT_NAME], reverse=True)
        yield from ours

    def _ends(self, path: Path) -> list[End]:
        if path.stat().st_size == 0:
            return []
        with tempfile.TemporaryDirectory() as directory:
            # The program wants it plain, and known by its name.
            plain = Path(directory) / path.name[:SEGMENT_NAME]
            with _opened(path) as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target)
            # At the end of what was written it fails; nothing else can be wrong with these options.
            done = subprocess.run(  # noqa: S603 - ours
                ["pg_waldump", "--rmgr=Transaction", str(plain)],  # noqa: S607 - in the image
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=self._environment,
                check=False,
            )
        return [
            End(dt.datetime.fromisoformat(at).replace(tzinfo=dt.UTC), lsn)
            for lsn, at in _END.findall(done.stdout.decode(errors="replace"))
        ]


def _opened(path: Path) -> BinaryIO:
    """A file as it was before it was archived."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    return cast("BinaryIO", gzip.open(path)) if packed else path.open("rb")
