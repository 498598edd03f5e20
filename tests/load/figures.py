"""Quantiles and tables, the same on the screen and in docs/benchmarks.md."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table as ScreenTable


@dataclass(frozen=True)
class Table:
    """A table of figures with what was measured, in a sentence, and what it says."""

    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdict: str

    def show(self, console: Console) -> None:
        """Print it."""
        screen = ScreenTable(*self.columns, title=self.title, caption=self.verdict)
        for row in self.rows:
            screen.add_row(*row)
        console.print(screen)

    def markdown(self) -> str:
        """The same for the page."""
        lines = [f"## {self.title}", "", self.about, ""]
        lines += ["| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, "", self.verdict, ""])


def quantiles(values: Sequence[float], unit: float = 1.0) -> tuple[float, float, float]:
    """p50, p95 and p99, multiplied by `unit`."""
    p50, p95, p99 = np.quantile(np.asarray(values), [0.5, 0.95, 0.99]) * unit
    return float(p50), float(p95), float(p99)
