"""What is measured of streams, one thing after another, on one cluster."""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx
import msgspec
import numpy as np
from tests.cluster import Cluster
from tests.load.stream_broadcast import HOST, Plan
from tests.load.stream_client import Seat
from tests.load.stream_crowd import Crowd
from tests.load.stream_latency import Floats
from tests.load.stream_stage import Costs, Delivered, Stage, path_ms, recorded
from tests.waiting import wait_for

# Greetings and first looks are over by then.
SETTLE_S: Final = 3.0
# Of a broadcast, which has none.
BROADCAST_SETTLE_S: Final = 1.5
# Beyond it a stream does not feel live.
KNEE_MS: Final = 500.0
# Between a number that holds and one that does not, this factor is near enough.
NEAR: Final = 1.3
_FIRST: Final = b'{"type":"position_update"'


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        moving: Accounts whose prices move.
        quiet: Accounts that hold nothing.
        each: Watchers of an account.
        most: Of them, in search of the knee.
        crowd: Watchers of the quiet accounts together.
        seconds: Of a measurement.
        step_s: Of a step towards the knee.
        search_s: No step begins later than that after the first.
    """

    moving: int
    quiet: int
    each: int
    most: int
    crowd: int
    seconds: float
    step_s: float
    search_s: float


FULL: Final = Size(50, 10, 6, 192, 1000, 20.0, 6.0, 300.0)
QUICK: Final = Size(10, 2, 6, 24, 100, 4.0, 2.0, 30.0)


@dataclass(frozen=True)
class Run:
    """A measurement: what it cost, how late what it delivered came, connections lost."""

    costs: Costs
    delivered: Delivered
    lost: Sequence[str]

    @property
    def late(self) -> bool:
        """Whether clients learn of changes too late, be it that terminals were looked at late."""
        return _p95(self.delivered.all.total) > KNEE_MS

    @property
    def breaks(self) -> str | None:
        """Why these are more watchers than the replica bears; None if they are not."""
        if self.lost:
            return f"lost {len(self.lost)} connections ({self.lost[0]})"
        if _p95(self.delivered.path) > KNEE_MS:
            return f"p95 from look to client over {KNEE_MS:.0f} ms"
        return "the clients were full" if self.costs.client_bound else None


@dataclass(frozen=True)
class Broadcast:
    """The bare broadcast: what it cost, and from making to receipt, ms."""

    costs: Costs
    path: Floats


@dataclass
class Measured:
    """Everything, by and by.

    Attributes:
        size: How much of it.
        two: At two replicas.
        unwatched: One replica that streams and nobody watches.
        single: One replica, one watcher an account.
        one: One replica, as many watchers as two had.
        steps: Towards the knee, by watchers of an account.
        broken: Why the search went no further, other than by a step that was too much.
        refused: Connections of that search that were turned away and came again.
        broadcast: The `websockets` library with as many watchers as our knee.
        idle_before: Watched by one client each, quiet accounts.
        idle: By the crowd.
    """

    size: Size
    two: Run = field(init=False)
    unwatched: Costs = field(init=False)
    single: Run = field(init=False)
    one: Run = field(init=False)
    steps: dict[int, Run] = field(default_factory=dict)
    broken: str | None = None
    refused: int = 0
    broadcast: Broadcast = field(init=False)
    idle_before: Costs = field(init=False)
    idle: Costs = field(init=False)

    @property
    def knee(self) -> int:
        """Most watchers of an account that the replica bore; the fewest tried if it bore none."""
        held = [each for each, run in self.steps.items() if run.breaks is None]
        return max(held, default=min(self.steps))


async def measure_all(cluster: Cluster, size: Size) -> Measured:
    """Measure everything.

    Args:
        cluster: Of two WebSocket replicas, its accounts connected and assigned.
        size: How much.
    """
    measured = Measured(size)
    accounts = list(cluster.accounts.values())
    moving, quiet = accounts[: size.moving], accounts[size.moving :]
    first, second = cluster.ws_replicas.values()
    await _two(measured, Stage(cluster, moving, [first, second]))
    await asyncio.to_thread(second.stop)
    await asyncio.to_thread(_again, cluster)
    stage = Stage(cluster, moving, [first])
    await _one(measured, stage)
    await _search(measured, stage)
    measured.refused = stage.crowd.refused
    stage.crowd.leave_all()
    measured.broadcast = await _broadcast(measured)
    first._environment["IDLE_S"] = "1"
    await asyncio.to_thread(_again, cluster)
    await _idle(measured, Stage(cluster, quiet, [first]))
    return measured


async def _two(measured: Measured, stage: Stage) -> None:
    await stage.fill(measured.size.each)
    measured.two = await _run(stage, measured.size.seconds)
    stage.crowd.leave_all()


async def _one(measured: Measured, stage: Stage) -> None:
    size = measured.size
    await stage.fill(1)
    measured.single = await _run(stage, size.seconds / 2)
    stage.crowd.leave_all()
    await asyncio.sleep(SETTLE_S)
    measured.unwatched, _ = await stage.record(size.seconds / 2)
    await stage.fill(size.each)
    measured.one = measured.steps[size.each] = await _run(stage, size.seconds)


async def _search(measured: Measured, stage: Stage) -> None:
    end_s = time.monotonic() + measured.size.search_s
    while (each := next_size(measured)) is not None:
        if time.monotonic() > end_s:
            measured.broken = f"the time was up before {each}"
            return
        try:
            await stage.fill(each)
        except* (RuntimeError, TimeoutError, OSError) as failures:
            measured.broken = f"{each} were not let in: {failures.exceptions[0]}"
        if measured.broken:
            return
        measured.steps[each] = await _run(stage, measured.size.step_s)


def next_size(measured: Measured) -> int | None:
    """The number of watchers to try: twice the most, then between what holds and what does not."""
    held = [each for each, run in measured.steps.items() if run.breaks is None]
    broken = [each for each, run in measured.steps.items() if run.breaks is not None]
    if not held:
        return None
    if not broken:
        return 2 * max(held) if 2 * max(held) <= measured.size.most else None
    low, high = max(held), min(broken)
    return (low + high) // 2 if high > NEAR * low else None


def _p95(values: Floats) -> float:
    return float(np.quantile(values, 0.95))


async def _run(stage: Stage, seconds: float) -> Run:
    await asyncio.sleep(SETTLE_S)
    costs, recording = await stage.record(seconds)
    # In a thread, so that clients go on reading meanwhile.
    return Run(costs, await asyncio.to_thread(stage.judge, recording), recording.lost)


async def _broadcast(measured: Measured) -> Broadcast:
    """As many watchers, messages and bytes as at our knee."""
    costs, delivered = measured.steps[measured.knee].costs, measured.one.delivered
    each, accounts = costs.watchers // costs.accounts, costs.accounts
    plan = Plan(accounts, costs.watchers / costs.rate, delivered.sizes)
    crowd = Crowd(_FIRST)
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.load.stream_broadcast",
        msgspec.json.encode(plan).decode(),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        names = [f"account-{number}" for number in range(1, accounts + 1)]
        await crowd.join(
            [Seat(HOST, port, f"/{name}", name) for name in names for _ in range(each)]
        )
        await asyncio.sleep(BROADCAST_SETTLE_S)
        result, recording = await recorded(crowd, [server.pid], measured.size.seconds / 2)
        crowd.leave_all()
    finally:
        server.kill()
        await server.wait()
    return Broadcast(result, await asyncio.to_thread(path_ms, recording.heard))


async def _idle(measured: Measured, stage: Stage) -> None:
    size = measured.size
    await stage.fill(1)
    await asyncio.to_thread(_only, stage)
    await asyncio.sleep(SETTLE_S)
    measured.idle_before, _ = await stage.record(size.seconds / 2)
    await stage.fill(size.crowd // size.quiet)
    await asyncio.sleep(SETTLE_S)
    measured.idle, _ = await stage.record(size.seconds)
    stage.crowd.leave_all()


def _only(stage: Stage) -> None:
    """Wait until a stage's replica streams no other accounts than the stage's."""
    line = f"ws_active_accounts {float(len(stage.accounts))}"

    def alone() -> bool:
        answer = httpx.get(f"{stage.replicas[0].url}/metrics")
        return line in answer.raise_for_status().text.splitlines()

    wait_for(alone, "accounts that nobody watches are still streamed")


def _again(cluster: Cluster) -> None:
    """Start the first replica as a new process, and wait until all terminals are its own."""
    first = next(iter(cluster.ws_replicas.values()))
    first.stop()
    first.start()

    def owns_all() -> bool:
        return all(cluster.owner_of(one) == first.name for one in cluster.stream_terminals)

    wait_for(owns_all, "not every stream terminal is the one replica's")
