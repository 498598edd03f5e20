"""Snapshots of Redis: asked for as a replica would, checked, and kept by their time."""

import datetime as dt
import logging
import shutil
from pathlib import Path
from typing import Final

from backup.commands import CommandFailed, Commands
from backup.files import dated, finish, name_of, now, prune, put, sync

log = logging.getLogger(__name__)

HOME: Final = Path("redis")
"""Below the directory of all backups."""

USER: Final = "mt5_backup"
PATIENCE_S: Final = 600.0
"""3 GB through a network that does other work, too."""

_SUFFIX: Final = ".rdb"
_BASE: Final = "appendonly.aof.1.base.rdb"


class Snapshots:
    """Of one Redis.

    Args:
        commands: Runs its programs.
        directory: Of all backups.
    """

    def __init__(self, commands: Commands, directory: Path) -> None:
        self._commands = commands
        self._directory = directory / HOME

    def take(self, at: dt.datetime, place: str, password: str) -> Path:
        """Make one; it has its name only when all of it is there and in order.

        Args:
            at: The time that it bears.
            place: Where Redis is.
            password: Of the user that may copy it.

        Raises:
            CommandFailed: Redis did not give it, or it is broken.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        for left in self._directory.glob(".*.unfinished"):
            left.unlink()
        path = self._directory / f"{name_of(at)}{_SUFFIX}"
        unfinished = path.with_name(f".{path.name}.unfinished")
        self._commands(
            *("redis-cli", "-h", place, "--user", USER, "--rdb", str(unfinished)),
            timeout_s=PATIENCE_S,
            env={"REDISCLI_AUTH": password},
        )
        self._commands("redis-check-rdb", str(unfinished), timeout_s=PATIENCE_S)
        finish(unfinished, path)
        return path

    def prune(self, older_than: dt.datetime) -> None:
        """Remove old ones."""
        prune(self._directory, _SUFFIX, older_than)

    def newest(self, until: dt.datetime | None = None) -> tuple[dt.datetime, Path] | None:
        """The last one, of all or of those that are not later than a time."""
        found = [one for one in self.all() if until is None or one[0] <= until]
        return found[-1] if found else None

    def restore(self, until: dt.datetime, data: Path) -> Path:
        """Have a Redis that is not running begin with the last snapshot until a time.

        Args:
            until: The time.
            data: Its directory.

        Returns:
            Where what was in there before has gone.

        Raises:
            CommandFailed: There is no such snapshot, or Redis answers.
        """
        found = self.newest(until)
        if found is None:
            raise CommandFailed(f"there is no snapshot of Redis before {until.isoformat()}")
        if self._answers():
            raise CommandFailed("Redis is running: stop it first")
        at, path = found
        before = data / f"before-{name_of(now())}"
        before.mkdir()
        for old in data.iterdir():
            if not old.name.startswith("before-"):
                old.rename(before / old.name)
        # It begins with its append-only file, never with a snapshot beside it.
        log.info("with the snapshot of %s", at.isoformat())
        begun = data / "appendonlydir"
        begun.mkdir()
        shutil.copyfile(path, begun / _BASE)
        sync(begun / _BASE)
        put(begun / "appendonly.aof.manifest", f"file {_BASE} seq 1 type b\n")
        return before

    def _answers(self) -> bool:
        try:
            return bool(self._commands("redis-cli", "-h", "redis", "ping", timeout_s=10))
        except CommandFailed:
            return False

    def all(self) -> list[tuple[dt.datetime, Path]]:
        """All of them, oldest first."""
        return dated(self._directory, _SUFFIX)
