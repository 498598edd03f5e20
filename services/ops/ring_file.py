"""A key ring's file, changed by one command at a time and whole or not at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mt5kit.vault import KeyRing


class RingFileBusy(Exception):
    """Another command is changing this key ring."""


class RingFileFixed(Exception):
    """The file cannot be replaced where it stands; the message says why."""


class RingFile:
    """A key ring in a file that nobody else changes meanwhile. Made by `held`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    @contextmanager
    def held(cls, path: Path) -> Iterator["RingFile"]:
        """The file, kept from other commands of ours.

        Raises:
            RingFileBusy: One has it.
            RingFileFixed: Its directory cannot be opened.
        """
        # What a link points to is replaced, not the link.
        path = path.resolve()
        try:
            # The directory, since the file itself is another one after each change.
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise RingFileFixed(f"{path.parent}: {error.strerror}") from None
        try:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RingFileBusy(f"another command is changing {path}") from None
            yield cls(path)
        finally:
            os.close(directory)

    def read(self) -> KeyRing:
        """The ring.

        Raises:
            KeyRingInvalid: The file cannot be used.
        """
        return KeyRing.load(self._path)

    def replace(self, ring: KeyRing) -> None:
        """Put another ring in its place, with the owner and the mode of before.

        Raises:
            RingFileFixed: The place does not allow it; the file is as it was.
        """
        unfinished = self._path.with_name(f".{self._path.name}.unfinished")
        try:
            before = self._path.stat()
            unfinished.unlink(missing_ok=True)
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(ring.dump())
                file.flush()
                os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, before.st_mode & 0o7777)
                # A key that a power cut takes back would take passwords with it.
                os.fsync(descriptor)
            unfinished.rename(self._path)
            _sync_directory(self._path.parent)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise RingFileFixed(f"{self._path} cannot be replaced: {error.strerror}") from None


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
