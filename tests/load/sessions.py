"""Account sessions: many accounts on few terminals, read by Zipf-distributed readers."""

import asyncio
import math
import os
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from tests.cluster import Cluster, running_cluster
from tests.cluster_plan import ClusterPlan
from tests.load.baselines import Baseline, NaiveFront, RoundRobin, scenario
from tests.load.figures import Table
from tests.load.session_plan import (
    ALWAYS,
    NAIVE_RATE,
    ORDINARY,
    RATES,
    REPLICAS,
    ROUND_ROBIN,
    SWITCH_S,
    WHEN_NEEDED,
    Measured,
    Run,
    Size,
)
from tests.load.session_reads import Asked, Readers
from tests.load.session_table import table_of

from local_stack.simulator import PlacedTerminal, Simulator

LARGE, SMALL = Size(400, 20), Size(40, 2)
SLOW_SWITCH_S = 3.0
# So that connecting hundreds of accounts takes seconds.
SETUP_SWITCH_S = 0.02
NAIVE_S = 25.0
# Half of what two terminals can do.
BUDGET_PER_MIN = 40
# The ages of an account's looks are as they will stay after this many cycles of them all.
SETTLING_CYCLES = 1.5
# The default age follows what a switch takes, so nothing is too old where no age is asked for.
NO_BOUND = math.inf

T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """A row to measure: how accounts are read, for how long, after how much of a warm-up."""

    title: str
    rate: float
    query: str
    max_age_ms: float
    warm_s: float
    seconds: float

    def asked(self, *, quick: bool) -> Asked:
        """The same for the readers; measured for half as long when in a hurry."""
        seconds = self.seconds / 2 if quick else self.seconds
        return Asked(self.rate, self.query, self.max_age_ms, self.warm_s, seconds)


def readings(size: Size) -> list[Reading]:
    """The rows of a size at 1.5 s a switch; each finds ages as the one before has left them."""
    slow, fast = RATES
    seconds = 40 if size == LARGE else 30
    rows = [
        Reading(ORDINARY, slow, "", NO_BOUND, SETTLING_CYCLES * size.cycle_s, seconds),
        Reading(ORDINARY, fast, "", NO_BOUND, 5, seconds),
        Reading("`max_age_ms=5000`", slow, "?max_age_ms=5000", 5_000, 5, 25),
        Reading("`fresh=1`", slow, "?fresh=1", 0, 5, 25),
    ]
    if size == LARGE:
        rows += [
            Reading("`max_age_ms=5000`", fast, "?max_age_ms=5000", 5_000, 5, 20),
            Reading("`fresh=1`", fast, "?fresh=1", 0, 5, 20),
        ]
    return rows


def measure() -> Table:
    """Baselines, then a cluster of each size; `QUICK=1` measures the small one for less long."""
    quick = os.environ.get("QUICK") == "1"
    measured = Measured((SMALL,) if quick else (LARGE, SMALL))
    with tempfile.TemporaryDirectory(prefix="mt5-bench-") as directory:
        _measure_baselines(measured, Path(directory) / "baselines")
        for size in measured.sizes:
            _measure_ours(measured, size, Path(directory) / f"cluster-{size.accounts}", quick=quick)
    return table_of(measured)


def _measure_ours(measured: Measured, size: Size, directory: Path, *, quick: bool) -> None:
    plan = ClusterPlan(size.terminals, size.accounts, REPLICAS, SWITCH_S)
    slow, _ = RATES
    with running_cluster(plan, directory) as cluster:
        with _switches_of(cluster, SETUP_SWITCH_S):
            cluster.connect_all()
        readers = Readers(cluster, size.demand)

        def read(reading: Reading) -> None:
            figures = _run(readers.run(reading.asked(quick=quick)))
            measured.runs.append(Run(size, reading.title, reading.rate, figures))

        for reading in readings(size):
            read(reading)
        if size == LARGE:
            with _switches_of(cluster, SLOW_SWITCH_S):
                title = f"{SLOW_SWITCH_S:.0f} s a switch"
                read(Reading(title, slow, "", NO_BOUND, SETTLING_CYCLES * size.cycle_s, 40))
        elif not quick:
            _set_budget(cluster, BUDGET_PER_MIN)
            title = f"{BUDGET_PER_MIN} logins a minute"
            read(Reading(title, slow, "", NO_BOUND, SETTLING_CYCLES * size.cycle_s, 30))


def _measure_baselines(measured: Measured, directory: Path) -> None:
    """All of them at the same time, on terminals of their own: they sleep in logins."""
    names = [
        (f"{kind}-{size.accounts}-{number}", kind)
        for size in measured.sizes
        for kind in (ALWAYS, WHEN_NEEDED, ROUND_ROBIN)
        for number in range(size.terminals)
    ]
    most = max(size.accounts for size in measured.sizes)
    with Simulator(
        directory, scenario(most), "baselines", names=names, login_seconds=SWITCH_S
    ) as simulator:
        _run(_baselines_on(measured, simulator.terminals()))


async def _baselines_on(measured: Measured, terminals: Sequence[PlacedTerminal]) -> None:
    async def measure_one(size: Size, kind: str) -> None:
        prefix = f"{kind}-{size.accounts}-"
        own = [each for each in terminals if each.terminal_id.startswith(prefix)]
        measured.baselines[size, kind] = await _baseline(size, kind, own)

    async with asyncio.TaskGroup() as group:
        for size in measured.sizes:
            for kind in (ALWAYS, WHEN_NEEDED, ROUND_ROBIN):
                group.create_task(measure_one(size, kind))


async def _baseline(size: Size, kind: str, terminals: Sequence[PlacedTerminal]) -> Baseline:
    if kind == ROUND_ROBIN:
        # A whole cycle, after one in which every account is seen.
        seconds, warm_s = size.cycle_s, size.cycle_s + 5
        arrivals = size.demand.arrivals(NAIVE_RATE, seconds)
        return await RoundRobin(terminals, size.accounts).run(arrivals, warm_s, seconds)
    arrivals = size.demand.arrivals(NAIVE_RATE, NAIVE_S)
    front = await asyncio.to_thread(NaiveFront, terminals, always=kind == ALWAYS)
    return await front.run(arrivals, NAIVE_S)


@contextmanager
def _switches_of(cluster: Cluster, seconds: float) -> Iterator[None]:
    """Logins take so long while the block lasts."""
    faults = [
        fault_id
        for terminal_id in cluster.terminals
        for fault_id in cluster.fault("slow_login", terminal_id, login_s=seconds)
    ]
    try:
        yield
    finally:
        for fault_id in faults:
            cluster.mend(fault_id)


def _set_budget(cluster: Cluster, per_minute: int) -> None:
    """Start the replicas again with another login budget."""
    cluster.stop()
    for replica in cluster.replicas.values():
        replica._environment["LOGIN_BUDGET_PER_MINUTE"] = str(per_minute)
    cluster.start()
    cluster.wait_leased()


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
