"""How a stack is, for a person."""

import datetime as dt
from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.table import Table

from swarm_stack.observed import UPDATING, Service

MOST_SAID: Final = 90


def show_status(out: Console, stack: str, services: Mapping[str, Service]) -> bool:
    """Print a table of the services; whether all is as it should be."""
    table = Table(title=f"stack {stack}", title_justify="left", box=None, pad_edge=False)
    for column in ("service", "replicas", "image", "update", "last trouble"):
        table.add_column(column, overflow="fold")
    for name in sorted(services):
        service = services[name]
        colour = "green" if service.converged else "red"
        table.add_row(
            name,
            f"[{colour}]{service.running}/{service.desired}[/]",
            service.image.rpartition("/")[2].partition("@")[0],
            service.update if service.update in UPDATING else "",
            _trouble(service),
        )
    out.print(table)
    waiting = sorted(name for name, one in services.items() if not one.converged)
    if waiting:
        out.print(f"not as they should be: {', '.join(waiting)}")
    return not waiting


def _trouble(service: Service) -> str:
    """What the newest failed task died of, and when."""
    for task in service.tasks:
        if task.error:
            said = task.error if len(task.error) <= MOST_SAID else f"{task.error[:MOST_SAID]}…"
            return f"{_ago(task.since)}: slot {task.slot}: {said}"
    return ""


def _ago(instant: str) -> str:
    # Docker writes nanoseconds, which Python's dates do not know.
    then = dt.datetime.fromisoformat(f"{instant[:19]}+00:00")
    seconds = (dt.datetime.now(dt.UTC) - then).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
