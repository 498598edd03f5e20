"""`make bench`: measure everything that is promised, print it and write docs/benchmarks.md.

`python -m tests.load sessions` measures one of the modules and only prints it.
"""

import datetime as dt
import os
import platform
import sys
from pathlib import Path

from rich.console import Console
from tests.load import scale, sessions, snapshots, streams, warm
from tests.load.figures import Table

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
MODULES = {
    "snapshots": snapshots,
    "streams": streams,
    "scale": scale,
    "sessions": sessions,
    "warm": warm,
}
HEAD = """# Benchmarks

Written by `make bench` on {date} UTC; run it to see your own machine's figures.
Machine: {cores} cores ({machine}), Python {python}, everything over the loopback, terminals
simulated. The machine is shared, so ratios within one run say more than milliseconds.

"""


def main() -> None:
    """Run the benchmarks one after another; those named on the command line, or all."""
    console = Console()
    tables = []
    for name in sys.argv[1:] or MODULES:
        measured = MODULES[name].measure()
        for table in [measured] if isinstance(measured, Table) else measured:
            table.show(console)
            tables.append(table.markdown())
    if sys.argv[1:]:
        # As on the page, whole: a screen cuts wide tables.
        sys.stdout.write("\n".join(tables))
        return
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
