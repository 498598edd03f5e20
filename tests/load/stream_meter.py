"""What processes take of the machine, between two instants."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil


@dataclass(frozen=True)
class Reading:
    """Counters of a moment, in seconds.

    Attributes:
        ran_s: Of each process, all its threads together, on a processor.
        waited_s: Likewise, ready to run while others had the processors.
        idle_s: Of the machine's processors together, that nobody wanted.
        machine_s: Of them, in all.
    """

    ran_s: Mapping[int, float]
    waited_s: Mapping[int, float]
    idle_s: float
    machine_s: float

    @classmethod
    def of(cls, pids: Sequence[int]) -> Self:
        """Read them now.

        Raises:
            psutil.NoSuchProcess: One of them has ended.
        """
        machine = psutil.cpu_times()
        return cls(
            ran_s={pid: _ran_s(pid) for pid in pids},
            waited_s={pid: _waited_s(pid) for pid in pids},
            idle_s=machine.idle + machine.iowait,
            machine_s=sum(machine),
        )

    def ran_since(self, before: "Reading") -> float:
        """Processor seconds of these processes together."""
        return sum(self.ran_s[pid] - before.ran_s[pid] for pid in self.ran_s)

    def waited_since(self, before: "Reading") -> float:
        """Seconds they would have run, had there been a processor for them."""
        return sum(self.waited_s[pid] - before.waited_s[pid] for pid in self.waited_s)

    def idle_since(self, before: "Reading") -> float:
        """The share of the machine that nobody wanted."""
        return (self.idle_s - before.idle_s) / max(1e-9, self.machine_s - before.machine_s)


def memory(pid: int) -> int:
    """Bytes a process has in memory, shared pages by its share of them (PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _ran_s(pid: int) -> float:
    """Processor seconds of a process, its threads that have ended included."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _waited_s(pid: int) -> float:
    """Seconds that the present threads of a process have been ready to run and did not."""
    waited_ns = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        # A thread may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            waited_ns += int(file.read_text(encoding="ascii").split()[1])
    return waited_ns / 1e9
