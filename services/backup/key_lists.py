"""Lists of the vault's keys that rows were under, so that a restore can ask for them; ids only."""

import datetime as dt
import json
from pathlib import Path
from typing import Final

from backup.files import dated, name_of, prune, put

HOME: Final = Path("keys")
"""Below the directory of all backups."""

HOURLY: Final = dt.timedelta(hours=1)
_SUFFIX: Final = ".json"


class RingUnusable(Exception):
    """The key ring is not there, is none, or lacks a key; names ids, never keys."""


class KeyLists:
    """A list for each change and each hour.

    Args:
        directory: Of all backups.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / HOME

    def note(self, ids: list[str], at: dt.datetime) -> None:
        """Write down which keys rows are under, if that has changed or an hour has gone by."""
        last = self._last(at)
        if last is None or last[1] != ids or at - last[0] >= HOURLY:
            self.record(ids, at)

    def record(self, ids: list[str], at: dt.datetime) -> None:
        """Write down which keys rows are under."""
        text = json.dumps({"at": at.isoformat(), "key_ids": ids}, indent=2) + "\n"
        put(self._directory / f"{name_of(at)}{_SUFFIX}", text)

    def prune(self, older_than: dt.datetime) -> None:
        """Remove old lists."""
        prune(self._directory, _SUFFIX, older_than)

    def at(self, time: dt.datetime) -> list[str] | None:
        """The keys that rows were under at a time; None before the first list."""
        last = self._last(time)
        return None if last is None else last[1]

    def _last(self, time: dt.datetime) -> tuple[dt.datetime, list[str]] | None:
        earlier = [one for one in dated(self._directory, _SUFFIX) if one[0] <= time]
        if not earlier:
            return None
        at, path = earlier[-1]
        return at, json.loads(path.read_text(encoding="utf-8"))["key_ids"]


def ring_ids(path: Path) -> set[str]:
    """The ids of a key ring's keys.

    Raises:
        RingUnusable: There is no such file, or it is no key ring.
    """
    try:
        ids = set(json.loads(path.read_bytes())["keys"])
    except OSError as error:
        raise RingUnusable(f"the key ring {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        # Not what the parser says: it may show a key.
        raise RingUnusable(f"{path} is not a key ring") from None
    return ids


def check_ring(ring: set[str], needed: list[str], of: str) -> None:
    """See that a ring has all keys that are needed.

    Raises:
        RingUnusable: It lacks one.
    """
    if missing := sorted(set(needed) - ring):
        raise RingUnusable(
            f"the key ring lacks {', '.join(missing)}, which passwords {of} are under: without"
            " it they are lost. Give a ring that has it"
        )
