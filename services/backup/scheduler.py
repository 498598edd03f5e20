"""What is done by itself: full backups, the log between them, snapshots of Redis, copies."""

import datetime as dt
import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from backup.barman import HOME, Barman, Span
from backup.commands import CommandFailed, Commands
from backup.files import now
from backup.gaps import Gaps
from backup.key_lists import KeyLists
from backup.places import address_of
from backup.receiving import Receiving
from backup.remote import RemoteCopy
from backup.server import Server, ServerState
from backup.settings import Settings
from backup.snapshots import Snapshots
from backup.status import Status
from backup.timelines import Timelines
from backup.wal import ReceivedLog

log = logging.getLogger(__name__)

REDIS_PORT: Final = 6379
STATUS: Final = "status.json"
"""Below the private directory: it ends with the container."""

FULL_WANTED: Final = "full-backup-wanted"
"""Below the directory of all backups: there until a full one was made."""

REST: Final = 10
"""Times as long as a full backup took that failed: the next one reads the whole database again."""

LONGEST_REST: Final = dt.timedelta(minutes=10)


class Scheduler:
    """Does each chore at its time, until it is told to stop.

    Args:
        settings: When, and where to.

    Raises:
        SettingWrong: A secret cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._fault: Exception | None = None
        self._copied: dt.datetime | None = None
        self._newest: Span | None = None
        self._looked = threading.Event()
        self._rest_until = now()
        (settings.directory / HOME).mkdir(exist_ok=True)
        commands = Commands(settings, login=True)
        self._barman = Barman(commands)
        self._server = Server(commands)
        self._receiving = Receiving(self._barman, self._server, settings.directory)
        self._received = ReceivedLog(settings.directory, commands.environment)
        self._timelines = Timelines(settings.directory, self._received.history)
        self._gaps = Gaps(settings.directory)
        self._keys = KeyLists(settings.directory)
        self._password = settings.secret("redis_backup_password")
        self._snapshots = Snapshots(commands, settings.directory)
        remote = settings.remote
        self._remote = None if remote is None else RemoteCopy(commands, settings, remote)

    def run(self) -> None:
        """Work until SIGTERM; what is under way then is not waited for.

        Raises:
            Exception: A fault of ours in one of the chores.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        chores: list[tuple[Callable[[], None], float]] = [
            (self.look, self._settings.look_s),
            (self.full, self._settings.look_s),
            (self.snapshot, self._settings.look_s),
        ]
        if self._remote is not None:
            chores.append((self.copy, self._settings.copy_s))
        for chore in chores:
            # Not waited for at the end: a full backup may take an hour.
            threading.Thread(target=self._repeat, args=chore, daemon=True).start()
        self._stop.wait()
        if self._fault is not None:
            raise self._fault
        try:
            self._barman.stop_receiving()
        except CommandFailed as failed:
            log.info("nothing was being received at the end: %s", failed)

    def look(self) -> None:
        """Mend and archive the log, note timeline and keys, and write down how things stand.

        Raises:
            CommandFailed: Something does not answer.
        """
        state = None
        try:
            state = self._server.state()
            self._follow(state)
            self._barman.cron()
            self._keys.note(self._server.key_ids(), now())
        finally:
            self._write_status(state)

    def full(self) -> None:
        """Make a full backup if one is due, by what the last look has found.

        Raises:
            CommandFailed: Barman failed.
        """
        if not self._looked.is_set():
            return
        wanted = self._settings.directory / FULL_WANTED
        if not (wanted.exists() or full_due(self._newest, now(), self._settings.hour)):
            return
        # Without the log from its beginning it would be worth nothing.
        if now() < self._rest_until or not self._server.state().receiving:
            return
        if self._newest is None:
            # Barman begins none before it has archived a segment.
            self._barman.switch_segment()
        log.info("full backup: begins")
        began = now()
        try:
            self._barman.back_up()
        except CommandFailed:
            self._rest_until = now() + min(REST * (now() - began), LONGEST_REST)
            raise
        self._newest = self._barman.newest()
        wanted.unlink(missing_ok=True)
        self._keys.record(self._server.key_ids(), now())
        log.info("full backup: done")

    def snapshot(self) -> None:
        """Make a snapshot of Redis if one is due, and let old ones go.

        Raises:
            CommandFailed: Redis did not give it.
        """
        at = now()
        newest = self._snapshots.newest()
        # Rather a look too early than one too late.
        pause_s = self._settings.snapshot_s - self._settings.look_s
        if newest is not None and (at - newest[0]).total_seconds() < pause_s:
            return
        # First: a disk that is full would otherwise stay so.
        oldest = at - dt.timedelta(days=self._settings.keep_days)
        self._snapshots.prune(oldest)
        self._keys.prune(oldest)
        place = address_of("redis", REDIS_PORT, self._settings.networks)
        path = self._snapshots.take(at, place, self._password)
        log.info("snapshot of Redis: %s, %.1f MB", path.name, path.stat().st_size / 1e6)

    def copy(self) -> None:
        """Bring the second place up to date, with the log as it is now.

        Raises:
            CommandFailed: It could not be.
        """
        if self._remote is None:
            raise RuntimeError("there is no second place")
        began = now()
        self._barman.switch_segment()
        self._remote.push()
        self._copied = began

    def _follow(self, state: ServerState) -> None:
        changed = self._timelines.note(state.timeline, now())
        before = self._received.last_end(state.timeline)
        broken = self._receiving.mend(state)
        if broken and not changed and before is not None:
            self._gaps.note(before.at, now())
        if broken or changed:
            log.warning("the log has another course: a full backup is wanted")
            (self._settings.directory / FULL_WANTED).touch()

    def _write_status(self, state: ServerState | None) -> None:
        self._newest = self._barman.newest()
        self._looked.set()
        snapshot = self._snapshots.newest()
        Status(
            looked=now(),
            receiving=state is not None and state.receiving,
            full=None if self._newest is None else self._newest.ended,
            snapshot=None if snapshot is None else snapshot[0],
            copied=self._copied,
        ).write(self._settings.private / STATUS)

    def _repeat(self, work: Callable[[], None], pause_s: float) -> None:
        """Work and pause, until the stop; what others fail at is told, and tried again."""
        pause = 0.0
        while not self._stop.wait(pause):
            pause = pause_s
            try:
                work()
            except (CommandFailed, OSError) as failed:
                # Of the system's errors the disk's: it is full, and may not stay so.
                log.error("%s: %s", work.__name__, failed)  # noqa: TRY400 - the program has said it
            except Exception as fault:
                # Ends everything: the container begins anew, and does not fall silent.
                self._fault = fault
                self._stop.set()
                raise


def full_due(newest: Span | None, at: dt.datetime, hour: int) -> bool:
    """Whether the day's full backup has not been begun, or there is none at all."""
    day = at.replace(hour=hour, minute=0, second=0, microsecond=0)
    last_hour = day if day <= at else day - dt.timedelta(days=1)
    return newest is None or newest.began < last_hour


def status_file(settings: Settings) -> Path:
    """Where the scheduler writes how things stand."""
    return settings.private / STATUS
