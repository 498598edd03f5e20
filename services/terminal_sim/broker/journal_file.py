"""The file of a server's journal: its name, and who may read it."""

import hashlib
from pathlib import Path
from stat import S_ISREG
from urllib.parse import quote

# Longer names do not fit into a file's name.
_LONGEST_NAME = 200
# A journal tells balances and deals.
_OWNERS, _OTHERS = 0o600, 0o077


def file_name(server: str) -> str:
    """Return what the journal of a server is called, whatever the server is called."""
    name = quote(server, safe=" ")
    if len(name) > _LONGEST_NAME:
        name = hashlib.sha256(server.encode()).hexdigest()
    return f"{name}.journal"


def make_private(path: Path) -> None:
    """Make a file, or an older one, nobody else's to read; SQLite's log gets the same mode.

    Raises:
        OSError: It cannot be written, or is somebody else's.
    """
    path.touch(mode=_OWNERS)
    mode = path.stat().st_mode
    if S_ISREG(mode) and mode & _OTHERS:
        path.chmod(_OWNERS)
