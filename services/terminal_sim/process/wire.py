"""Messages between a process and its supervisor: JSON, so that nothing has to be unpickled."""

import logging
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import TypeAlias

import msgspec

from terminal_sim.faults.kinds import TerminalFault

# A pipe writes up to 4096 bytes all or not at all; the rest is for the envelope and escapes.
_MAX_TEXT = 500


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """The terminal accepts connections."""

    port: int


class LogLine(msgspec.Struct, frozen=True, tag="log"):
    """A line of the terminal's log.

    Attributes:
        timestamp: ISO 8601, UTC.
        level: Name of the level.
        message: Text.
    """

    timestamp: str
    level: str
    message: str


class Applied(msgspec.Struct, frozen=True, tag="applied"):
    """A command was carried out, or could not be.

    Attributes:
        fault_id: Of the fault that was begun.
        error: Why it could not be; None: it was.
    """

    fault_id: int
    error: str | None = None


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A fault is over; None: all are."""

    fault_id: int | None = None


class Acted(msgspec.Struct, frozen=True, tag="acted"):
    """A fault has acted, ``count`` times since this was last told."""

    fault_id: int
    count: int = 1


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Begin a fault."""

    fault_id: int
    fault: TerminalFault


class End(msgspec.Struct, frozen=True, tag="end"):
    """End a fault, or all when ``fault_id`` is None."""

    fault_id: int | None = None


Message: TypeAlias = Listening | LogLine | Applied | Ended | Acted
"""What a process tells its supervisor."""
Command: TypeAlias = Begin | End
"""What a supervisor tells a terminal."""

decode = msgspec.json.Decoder(Message).decode
"""Read a message; raises ``msgspec.DecodeError``."""
decode_command = msgspec.json.Decoder(Command).decode
"""Read a command; raises ``msgspec.DecodeError``."""
encode = msgspec.json.encode
"""Write either."""


class PipeHandler(logging.Handler):
    """Sends log records up the pipe; a supervisor that does not read loses them.

    Args:
        pipe: Its end must be non-blocking.
    """

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        line = log_line(record.created, record.levelname, self.format(record)[:_MAX_TEXT])
        try:
            self._pipe.send_bytes(msgspec.json.encode(line))
        except OSError:  # full, or closed: a terminal must not stop for its log
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - overrides
        """Let the record go; there is nowhere else to report it."""


def log_line(created: float, level: str, message: str) -> LogLine:
    """Return a line with its instant (epoch seconds) as ISO 8601."""
    return LogLine(iso(round(created * 1000)), level, message)


def iso(epoch_ms: int) -> str:
    """Return a UTC instant as ISO 8601 with milliseconds."""
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
