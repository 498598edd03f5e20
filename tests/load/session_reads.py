"""Reads of a cluster's accounts, each answer held against the account it must be of."""

import asyncio
import datetime as dt
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster import Cluster
from tests.load.loadgen import Call, Reply, request_bytes, run_open_loop
from tests.load.zipf import Demand

# `as_of` is told in whole milliseconds, and both clocks are this machine's.
CLOCK_MS = 2.0
# Every so many reads is a snapshot, with positions; the others are of the account alone.
SNAPSHOT_EVERY = 3
GRACE_S = 20.0
# At a time, of the simulator: which positions an account has.
ASKING = 4
SWITCHES, LOGINS = "mt5_session_switches_total", "mt5_logins_total"
# Beside the replicas' own counters: processor seconds of their processes.
CPU_S = "cpu_s"


class _Account(msgspec.Struct):
    login: int
    server: str
    balance: float


class _Position(msgspec.Struct):
    ticket: int


class _Meta(msgspec.Struct):
    account_id: str
    terminal_id: str
    source: str
    as_of: dt.datetime
    age_ms: float


class _Read(msgspec.Struct):
    account: _Account
    meta: _Meta
    positions: list[_Position] | None = None


class _Failure(msgspec.Struct):
    code: str


@dataclass(frozen=True)
class Asked:
    """How accounts are read.

    Attributes:
        rate: Requests a second.
        query: Of each; empty for the default freshness.
        max_age_ms: What that allows; infinite where it asks for no age.
        warm_s: For how long before anything is counted.
        seconds: And then.
    """

    rate: float
    query: str
    max_age_ms: float
    warm_s: float
    seconds: float


@dataclass
class Figures:
    """What became of the reads of the measured time.

    Attributes:
        latencies_s: Of good answers, from when each was due.
        ages_s: Of good answers, as they tell them.
        turns: Good answers that a terminal gave.
        failed: Answers that are not 200, by their code.
        wrong: Answers with another account's login, server, balance or positions.
        stale: Answers older than was asked for.
        misdated: Answers whose `as_of` and `age_ms` do not add up to when they were given.
        placed: The numbers of the accounts seen on each terminal.
        counted: Growth of the replicas' counters and of their processor seconds.
        seconds: Measured.
    """

    seconds: float
    latencies_s: list[float] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    turns: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    stale: int = 0
    misdated: int = 0
    placed: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    counted: dict[str, float] = field(default_factory=dict)

    @property
    def answers(self) -> int:
        """Good ones."""
        return len(self.latencies_s)

    @property
    def per_s(self) -> float:
        """Good answers a second."""
        return self.answers / self.seconds

    def latencies(self) -> NDArray[np.float64]:
        """In seconds."""
        return np.array(self.latencies_s)

    def ages(self) -> NDArray[np.float64]:
        """In seconds."""
        return np.array(self.ages_s)

    def per_min(self, counter: str) -> float:
        """Growth of a counter of the replicas a minute."""
        return self.counted[counter] / self.seconds * 60


