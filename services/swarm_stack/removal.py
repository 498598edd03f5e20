"""Removing a stack."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import yaml

from swarm_stack.engine import Engine, EngineFailed

PAUSE_S: Final = 1.0
# The longest grace period of the stack, and a moment.
PATIENCE_S: Final = 150.0


def volumes_of(stack: str, files: Sequence[Path]) -> re.Pattern[str]:
    """The names of a stack's volumes: another stack's may begin alike.

    Args:
        stack: Name of the stack.
        files: Its stack files.
    """
    patterns = []
    for file in files:
        declared: dict[str, dict[str, str] | None]
        declared = yaml.safe_load(file.read_text(encoding="utf-8")).get("volumes", {})
        for key, settings in declared.items():
            name = (settings or {}).get("name", f"{stack}_{key}")
            name = re.sub(r"\$\{STACK[^}]*\}", stack, name)
            patterns.append(r"\d+".join(map(re.escape, name.split("{{.Task.Slot}}"))))
    return re.compile("|".join(patterns))


def remove_stack(
    engine: Engine,
    stack: str,
    files: Sequence[Path],
    *,
    data: bool,
    report: Callable[[str], None],
) -> None:
    """Remove services, networks and configs, and wait until they are gone.

    Args:
        engine: A manager of the swarm.
        stack: Name of the stack.
        files: Every stack file, which name its volumes.
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
        ours = volumes_of(stack, files)
        listed = (str(row["Name"]) for row in engine.rows("volume", "ls"))
        volumes = [name for name in listed if ours.fullmatch(name)]
        if volumes:
            engine.run("volume", "rm", *volumes)
        report(f"removed {len(volumes)} volumes of this node")
