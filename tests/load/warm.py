"""Warm reads beside an empty FastAPI route, and what each layer between them costs."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
import uvloop
from tests.cluster import ClusterPlan, running_cluster, wait_for
from tests.load.closed_loop import Target, read_for
from tests.load.figures import Table
from tests.load.warm_stacks import ACCOUNT, HOST, KEY, STACKS, USER
from tests.replica import free_port

from local_stack.simulator import LOGIN_SECONDS

ROUNDS = 7
ROUND_S, WARM_UP_S = 1.0, 0.5
LINES = 32
# Logs go to memory where there is a place for it: waiting for a busy disk would be measured with
# whichever server happens to write.
MEMORY = Path("/dev/shm")  # noqa: S108 - a fresh directory of our own is made in it
FEW, MANY = 2, 100
TITLES = {
    "empty": "empty FastAPI route",
    "envelope": "+ id, body limit, metrics, one log line",
    "hook": "+ a record for the request log",
    "gate": "+ key, rate of the key",
    "read": "+ route of the read, rate of the account, look in memory (instead of the empty route)",
    "info": "whole replica: info",
    "snapshot": f"whole replica: snapshot, {FEW} positions",
    "positions": f"whole replica: {MANY} positions",
}


@dataclass
class Measured:
    """What rounds have shown of one target.

    Attributes:
        rates: Answers a second, by round.
        server_us: Processor time of the server for an answer, by round.
        own_share: Of a core, what sending and counting took, by round.
    """

    rates: list[float] = field(default_factory=list)
    server_us: list[float] = field(default_factory=list)
    own_share: list[float] = field(default_factory=list)


def measure() -> Table:
    """Serve every stack and a whole replica, and read them by turns."""
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="mt5-bench-", dir=place) as name, ExitStack() as stack:
        directory = Path(name)
        targets = {one: stack.enter_context(_served(one, directory)) for one in STACKS}
        targets |= stack.enter_context(_replica(directory))
        measured = {one: Measured() for one in targets}
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_rounds(targets, measured))
    return Table(
        "Warm reads",
        f"{LINES} connections that ask again as soon as they are answered, {ROUNDS} rounds of"
        f" {ROUND_S:.0f} s for each server by turns; medians. Every stack is a uvicorn of its own;"
        " the whole replica has Redis, PostgreSQL, a terminal with a login of"
        f" {LOGIN_SECONDS} s and two accounts that it keeps refreshing. All log to memory. What a"
        " layer costs is the median over the rounds of what its stack takes of the server's"
        " processor more than the stack above it in this table.",
        ("", "answers/s", "of the empty route", "µs of the server", "the layer, µs"),
        _rows(measured),
        _verdict(measured),
    )


def _rows(measured: Mapping[str, Measured]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    below: Measured | None = None
    for name, figures in measured.items():
        # The three kinds of reads stand beside each other, not upon each other.
        layer = "" if below is None or name in {"snapshot", "positions"} else _more(figures, below)
        rate, share = median(figures.rates), _share(measured, name)
        cost = f"{median(figures.server_us):.0f}"
        rows.append((TITLES[name], f"{rate:,.0f}", f"{share:.0%}", cost, layer))
        below = figures
    return rows


def _more(above: Measured, below: Measured) -> str:
    pairs = zip(above.server_us, below.server_us, strict=True)
    return f"{median(mine - its for mine, its in pairs):+.0f}"


def _share(measured: Mapping[str, Measured], name: str) -> float:
    # Round by round, for the machine is not equally busy in all of them.
    pairs = zip(measured[name].rates, measured["empty"].rates, strict=True)
    return median(mine / empty for mine, empty in pairs)


def _verdict(measured: Mapping[str, Measured]) -> str:
    shares = {name: _share(measured, name) for name in ("info", "snapshot", "positions")}
    least = min(shares, key=lambda name: shares[name])
    kept = "kept" if shares[least] >= 0.5 else "NOT kept"
    own = max(median(figures.own_share) for figures in measured.values())
    return (
        f"Promised is half of the empty route: {kept}, the least is {shares[least]:.0%}"
        f" ({TITLES[least]}). Sending and counting took at most {own:.0%} of a core."
    )


async def _rounds(targets: Mapping[str, Target], measured: Mapping[str, Measured]) -> None:
    for target in targets.values():
        await read_for(target, WARM_UP_S, LINES)
    for _ in range(ROUNDS):
        for name, target in targets.items():
            server = psutil.Process(target.pid)
            before, own_before, began = _busy_s(server), time.process_time(), time.perf_counter()
            answers = await read_for(target, ROUND_S, LINES)
            took_s = time.perf_counter() - began
            figures = measured[name]
            figures.rates.append(answers / took_s)
            figures.server_us.append((_busy_s(server) - before) / answers * 1e6)
            figures.own_share.append((time.process_time() - own_before) / took_s)


def _busy_s(server: psutil.Process) -> float:
    times = server.cpu_times()
    return times.user + times.system


@contextmanager
def _served(stack: str, directory: Path) -> Iterator[Target]:
    port = free_port()
    command = [sys.executable, "-m", "tests.load.warm_stacks", stack, str(port)]
    with (directory / f"{stack}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            path = f"/api/mt5/account/{ACCOUNT}/info" if stack == "read" else "/"
            headers = {"X-API-Key": KEY, "X-User-ID": str(USER), "X-Request-ID": "bench-1"}
            url = f"http://{HOST}:{port}{path}"
            wait_for(lambda: process.poll() is None and _answers(url, headers), f"no {stack}")
            yield Target(HOST, port, path, headers, process.pid)
        finally:
            process.terminate()
            process.wait()


def _answers(url: str, headers: Mapping[str, str]) -> bool:
    try:
        return httpx.get(url, headers=dict(headers)).is_success
    except httpx.TransportError:
        return False


@contextmanager
def _replica(directory: Path) -> Iterator[dict[str, Target]]:
    """A replica with an account of few positions and one of many, each looked at once."""
    plan = ClusterPlan(
        terminals=1,
        accounts=2,
        replicas=1,
        login_seconds=LOGIN_SECONDS,
        positions_of={"account-1": FEW, "account-2": MANY},
    )
    with running_cluster(plan, directory) as cluster:
        cluster.connect_all()
        few, many = cluster.accounts["account-1"], cluster.accounts["account-2"]
        [replica] = cluster.replicas.values()
        assert replica.pid is not None
        targets = {}
        for name, account, counts in (
            ("info", few, {}),
            ("snapshot", few, {"positions": FEW}),
            ("positions", many, {"positions": MANY}),
        ):
            path = f"/api/mt5/account/{account.account_id}/{name}"
            headers = account.headers() | {"X-Request-ID": "bench-1"}
            body = _warm(f"{replica.url}{path}", headers)
            assert {key: len(body[key]) for key in counts} == counts, name
            targets[name] = Target(HOST, replica.port, path, headers, replica.pid)
        yield targets


def _warm(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    def cached() -> dict[str, Any] | None:
        answer = httpx.get(url, headers=dict(headers))
        body: dict[str, Any] = json.loads(answer.text)
        return body if answer.is_success and body["meta"]["source"] == "cache" else None

    return wait_for(cached, f"{url} is not warm") or {}