class Readers:
    """Readers of every account of a cluster, in proportion to its share of the demand.

    Args:
        cluster: With every account connected.
        demand: The shares, in the order of the cluster's accounts.
    """

    def __init__(self, cluster: Cluster, demand: Demand) -> None:
        self._cluster = cluster
        self._demand = demand
        self._accounts = list(cluster.accounts.values())
        with ThreadPoolExecutor(ASKING) as pool:
            self._tickets = list(pool.map(cluster.tickets, self._accounts))
        self._read = msgspec.json.Decoder(_Read)
        self._failure = msgspec.json.Decoder(_Failure)

    async def run(self, asked: Asked) -> Figures:
        """Read as asked for; what is due while warming up is sent and forgotten."""
        arrivals = self._demand.arrivals(asked.rate, asked.warm_s + asked.seconds)
        numbers: list[int] = arrivals.account.tolist()
        raw = [self._requests(number, asked.query) for number in range(len(self._accounts))]
        calls = [
            Call(index, due_s, raw[numbers[index]][index % SNAPSHOT_EVERY == 0])
            for index, due_s in enumerate(arrivals.at_s.tolist())
        ]
        figures = Figures(asked.seconds)
        started = time.time()

        def on_reply(reply: Reply) -> None:
            if calls[reply.number].due_s >= asked.warm_s:
                span_ms = ((started + reply.sent_s) * 1000, time.time() * 1000)
                self._judge(figures, numbers[reply.number], reply, span_ms, asked.max_age_ms)

        addresses = [("127.0.0.1", replica.port) for replica in self._cluster.serving]
        counting = asyncio.create_task(self._count(asked))
        await run_open_loop(calls, addresses, on_reply, grace_s=GRACE_S)
        figures.counted = await counting
        return figures

    def _requests(self, number: int, query: str) -> tuple[bytes, bytes]:
        account = self._accounts[number]
        path = f"/api/mt5/account/{account.account_id}"
        headers = account.headers()
        info, snapshot = (f"{path}/{what}{query}" for what in ("info", "snapshot"))
        return request_bytes(info, headers), request_bytes(snapshot, headers)

    def _judge(
        self,
        figures: Figures,
        number: int,
        reply: Reply,
        span_ms: tuple[float, float],
        max_age_ms: float,
    ) -> None:
        """Count a reply that was sent for and received in this span of the wall clock."""
        if reply.status != httpx.codes.OK:
            figures.failed[self._code(reply)] += 1
            return
        try:
            read = self._read.decode(reply.body)
        except msgspec.MsgspecError:
            figures.failed["200 of another shape"] += 1
            return
        if not self._is_of(number, read, reply.number % SNAPSHOT_EVERY == 0):
            figures.wrong += 1
            return
        sent_ms, received_ms = span_ms
        as_of_ms = read.meta.as_of.timestamp() * 1000
        given_ms = as_of_ms + read.meta.age_ms
        figures.stale += as_of_ms < sent_ms - max_age_ms - CLOCK_MS
        figures.misdated += not sent_ms - CLOCK_MS <= given_ms <= received_ms + CLOCK_MS
        figures.latencies_s.append(reply.latency_s)
        figures.ages_s.append(read.meta.age_ms / 1000)
        figures.turns += read.meta.source == "terminal"
        figures.placed[read.meta.terminal_id].add(number)

    def _is_of(self, number: int, read: _Read, whole: bool) -> bool:
        account, told = self._accounts[number], read.account
        tickets = {position.ticket for position in read.positions or ()}
        return (
            (told.login, told.server, told.balance)
            == (account.login, account.server, account.balance)
            and read.meta.account_id == account.account_id
            and tickets == (self._tickets[number] if whole else set())
        )

    def _code(self, reply: Reply) -> str:
        if not reply.status:
            return reply.body.decode()
        try:
            return self._failure.decode(reply.body).code
        except msgspec.MsgspecError:
            return f"{reply.status} of another shape"

    async def _count(self, asked: Asked) -> dict[str, float]:
        await asyncio.sleep(asked.warm_s)
        before = await asyncio.to_thread(self._counters)
        await asyncio.sleep(asked.seconds)
        after = await asyncio.to_thread(self._counters)
        return {name: after[name] - before[name] for name in after}

    def _counters(self) -> Mapping[str, float]:
        totals = dict.fromkeys((SWITCHES, LOGINS, CPU_S), 0.0)
        for replica in self._cluster.serving:
            times = psutil.Process(replica.pid).cpu_times()
            totals[CPU_S] += times.user + times.system
            text = httpx.get(f"{replica.url}/metrics", timeout=GRACE_S).raise_for_status().text
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name in totals:
                        totals[sample.name] += sample.value
        return totals


def fully_placed(figures: Sequence[Figures], accounts: int) -> list[list[int]] | None:
    """The accounts of each terminal, if runs have seen every account, and each on one terminal."""
    placed: defaultdict[str, set[int]] = defaultdict(set)
    for each in figures:
        for terminal_id, numbers in each.placed.items():
            placed[terminal_id] |= numbers
    found = sorted(number for numbers in placed.values() for number in numbers)
    return (
        [sorted(numbers) for numbers in placed.values()] if found == list(range(accounts)) else None
    )
