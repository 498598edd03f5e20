"""`make bench`: measure everything that is promised, print it and write docs/benchmarks.md."""

import datetime as dt
import os
import platform
from pathlib import Path

from rich.console import Console
from tests.load import scale, snapshots, streams

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench` on {date} UTC; run it to see your own machine's figures.
Machine: {cores} cores ({machine}), Python {python}, everything over the loopback, terminals
simulated. The machine is shared, so ratios within one run say more than milliseconds.

"""


def main() -> None:
    """Run the benchmarks one after another."""
    console = Console()
    tables = []
    for module in (snapshots, streams, scale):
        table = module.measure()
        table.show(console)
        tables.append(table.markdown())
    head = HEAD.format(
        date=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M}",
        cores=os.cpu_count(),
        machine=platform.machine(),
        python=platform.python_version(),
    )
    PAGE.write_text(head + "\n".join(tables), encoding="utf-8")
    console.print(f"written to {PAGE.name}")


if __name__ == "__main__":
    main()
