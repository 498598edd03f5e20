"""The cluster as it was at a time: made beside the one that is there, then put in its place."""

import datetime as dt
import json
import logging
from pathlib import Path
from typing import Final

from backup.barman import SLOT, Barman
from backup.cluster import Recovery, alone, clear, put_in_place
from backup.commands import Commands
from backup.files import name_of, now
from backup.gaps import Gaps
from backup.key_lists import KeyLists, check_ring, ring_ids
from backup.points import Plan, Points, shown
from backup.scheduler import FULL_WANTED
from backup.server import KEY_IDS
from backup.settings import Settings
from backup.timelines import Timelines
from backup.wal import ReceivedLog

log = logging.getLogger(__name__)

_UNFINISHED: Final = "restoring-"

_OF_RECOVERY: Final = (
    "restore_command",
    "recovery_target_time",
    "recovery_target_lsn",
    "recovery_target_timeline",
    "recovery_target_action",
)
"""What Barman has set for the way there, and must not be there at the next one."""

_OF_BARMAN: Final = (
    ".barman-recover.info",
    "barman_wal",
    "postgresql.conf.origin",
    "postgresql.auto.conf.origin",
    "backup_manifest.*",
)


class Restore:
    """Restores from the directory of all backups.

    Args:
        settings: Where that is, and where the cluster is.

    Raises:
        SettingWrong: A secret cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._commands = Commands(settings)
        self._barman = Barman(self._commands, "/etc/barman-restore.conf")
        received = ReceivedLog(settings.directory, self._commands.environment)
        self._timelines = Timelines(settings.directory, received.history)
        self._received = received
        self._keys = KeyLists(settings.directory)

    def points(self) -> Points:
        """What can be restored.

        Raises:
            CommandFailed: Barman failed.
        """
        gaps = Gaps(self._settings.directory)
        return Points(self._barman.backups(), self._timelines, self._received, gaps)

    def check(self, time: dt.datetime, ring_file: Path) -> None:
        """Say whether a time can be restored, while everything runs.

        Args:
            time: As for `to`.
            ring_file: As for `to`.

        Raises:
            NotPossible: There is no way to that time.
            RingUnusable: The ring lacks a key that passwords of that time are under.
            CommandFailed: Barman failed.
        """
        plan = self._plan(time, ring_ids(ring_file))
        log.info("%s can be restored, from the full backup %s", shown(time), plan.backup.backup_id)

    def _plan(self, time: dt.datetime, ring: set[str]) -> Plan:
        plan = self.points().plan(time, now())
        if (ids := self._keys.at(time)) is not None:
            check_ring(ring, ids, f"of {shown(time)}")
        return plan

    def to(self, time: dt.datetime, ring_file: Path) -> None:
        """Restore a time: what was committed until then, and that moment included.

        Args:
            time: UTC, or with its zone.
            ring_file: The vault's key ring; its keys are not looked at, only their ids.

        Raises:
            NotPossible: There is no way to that time.
            RingUnusable: The ring lacks a key that passwords of that time are under.
            VolumeInUse: Postgres is running.
            RecoveryFailed: PostgreSQL gave up on the way.
            CommandFailed: Another program failed.
        """
        ring = ring_ids(ring_file)
        with alone(self._settings.data):
            plan = self._plan(time, ring)
            home = self._settings.data.parent
            home.mkdir(parents=True, exist_ok=True)
            clear(home, f"{_UNFINISHED}*")
            began = now()
            new = home / f"{_UNFINISHED}{name_of(began)}"
            try:
                timeline = self._recover(plan, new, ring)
            except BaseException:
                clear(home, new.name)
                raise
            history = (new / "pg_wal" / f"{timeline:08X}.history").read_text(encoding="utf-8")
            before = home / f"{self._settings.data.name}.before-{name_of(began)}"
            there = put_in_place(self._commands, new, self._settings.data, before)
            self._timelines.note(timeline, now(), history)
            (self._settings.directory / FULL_WANTED).touch()
        if there:
            log.info("what was there before is in %s; remove it when nobody misses it", before)
        log.info("done: Postgres is as it was at %s, and may be started", shown(time))

    def _recover(self, plan: Plan, new: Path, ring: set[str]) -> int:
        """Bring a new directory to the time; its timeline."""
        log.info("from the full backup %s of %s", plan.backup.backup_id, shown(plan.backup.ended))
        target = f"--target-time={shown(plan.to)}"
        if plan.last is not None:
            target = f"--target-lsn={plan.last}"
        self._barman.restore(
            *(plan.backup, new, f"--target-tli={plan.timeline}", target),
            "--target-action=promote",
        )
        recovery = Recovery(self._commands, new, self._settings.private)
        with recovery.running():
            recovery.ask("CHECKPOINT")
            timeline = int(recovery.ask("SELECT timeline_id FROM pg_control_checkpoint()"))
            ids: list[str] = json.loads(recovery.ask(KEY_IDS))
            check_ring(ring, ids, "in it")
            accounts = recovery.ask("SELECT count(*) FROM accounts")
            log.info("recovered: %s accounts, timeline %d", accounts, timeline)
            for name in _OF_RECOVERY:
                recovery.ask(f"ALTER SYSTEM RESET {name}")
            # From here on it keeps what the backup has not received.
            recovery.ask(f"SELECT pg_create_physical_replication_slot('{SLOT}', true)")
        for pattern in _OF_BARMAN:
            clear(new, pattern)
        return timeline
