"""Scaling a pool together with its terminals."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from swarm_stack.convergence import say_progress
from swarm_stack.engine import Engine
from swarm_stack.observed import Service, services_of
from swarm_stack.sizes import Sizes
from swarm_stack.stack import FIRST_BOOT_S
from swarm_stack.variables import MARKET, POOLS

PAUSE_S: Final = 1.0
# A drain of terminals, a drain of replicas and a start of new ones.
PATIENCE_S: Final = 300.0
MARKET_MOST: Final = 15

Report = Callable[[str], None]


class ScaleRefused(Exception):
    """Nothing was changed; says why."""


class ScaleLate(Exception):
    """The counts are set, but what should run does not run yet."""


def steps(service: str, present: dict[str, int], wanted: int, sizes: Sizes) -> list[dict[str, int]]:
    """Which counts to set, one step after the other.

    New terminals and replicas start together. When a pool shrinks, its terminals leave first: the
    accounts on them move elsewhere while there are replicas enough to move them.

    Args:
        service: A pool, its terminals, or the market terminals.
        present: Replicas of the services that run.
        wanted: Replicas it is to have.
        sizes: The most there may be.

    Raises:
        ScaleRefused: It is no service that scales, is not there, or may not be so large or small.
    """
    pool = next((one for one, terminals in POOLS.items() if service in {one, terminals}), None)
    if pool is None and service != MARKET:
        scaled = ", ".join((*POOLS, MARKET))
        raise ScaleRefused(f"{service} has exactly one replica; what can be scaled: {scaled}")
    least, most = (1, sizes.pools.of(pool).max) if pool else (0, MARKET_MOST)
    if not least <= wanted <= most:
        raise ScaleRefused(f"{service} may have {least} to {most} replicas (config/stack.toml)")
    names = (POOLS[pool], pool) if pool else (service,)
    for name in names:
        if name not in present:
            raise ScaleRefused(f"{name} does not run; make deploy")
    if any(present[name] > wanted for name in names):
        return [{name: wanted} for name in names]
    return [dict.fromkeys(names, wanted)]


def scale(
    engine: Engine, stack: str, service: str, wanted: int, sizes: Sizes, report: Report
) -> None:
    """Set the counts, step by step, and wait for each.

    Raises:
        ScaleRefused: See `steps`.
        ScaleLate: It takes longer than five minutes, or half an hour where it grows.
    """
    present = {name: one.desired for name, one in services_of(engine, stack).items()}
    for step in steps(service, present, wanted, sizes):
        report(", ".join(f"{name} {present[name]} -> {count}" for name, count in step.items()))
        set_counts(engine, stack, step)
        grows = any(count > present[name] for name, count in step.items())
        wait_settled(engine, stack, step, FIRST_BOOT_S if grows else PATIENCE_S, report)


def set_counts(engine: Engine, stack: str, counts: Mapping[str, int]) -> None:
    """Ask for so many replicas of each service, and wait for nothing.

    The client's own waiting may never end for a service that is to have none.
    """
    wanted = [f"{stack}_{name}={count}" for name, count in counts.items()]
    engine.run("service", "scale", "--detach", *wanted)


def wait_settled(
    engine: Engine,
    stack: str,
    names: Iterable[str],
    patience_s: float,
    report: Report,
) -> None:
    """Wait until services run as they should, and whoever had to leave has left.

    Raises:
        ScaleLate: It takes longer.
    """
    deadline = time.monotonic() + patience_s
    wanted, told = tuple(names), ""
    while True:
        services = services_of(engine, stack)
        late = [name for name in wanted if not _settled(services[name])]
        if not late:
            return
        if time.monotonic() > deadline:
            why = "; ".join(f"{name}: {services[name].failures() or 'no reason'}" for name in late)
            raise ScaleLate(f"not done after {patience_s:.0f} s: {why}")
        told = say_progress([services[name] for name in late], told, report)
        time.sleep(PAUSE_S)


def _settled(service: Service) -> bool:
    """Whether it runs as it should, and whoever had to leave has left."""
    leaving = [task for task in service.tasks if not task.wanted and task.state == "running"]
    return service.converged and not leaving
