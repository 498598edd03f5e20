"""Files that are there whole or not at all, with the time of their making as their name."""

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_FORM: Final = "%Y-%m-%dT%H-%M-%SZ"
"""Sorts by time, and no file system has anything against it."""


def now() -> dt.datetime:
    """The time, UTC."""
    return dt.datetime.now(dt.UTC)


def name_of(at: dt.datetime) -> str:
    """A time as a file's name, to the second."""
    return at.astimezone(dt.UTC).strftime(_FORM)


def dated(directory: Path, suffix: str) -> list[tuple[dt.datetime, Path]]:
    """Files of a directory that are named by a time, oldest first; others are passed over."""
    return sorted(_dated(directory, suffix))


def _dated(directory: Path, suffix: str) -> Iterator[tuple[dt.datetime, Path]]:
    for path in directory.glob(f"*{suffix}"):
        try:
            at = dt.datetime.strptime(path.name.removesuffix(suffix), _FORM).replace(tzinfo=dt.UTC)
        except ValueError:
            continue
        yield at, path


def put(path: Path, text: str) -> None:
    """Write a file so that it is there whole, or as it was before."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
    finish(unfinished, path)


def finish(unfinished: Path, path: Path) -> None:
    """Give a file its name when all of it is on the disk."""
    sync(unfinished)
    unfinished.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(directory: Path, suffix: str, older_than: dt.datetime) -> int:
    """Remove what is named by an earlier time, but never the newest; how many files that were."""
    old = [path for at, path in dated(directory, suffix)[:-1] if at < older_than]
    for path in old:
        path.unlink()
    return len(old)
