"""What a terminal's RPyC server says it is doing, read from its file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Said:
    """The contents of a board.

    Attributes:
        login_until_ms: Until when a call may hold the interpreter, UTC epoch milliseconds; 0: none.
        logged_in: Login of the account that is in; 0: nobody.
        version: Of the terminal; None: not known yet.
    """

    login_until_ms: int = 0
    logged_in: int = 0
    version: str | None = None


def read_board(path: Path) -> Said:
    """What is said; a board that is not there, or that nobody could have written, says nothing."""
    try:
        said = json.loads(path.read_text(encoding="ascii"))
        until, login, version = said["login_until_ms"], said["logged_in"], said["version"]
        return Said(int(until), int(login), None if version is None else str(version)[:40])
    except (OSError, ValueError, KeyError, TypeError):
        return Said()
