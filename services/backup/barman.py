"""Barman: full backups of the cluster and its write-ahead log, received as it is written."""

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from backup.commands import Commands

SERVER: Final = "pg"
SLOT: Final = "barman"
HOME: Final = Path("postgres")
"""Below the directory of all backups."""

STREAMING: Final = HOME / SERVER / "streaming"
WALS: Final = HOME / SERVER / "wals"

_COMPLETE: Final = frozenset({"DONE", "WAITING_FOR_WALS"})


@dataclass(frozen=True, slots=True)
class FullBackup:
    """A full backup that is complete.

    Args:
        backup_id: Barman's name for it.
        began: When it began.
        ended: When it ended; times before that are for the one before it.
        timeline: Of the cluster then.
        end_lsn: Position in the log at its end.
        size: Bytes on the disk.
    """

    backup_id: str
    began: dt.datetime
    ended: dt.datetime
    timeline: int
    end_lsn: int
    size: int


class Span(NamedTuple):
    """When a full backup was made."""

    began: dt.datetime
    ended: dt.datetime


class Barman:
    """Barman's commands for our one server.

    Args:
        commands: Runs them.
        configuration: Barman's file.
    """

    def __init__(self, commands: Commands, configuration: str = "/etc/barman.conf") -> None:
        self._commands = commands
        self._configuration = configuration

    def cron(self) -> None:
        """Archive what was received, see to the receiving, and remove what is too old.

        Raises:
            CommandFailed: Barman failed.
        """
        self._run("cron", timeout_s=300)

    def archive(self) -> None:
        """Archive what was received.

        Raises:
            CommandFailed: Barman failed.
        """
        self._run("archive-wal", SERVER, timeout_s=300)

    def stop_receiving(self) -> None:
        """End the receiving in good order.

        Raises:
            CommandFailed: Nothing was being received.
        """
        self._run("receive-wal", "--stop", SERVER)

    def switch_segment(self) -> None:
        """Have the server end the segment it writes, and archive that.

        Raises:
            CommandFailed: It did not arrive.
        """
        self._run("switch-wal", "--archive", "--archive-timeout=60", SERVER, timeout_s=120)

    def back_up(self) -> None:
        """Make a full backup, and remove what is left of those that failed.

        Raises:
            CommandFailed: Barman failed.
        """
        for one in self._listed():
            if one["status"] not in _COMPLETE:
                self._run("delete", SERVER, one["backup_id"], timeout_s=300)
        self._run("backup", "--wait", SERVER, timeout_s=None)

    def restore(self, backup: FullBackup, target: Path, *options: str) -> None:
        """Copy a full backup to a new directory, with what a recovery from it needs to know.

        Raises:
            CommandFailed: Barman failed.
        """
        self._run(
            *("restore", "--get-wal", *options, SERVER, backup.backup_id, str(target)),
            timeout_s=None,
        )

    def newest(self) -> Span | None:
        """When the last one that is complete was made, to the second.

        Raises:
            CommandFailed: Barman failed.
        """
        complete = [one for one in self._listed() if one["status"] in _COMPLETE]
        if not complete:
            return None
        last = max(complete, key=lambda one: one["backup_id"])
        # Barman names them by their beginning.
        began = dt.datetime.strptime(last["backup_id"], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
        return Span(began, dt.datetime.fromtimestamp(int(last["end_time_timestamp"]), dt.UTC))

    def backups(self) -> list[FullBackup]:
        """The complete ones, oldest first.

        Raises:
            CommandFailed: Barman failed.
        """
        complete = [one for one in self._listed() if one["status"] in _COMPLETE]
        found = [self._shown(one["backup_id"]) for one in complete]
        return sorted(found, key=lambda one: one.ended)

    def _listed(self) -> list[dict[str, str]]:
        listed: dict[str, list[dict[str, str]]] = json.loads(
            self._run("-f", "json", "list-backups", SERVER)
        )
        return listed[SERVER]

    def _shown(self, backup_id: str) -> FullBackup:
        shown = json.loads(self._run("-f", "json", "show-backup", SERVER, backup_id))[SERVER]
        base: dict[str, Any] = shown["base_backup_information"]
        return FullBackup(
            backup_id=backup_id,
            began=dt.datetime.fromisoformat(base["begin_time"]),
            ended=dt.datetime.fromisoformat(base["end_time"]),
            timeline=int(base["timeline"]),
            end_lsn=lsn(base["end_lsn"]),
            size=int(base["backup_size_bytes"]),
        )

    def _run(self, *command: str, timeout_s: float | None = 60) -> str:
        return self._commands(
            "barman", "--config", self._configuration, *command, timeout_s=timeout_s
        )


def lsn(text: str) -> int:
    """A position in the log, `16/B374D848`, as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)
