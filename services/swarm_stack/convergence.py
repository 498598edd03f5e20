"""Waiting until a stack is what was asked for, or going back to what it was."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from swarm_stack.engine import Engine, EngineFailed
from swarm_stack.observed import ROLLED_BACK, Service, services_of

PAUSE_S: Final = 1.0
LOG_LINES: Final = 12

Report = Callable[[str], None]


class NotConverged(Exception):
    """The stack is not what was asked for; says which services, and why."""


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Which services have gone back, and whether that is all that was changed."""

    services: tuple[str, ...]
    complete: bool


def wait_converged(
    engine: Engine,
    stack: str,
    since: Mapping[str, str],
    patience_s: float,
    report: Report,
    *,
    only: frozenset[str] | None = None,
) -> None:
    """Wait until every service of a stack runs as it is specified.

    Args:
        engine: A manager of the swarm.
        stack: Name of the stack.
        since: When each service was last updated before, from `update_times`.
        patience_s: After so long it has failed.
        report: Told of progress.
        only: Services that are waited for; all if None.

    Raises:
        NotConverged: An update was rolled back, or it takes too long.
    """
    deadline = time.monotonic() + patience_s
    told = ""
    while True:
        services = services_of(engine, stack)
        if only is not None:
            services = {name: services[name] for name in only}
        back = [
            one
            for one in services.values()
            if _updated(one, since) and (one.update in ROLLED_BACK or one.update == "paused")
        ]
        waiting = sorted(one.name for one in services.values() if not one.converged)
        if any(one.update != "rollback_started" for one in back) or (back and not waiting):
            raise NotConverged(_why(engine, back))
        if not waiting:
            return
        if time.monotonic() > deadline:
            late = [services[name] for name in waiting]
            raise NotConverged(f"not done after {patience_s:.0f} s\n{_why(engine, late)}")
        told = say_progress([services[name] for name in waiting], told, report)
        time.sleep(PAUSE_S)


def roll_back(engine: Engine, stack: str, since: Mapping[str, str], report: Report) -> RolledBack:
    """Take every service back that was updated since, unless the swarm has done so.

    Args:
        engine: A manager of the swarm.
        stack: Name of the stack.
        since: When each service was last updated before, from `update_times`.
        report: Told of each.
    """
    complete, back = True, []
    for one in services_of(engine, stack).values():
        if one.name not in since:
            complete = False
        elif not _updated(one, since):
            continue
        elif one.update in ROLLED_BACK:
            report(f"{one.name} was rolled back by the swarm")
            back.append(one.name)
        elif one.reversible:
            report(f"rolling back {one.name}")
            engine.run("service", "rollback", "--detach", f"{stack}_{one.name}")
            back.append(one.name)
        else:
            complete = False
    return RolledBack(tuple(back), complete)


def wait_standing(engine: Engine, stack: str, patience_s: float) -> None:
    """Wait until every service runs as it is specified, however it came to be so.

    Raises:
        NotConverged: It takes too long; says which services, and why.
    """
    deadline = time.monotonic() + patience_s
    while True:
        late = [one for one in services_of(engine, stack).values() if not one.converged]
        if not late:
            return
        if time.monotonic() > deadline:
            raise NotConverged(_why(engine, late))
        time.sleep(PAUSE_S)


def update_times(engine: Engine, stack: str) -> dict[str, str]:
    """When the last update of each service began; empty for none."""
    return {name: one.update_began for name, one in services_of(engine, stack).items()}


def _updated(service: Service, since: Mapping[str, str]) -> bool:
    """Whether an update has begun since; one that changes nothing is none."""
    return bool(service.update_began) and service.update_began != since.get(service.name)


def say_progress(waiting: Sequence[Service], told: str, report: Report) -> str:
    """Report how far services are, unless that was told last; what was told last now."""
    progress = f"waiting for {', '.join(map(_progress, waiting))}"
    if progress != told:
        report(progress)
    return progress


def _progress(service: Service) -> str:
    failed = service.failures(1)
    # Ids of containers stand before the reason, and are others each time.
    why = f" ({': '.join(failed[0].split(': ')[-2:])})" if failed else ""
    return f"{service.name} {service.running}/{service.desired}{why}"


def _why(engine: Engine, services: list[Service]) -> str:
    return "\n".join(line for one in services for line in _reasons(engine, one))


def _reasons(engine: Engine, service: Service) -> list[str]:
    says = service.update_says or f"{service.running} of {service.desired} run"
    lines = [f"{service.name}: {says}"]
    lines += [f"  {failure}" for failure in service.failures()]
    dead = next((task for task in service.tasks if task.error or task.state == "failed"), None)
    if dead is not None:
        try:
            logs = ("service", "logs", "--raw", "--tail", str(LOG_LINES), dead.task_id)
            printed = engine.run(*logs, both=True)
        except EngineFailed as gone:
            printed = f"(no log: {gone})"
        lines += [f"  | {line}" for line in printed.splitlines()[-LOG_LINES:]]
    return lines
