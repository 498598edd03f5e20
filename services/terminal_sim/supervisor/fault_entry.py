"""A fault at one terminal or broker, as its supervisor remembers it."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from terminal_sim.faults.kinds import Fault

# What ends at this very moment is told to end at once: no fault lasts less than no time.
_SHORTEST_S = 0.001


@dataclass(eq=False)
class Entry:
    """A fault at one terminal or broker.

    Attributes:
        id: Of this supervisor.
        fault: As it was asked for.
        terminal: Number of the terminal, or None.
        server: Server of the broker, or None.
        since_ms: When it began (UTC epoch milliseconds).
        ends: When it ends (``time.monotonic()``); None: not by itself.
        acted: How often it has acted.
        applied: Set when the process has said that it is on, or why it cannot be.
        error: Why it cannot be.
        ended: Set when the process has said that it is over.
        held_until: Until when the process is held by it (``time.monotonic()``).
    """

    id: int
    fault: Fault
    terminal: int | None = None
    server: str | None = None
    since_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    ends: float | None = None
    acted: int = 0
    applied: asyncio.Event = field(default_factory=asyncio.Event)
    error: str | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    held_until: float = 0.0

    def __post_init__(self) -> None:
        if self.fault.seconds is not None:
            self.ends = time.monotonic() + self.fault.seconds

    def __str__(self) -> str:
        where = self.server if self.terminal is None else f"terminal {self.terminal}"
        return f"{self.fault!r} at {where}"

    @property
    def over(self) -> bool:
        """Whether it has acted often or long enough, and holds nobody any more."""
        spent = self.fault.times is not None and self.acted >= self.fault.times
        past = self.ends is not None and time.monotonic() >= self.ends
        return (spent or past) and self.held_s <= 0.0

    @property
    def held_s(self) -> float:
        """For how many seconds the process is still held by it; 0: it is not."""
        return max(self.held_until - time.monotonic(), 0.0)

    def rest(self) -> Any:  # noqa: ANN401 - a terminal's fault or a broker's: whoever asks knows
        """Return what is left of the fault."""
        fault = self.fault
        if fault.times is not None:
            fault = msgspec.structs.replace(fault, times=fault.times - self.acted)
        if self.ends is not None:
            left_s = max(self.ends - time.monotonic(), _SHORTEST_S)
            fault = msgspec.structs.replace(fault, seconds=left_s)
        return fault
