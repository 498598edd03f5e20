"""Removing a stack."""

import time
from collections.abc import Callable
from typing import Final

from swarm_stack.engine import Engine, EngineFailed

PAUSE_S: Final = 1.0
# The longest grace period of the stack, and a moment.
PATIENCE_S: Final = 150.0


def remove_stack(engine: Engine, stack: str, *, data: bool, report: Callable[[str], None]) -> None:
    """Remove services, networks and configs, and wait until they are gone.

    Args:
        engine: A manager of the swarm.
        stack: Name of the stack.
        data: Remove the volumes of this node as well.
        report: Told of each step.

    Raises:
        EngineFailed: Something stays.
    """
    engine.run("stack", "rm", stack)
    label = f"label=com.docker.stack.namespace={stack}"
    deadline = time.monotonic() + PATIENCE_S
    report("waiting for the containers to end")
    while engine.rows("ps", "--all", "--filter", label) or engine.rows(
        "network", "ls", "--filter", label
    ):
        if time.monotonic() > deadline:
            raise EngineFailed(f"not everything of {stack} has gone after {PATIENCE_S:.0f} s")
        time.sleep(PAUSE_S)
    if data:
        volumes = [
            str(row["Name"])
            for row in engine.rows("volume", "ls", "--filter", f"name={stack}_")
            if str(row["Name"]).startswith(f"{stack}_")
        ]
        if volumes:
            engine.run("volume", "rm", *volumes)
        report(f"removed {len(volumes)} volumes of this node")
