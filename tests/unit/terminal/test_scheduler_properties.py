"""Whatever comes in whatever order: bounds, identities, one call at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.unit.terminal.scheduling_bench import Bench, SwitchingTerminal, identity, now, virtual

from mt5kit.errors import (
    BrokerTimeout,
    CallFailed,
    LoginRefused,
    Mt5SwarmError,
    TerminalTimeout,
    TerminalUnavailable,
    WrongAccount,
)
from mt5kit.secret import Secret
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.scheduling import Chunk, Done, More, SchedulerRules

SWITCH_S, LOOK_S, CHUNK_S = 1.5, 0.005, 0.25
RULES = SchedulerRules(patience_s=1.0, job_patience_s=5.0)
# A call that takes all its time: the longest deadline of the rules.
LONGEST_CALL_S = 20.0

Kind = Literal["look", "job", "proof", "leaver"]


@dataclass(frozen=True)
class Arrival:
    """Somebody comes `after_s` seconds after the one before."""

    after_s: float
    kind: Kind
    account: int
    max_age_s: float
    deadline_s: float


def arrivals(kinds: list[Kind], deadlines_s: tuple[float, ...]) -> st.SearchStrategy[list[Arrival]]:
    one = st.builds(
        Arrival,
        after_s=st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.5, 1.0, 3.0]),
        kind=st.sampled_from(kinds),
        account=st.integers(1, 5),
        max_age_s=st.sampled_from([0.0, 0.5, 5.0]),
        deadline_s=st.sampled_from(deadlines_s),
    )
    return st.lists(one, min_size=1, max_size=40)


@dataclass
class Outcome:
    arrival: Arrival
    waited_s: float
    error: Exception | None = None


def work(bench: Bench, account: int) -> Callable[[int], Awaitable[Chunk[int]]]:
    taken = 0

    async def step(token: int) -> Chunk[int]:
        nonlocal taken
        await bench.terminal.chunk(identity(account), CHUNK_S)
        taken += 1
        return Done(account) if taken == 3 else More(0.05)

    return step


async def take(bench: Bench, arrival: Arrival) -> Outcome:
    """One turn; an answer of another identity is an error of the test."""
    asked = now()
    try:
        if arrival.kind == "job":
            job = work(bench, arrival.account)
            entrant = bench.entrant(arrival.account)
            turn = await bench.scheduler.work(entrant, job, deadline_s=arrival.deadline_s)
            assert turn.value == arrival.account
        elif arrival.kind == "proof":
            typed = Credentials(identity(arrival.account), Secret("pw"))
            proven = await bench.scheduler.prove(typed, deadline_s=15.0)
            assert proven.value.identity == typed.identity
        else:
            look = await bench.see(
                arrival.account, max_age_s=arrival.max_age_s, deadline_s=arrival.deadline_s
            )
            assert look.value.identity == identity(arrival.account)
            assert look.queue_wait_ms >= 0
    except Mt5SwarmError as error:
        return Outcome(arrival, now() - asked, error)
    return Outcome(arrival, now() - asked)


async def play(bench: Bench, coming: list[Arrival]) -> list[Outcome]:
    tasks = []
    for arrival in coming:
        await asyncio.sleep(arrival.after_s)
        task = asyncio.create_task(take(bench, arrival))
        if arrival.kind == "leaver":
            asyncio.get_running_loop().call_later(0.7, task.cancel)
        else:
            tasks.append(task)
    return [await task for task in tasks]


@settings(max_examples=60)
@given(coming=arrivals(["look", "look", "look", "job", "proof", "leaver"], (600.0,)))
def test_nobody_waits_beyond_the_bound(coming: list[Arrival]) -> None:
    @virtual
    async def run() -> None:
        async with Bench(RULES, SwitchingTerminal(SWITCH_S, LOOK_S)) as bench:
            bench.book.rates = {"a1": 1.0, "a2": 0.5, "a6": 0.2}
            bench.entrant(6)
            outcomes = await play(bench, coming)
            jobs = sum(arrival.kind == "job" for arrival in coming)
            proofs = sum(arrival.kind == "proof" for arrival in coming)
            visit_s = SWITCH_S + 2 * LOOK_S + (RULES.patience_s + CHUNK_S if jobs else 0.0)
            looks_s = RULES.patience_s + (5 + 1) * visit_s + (proofs + 1) * SWITCH_S
            for outcome in outcomes:
                assert outcome.error is None
                if outcome.arrival.kind == "look":
                    assert outcome.waited_s <= looks_s
                elif outcome.arrival.kind == "job":
                    # Three steps, each at worst in a visit of its own.
                    assert outcome.waited_s <= 3 * (RULES.job_patience_s + jobs + looks_s)
            assert bench.scheduler.waiting == 0

    run()


FAULTS = (CallFailed, TerminalUnavailable, TerminalTimeout, WrongAccount, BrokerTimeout)


@settings(max_examples=60)
@given(
    coming=arrivals(["look", "look", "job", "proof", "leaver"], (0.5, 2.0, 10.0)),
    faults=st.lists(st.sampled_from(FAULTS), max_size=6),
    refused=st.sets(st.integers(1, 5), max_size=2),
    frozen=st.tuples(st.floats(0, 10), st.floats(0, 10)),
    tight=st.booleans(),
)
def test_every_turn_ends_in_time_whatever_breaks(
    coming: list[Arrival],
    faults: list[type[Mt5SwarmError]],
    refused: set[int],
    frozen: tuple[float, float],
    tight: bool,
) -> None:
    @virtual
    async def run() -> None:
        with capture_logs():
            await break_things()

    async def break_things() -> None:
        async with Bench(RULES, SwitchingTerminal(SWITCH_S, LOOK_S)) as bench:
            terminal = bench.terminal
            terminal.faults.extend(fault("injected") for fault in faults)
            terminal.refused = {(identity(account), "pw") for account in refused}
            if tight:
                bench.book.wait_s = lambda _server, spare: 3.0 if spare or now() % 5 < 3 else 0.0
            loop = asyncio.get_running_loop()
            loop.call_later(frozen[0], setattr, terminal, "frozen", True)
            loop.call_later(sum(frozen), setattr, terminal, "frozen", False)
            bench.book.rates = {"a1": 1.0, "a2": 0.5}
            bench.entrant(1), bench.entrant(2)
            for outcome in await play(bench, coming):
                limit_s = outcome.arrival.deadline_s
                if outcome.arrival.kind == "proof":
                    limit_s = RULES.proof_patience_s
                assert outcome.waited_s <= limit_s + LONGEST_CALL_S + 0.1
                if isinstance(outcome.error, LoginRefused):
                    assert outcome.arrival.account in refused
            assert bench.scheduler.waiting == 0
            terminal.frozen = False
            terminal.faults.clear()
            bench.book.wait_s = lambda _server, _spare: 0.0
            await asyncio.sleep(60)
            assert bench.scheduler.up
            await bench.see(6)
            stored = [c for c in terminal.calls if c.op == "login" and c.who is not None]
            for account in refused:
                tried = [pair for pair in terminal.passwords_tried if pair[0].login == account]
                proofs = sum(
                    arrival.kind == "proof" and arrival.account == account for arrival in coming
                )
                assert len(tried) <= 1 + proofs
            assert stored

    run()
