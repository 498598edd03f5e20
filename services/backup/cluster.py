"""The directory of a cluster that no server uses: a recovery run in it, and put in its place."""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from backup.commands import CommandFailed, Commands
from backup.files import sync

LOCK: Final = "lock"
"""At the top of the volume; the server's entrypoint holds it for as long as it runs."""

_POLL_S: Final = 0.2
_STOP_S: Final = 600.0

RESTORE_COMMAND: Final = "/usr/local/lib/mt5-backup/fetch-wal"

_SETTINGS: Final = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    # Nobody looks in before it has arrived; and it need not allow as much as the server that was.
    "hot_standby": "off",
    "restore_command": f"{RESTORE_COMMAND} %f %p",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "archive_mode": "off",
    "wal_level": "replica",
    "max_parallel_workers_per_gather": "0",
}


class VolumeInUse(Exception):
    """A server, or another restore, uses the cluster's volume."""


class RecoveryFailed(Exception):
    """The server gave up on the way; its last words say why."""


@contextmanager
def alone(data: Path) -> Iterator[None]:
    """The volume of a cluster, kept from servers.

    Args:
        data: The cluster's directory, two levels below the top of the volume.

    Raises:
        VolumeInUse: One has it.
    """
    top = data.parents[1]
    try:
        descriptor = os.open(top / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise VolumeInUse(f"{top / LOCK}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VolumeInUse("Postgres is running, or another restore is: stop it first") from None
        yield
    finally:
        os.close(descriptor)


class Recovery:
    """A server that only its maker reaches, in a directory that is not in its place yet.

    Args:
        commands: Runs what is asked of it.
        directory: Of the cluster.
        private: For its socket and its log.
    """

    def __init__(self, commands: Commands, directory: Path, private: Path) -> None:
        self._commands = commands
        self._directory = directory
        self._private = private
        self._log = private / "recovery.log"

    @contextmanager
    def running(self) -> Iterator[None]:
        """The server, once it has recovered and takes writes; stopped in good order at the end.

        Raises:
            RecoveryFailed: It gave up.
            CommandFailed: It could not be stopped.
        """
        (self._private / "hba.conf").write_text("local all postgres peer\n")
        settings = {
            **_SETTINGS,
            "unix_socket_directories": str(self._private),
            "hba_file": str(self._private / "hba.conf"),
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with self._log.open("wb") as output:
            server = subprocess.Popen(  # noqa: S603 - ours
                ["postgres", "-D", str(self._directory), *options],  # noqa: S607 - in the image
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self._commands.environment),
            )
        try:
            while not self._takes_writes():
                if server.poll() is not None:
                    raise RecoveryFailed(self._last_words())
                time.sleep(_POLL_S)
            yield
        finally:
            if server.poll() is None:
                server.send_signal(2)
                server.wait(_STOP_S)
        if server.returncode:
            raise RecoveryFailed(self._last_words())

    def ask(self, statement: str, database: str = "mt5") -> str:
        """What a statement gives, as the superuser.

        Raises:
            CommandFailed: It failed.
        """
        return self._commands(
            *("psql", "--no-psqlrc", "-qAt", "--set=ON_ERROR_STOP=1", "--username=postgres"),
            *(f"--host={self._private}", f"--dbname={database}", f"--command={statement}"),
        ).strip()

    def _takes_writes(self) -> bool:
        try:
            return self.ask("SELECT NOT pg_is_in_recovery()", "postgres") == "t"
        except CommandFailed:
            return False

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        telling = [line for line in lines if "FATAL" in line or "PANIC" in line or "HINT" in line]
        return "\n".join((telling or lines)[-5:])


def put_in_place(commands: Commands, new: Path, data: Path, before: Path) -> bool:
    """Have a new directory take a cluster's place, in one step; whether there was one before.

    Args:
        commands: Runs what does it.
        new: The directory.
        data: The place.
        before: Where the cluster that was there goes.

    Raises:
        CommandFailed: The file system cannot do it; the cluster is where it was.
    """
    there = data.exists()
    if there:
        # At no time is there none: a server that finds none makes an empty one. And whatever bears
        # the other name, at whatever moment this ends, is kept.
        new.rename(before)
        commands("mv", "--exchange", "--no-target-directory", str(before), str(data))
    else:
        new.rename(data)
    sync(data.parent)
    return there


def clear(directory: Path, pattern: str) -> None:
    """Remove files and directories."""
    for left in directory.glob(pattern):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
