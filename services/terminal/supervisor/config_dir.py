"""A terminal's own directory, and its `config` in memory.

MetaTrader keeps the passwords of accounts in `config`. That directory is a link to a tmpfs, made
anew from what the installer brought whenever the terminal is released.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from terminal.supervisor.settings import Refused

if TYPE_CHECKING:
    from terminal.supervisor.layout import Layout

_NAME = "config"
_MOUNTS = Path("/proc/self/mounts")


class TerminalDirectory:
    """The directory of one terminal.

    Args:
        layout: Where things are.
        number: Of the terminal.
    """

    def __init__(self, layout: Layout, number: int) -> None:
        self._installed = layout.installed
        self._own = layout.terminal(number)
        self._run = layout.run(number)

    def make(self) -> None:
        """Copy it from what is installed, unless it is there; half a copy is thrown away."""
        if self._own.exists():
            return
        draft = self._own.with_name(self._own.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.parent.mkdir(exist_ok=True)
        shutil.copytree(self._installed, draft, symlinks=True)
        draft.rename(self._own)

    def secure(self) -> None:
        """See to it that `config` is in memory; what lies on the disk instead is removed."""
        self._run.mkdir(mode=0o700, exist_ok=True)
        live = self._run / _NAME
        if not live.exists():
            self._fill(live)
        entry = _config_of(self._own)
        if entry.is_symlink() and entry.readlink() == live:
            return
        if entry.is_symlink():
            entry.unlink()
        elif entry.exists():
            shutil.rmtree(entry)
        entry.symlink_to(live)

    def forget(self) -> None:
        """Take away what the terminal has kept of its accounts; it must not run."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._run / _NAME)

    def _fill(self, live: Path) -> None:
        brought = _config_of(self._installed)
        if brought.is_dir():
            shutil.copytree(brought, live)
        else:
            live.mkdir()
        live.chmod(0o700)


def check_in_memory(directory: Path) -> None:
    """See to it that a directory is on a tmpfs.

    Raises:
        Refused: It is not, so what is written there may end on a disk.
    """
    resolved = directory.resolve()
    best = ("", "")
    for line in _MOUNTS.read_text(encoding="utf-8").splitlines():
        _, where, kind = line.split()[:3]
        # Of mounts on one place the last is the one that is seen.
        if len(where) >= len(best[0]) and (
            resolved == Path(where) or Path(where) in resolved.parents
        ):
            best = (where, kind)
    if best[1] != "tmpfs":
        raise Refused(f"{directory} has to be a tmpfs: MetaTrader keeps passwords there")


def _config_of(directory: Path) -> Path:
    """The entry `config` of a directory, which Windows programs may write with a capital."""
    found = (entry for entry in directory.iterdir() if entry.name.lower() == _NAME)
    return next(found, directory / _NAME)
