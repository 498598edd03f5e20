"""The receiving of the write-ahead log, mended by itself when the server has gone another way.

After a restore the server writes another timeline, from a position that may lie behind what was
received of the one before; and a backup that was away for too long finds that the server has not
kept the log for it. In both cases the receiver would fail for ever: it begins where its files end.
"""

import logging
from pathlib import Path

from backup.barman import STREAMING, WALS, Barman
from backup.server import Server, ServerState
from backup.wal import SEGMENT_NAME

log = logging.getLogger(__name__)

_PARTIAL = ".partial"


class Receiving:
    """Where the receiver stands, and where it has to begin.

    Args:
        barman: Whose receiver it is.
        server: Whom it receives from.
        directory: Of all backups.
    """

    def __init__(self, barman: Barman, server: Server, directory: Path) -> None:
        self._barman = barman
        self._server = server
        self._streaming = directory / STREAMING
        self._wals = directory / WALS

    def mend(self, state: ServerState) -> bool:
        """Have it begin anew where it cannot go on; whether that leaves a gap behind.

        Raises:
            CommandFailed: The server or Barman failed.
        """
        if state.receiving:
            return False
        newest = max((path.name[:SEGMENT_NAME] for path in self._segments()), default=None)
        if newest is None:
            # It begins where the slot does.
            return False
        kept_from = self._kept_from(state)
        if _follows(newest, kept_from):
            return False
        log.warning("the log received so far ends with %s; it goes on at %s", newest, kept_from)
        left = [path for path in self._segments() if path.name.endswith(_PARTIAL)]
        # The receiver begins with the newest file, even an empty one.
        (self._streaming / f"{kept_from}{_PARTIAL}").touch(mode=0o600)
        for path in left:
            if path.name != f"{kept_from}{_PARTIAL}":
                self._put_away(path)
        self._barman.archive()
        return True

    def _kept_from(self, state: ServerState) -> str:
        if state.kept_from is None or state.slot == "lost":
            self._server.keep_from_here()
            state = self._server.state()
        if state.kept_from is None:
            raise RuntimeError("a slot that was made to keep the log keeps nothing")
        return state.kept_from

    def _put_away(self, path: Path) -> None:
        """Keep what is there of a segment that will never be completed."""
        directory = self._wals / path.name[:16]
        directory.mkdir(parents=True, exist_ok=True)
        path.rename(directory / path.name)

    def _segments(self) -> list[Path]:
        names = self._streaming.glob("[0-9A-F]*")
        return [path for path in names if len(path.name.removesuffix(_PARTIAL)) == SEGMENT_NAME]


def _follows(newest: str, kept_from: str) -> bool:
    """Whether the server still has what comes after the newest segment, on the same timeline."""
    return newest[:8] == kept_from[:8] and _number(kept_from) <= _number(newest) + 1


def _number(segment: str) -> int:
    """Of a segment of 16 MB, counted from the beginning of the log."""
    return int(segment[8:16], 16) * 0x100 + int(segment[16:24], 16)
