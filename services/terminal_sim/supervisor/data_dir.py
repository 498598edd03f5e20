"""The directory in which brokers keep their journals: of one simulator at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from terminal_sim.supervisor.options import ServeError, reason

_LOCK = ".lock"


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keep a directory from other simulators while the block lasts; it is made when it is missing.

    The lock ends with this process, however it ends: none of those it starts inherits it.

    Raises:
        ServeError: It is in use, is none, or cannot be made or written.
    """
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileExistsError, NotADirectoryError):
        raise ServeError(f"{directory}: is not a directory") from None
    except FileNotFoundError:
        raise ServeError(f"{directory}: {directory.parent} does not exist") from None
    except OSError as error:
        raise ServeError(f"{directory}: {reason(error)}") from error
    try:
        _take(directory, lock)
        yield
    finally:
        os.close(lock)


def _take(directory: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ServeError(f"{directory} is in use by another simulator") from None
    except OSError as error:
        raise ServeError(f"{directory}: {reason(error)}") from error
