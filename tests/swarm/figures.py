"""What is measured while the stack is tried: times and counts, for a table."""

import datetime as dt
import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Figures:
    """Rows of (what, figure), in the order in which they were measured."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def note(self, what: str, figure: object) -> None:
        """Add a row."""
        self.rows.append((what, str(figure)))

    def seconds(self, what: str, took_s: float) -> None:
        """Add a time."""
        self.note(what, f"{took_s:.1f} s")

    def quantiles(self, what: str, samples_ms: Sequence[float]) -> None:
        """Add p50, p95 and p99 of some times."""
        if len(samples_ms) < 2:
            self.note(what, f"{len(samples_ms)} samples")
            return
        cuts = statistics.quantiles(samples_ms, n=100, method="inclusive")
        told = "/".join(f"{cuts[percent - 1]:.0f}" for percent in (50, 95, 99))
        self.note(what, f"p50/p95/p99 {told} ms of {len(samples_ms)}")

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Measure how long a block takes."""
        began = time.monotonic()
        yield
        self.seconds(what, time.monotonic() - began)

    def table(self) -> str:
        """For a terminal."""
        width = max(len(what) for what, _ in self.rows)
        return "".join(f"{what:<{width}}  {figure}\n" for what, figure in self.rows)

    def page(self) -> str:
        """For the documentation."""
        rows = "".join(f"| {what} | {figure} |\n" for what, figure in self.rows)
        today = dt.datetime.now(dt.UTC).date()
        return (
            "# A run of the Swarm stack\n\n"
            f"Written by `make test-swarm RECORD=docs/swarm-run.md` on {today}:"
            f" {os.cpu_count()} cores, {platform.system()} {platform.machine()}, simulated"
            " terminals.\nTimes are measured and never asserted; what must hold is asserted by"
            " the tests.\n\n| what | figure |\n|---|---|\n" + rows
        )
