"""The search for the knee: what is tried next, what is too much, and what is said of it."""

from dataclasses import replace

import numpy as np
import pytest
from tests.load.stream_fit import shares_of
from tests.load.stream_latency import Latencies
from tests.load.stream_runs import FULL, QUICK, Broadcast, Measured, Run, next_size
from tests.load.stream_stage import OWNER, Costs, Delivered
from tests.load.stream_tables import tables_of


def costs(watchers: int, *, ran_s: float = 3.0, client_bound: bool = False) -> Costs:
    return Costs(
        watchers=watchers,
        accounts=50,
        seconds=10.0,
        deliveries=watchers * 95,
        ran_s=ran_s,
        waited_s=0.5,
        client_core=0.2,
        client_late_ms=1.5,
        client_bound=client_bound,
        idle=0.01,
        memory=60_000_000 + watchers * 50_000,
    )


def run(
    each: int,
    path_ms: float = 50.0,
    *,
    total_ms: float = 150.0,
    client_bound: bool = False,
    lost: str = "",
) -> Run:
    total = np.full(1000, max(total_ms, path_ms))
    part = Latencies(total, np.minimum(total, 100.0), 0)
    delivered = Delivered({OWNER: part}, total * 2, np.full(10, path_ms), 0, (2000, 300))
    asked = costs(each * 50, client_bound=client_bound)
    return Run(asked, delivered, [lost] if lost else [])


def searched(steps: dict[int, Run]) -> Measured:
    measured = Measured(FULL)
    measured.steps = steps
    return measured


def tried(bears: int) -> list[int]:
    """Every step of a search at a server that bears so many watchers an account."""
    measured = searched({6: run(6)})
    while (each := next_size(measured)) is not None:
        measured.steps[each] = run(each, 150.0 if each <= bears else 900.0)
    return list(measured.steps)


def test_it_doubles_until_it_is_too_much_and_then_halves_what_is_between() -> None:
    assert tried(bears=70) == [6, 12, 24, 48, 96, 72, 60]
    assert tried(bears=6) == [6, 12, 9, 7]


def test_it_stops_where_nothing_more_may_be_tried() -> None:
    assert tried(bears=10_000) == [6, 12, 24, 48, 96, 192]


def test_it_does_not_begin_where_the_least_is_too_much() -> None:
    measured = searched({6: run(6, 900.0)})
    assert next_size(measured) is None
    assert measured.knee == 6


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        (run(6), None),
        (run(6, 501.0), "p95 from look to client over 500 ms"),
        (run(6, total_ms=900.0), None),
        (run(6, client_bound=True), "the clients were full"),
        (run(6, lost="closed with 4408: slow"), "lost 1 connections (closed with 4408: slow)"),
    ],
)
def test_too_many_are_late_or_lost_or_too_many_for_the_clients(
    measured: Run, why: str | None
) -> None:
    assert measured.breaks == why


def whole(steps: dict[int, Run]) -> Measured:
    measured = searched(steps)
    measured.two = measured.single = run(1)
    measured.one = run(6)
    measured.unwatched = costs(0, ran_s=1.0)
    measured.broadcast = Broadcast(costs(600, ran_s=2.0), np.full(10, 3.0))
    measured.idle_before, measured.idle = costs(10), costs(1000)
    return measured


def test_every_table_has_as_many_cells_as_columns_and_says_what_it_came_to() -> None:
    tables = tables_of(whole({6: run(6), 12: run(12), 24: run(24, 900.0)}))
    assert len(tables) == 4
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert "python -m tests.load streams" in table.about
    latency, taken, knee, idle = (table.verdict for table in tables)
    assert "p95 is 50 ms beyond merging" in latency
    assert "takes 2.0 ms of processor a second and account" in taken
    assert "12 watchers an account (600 connections) are borne, 24 are not: p95 from" in knee
    assert "less than 500 ms (p95) up to 12" in knee
    # 57,000 deliveries each: in 3 s of processor here, in 2 s there.
    assert "19,000" in knee
    assert "28,500: 67% (promised: at least 60%; kept)" in knee
    assert "takes 50.0 kB" in idle


def test_a_knee_of_a_full_machine_is_said_to_be_the_machines() -> None:
    verdict = tables_of(whole({6: run(6), 12: run(12, 900.0)}))[2].verdict
    assert "the machine's limit rather than the replica's" in verdict


def test_terminals_that_are_looked_at_late_are_not_the_replicas_limit() -> None:
    late = tables_of(whole({6: run(6), 12: run(12, total_ms=900.0)}))[2]
    assert "12 watchers an account (600 connections) are borne, and no more" in late.verdict
    assert "less than 500 ms (p95) up to 6" in late.verdict
    assert [row[-1] for row in late.rows] == ["yes", "terminals looked at too late", ""]


def test_shares_are_found_whatever_the_machine_let_be_made() -> None:
    rng = np.random.default_rng(20261120)
    runs = []
    for each in (1, 6, 12, 24, 48):
        # Messages a second and account, as contention has it.
        made = 50 * float(rng.uniform(6, 9.6)) * 10
        ran_s = made * 1e-3 + made * each * 20e-6
        asked = costs(50 * each, ran_s=ran_s)
        runs.append(replace(asked, deliveries=round(made * each)))
    shares = shares_of(runs)
    assert shares is not None
    assert shares.message_s == pytest.approx(1e-3, rel=0.01)
    assert shares.delivery_s == pytest.approx(20e-6, rel=0.01)
    assert shares.error < 0.01


def test_shares_that_runs_do_not_tell_are_not_made_up() -> None:
    same = costs(300)
    assert shares_of([same, same]) is None
    assert shares_of([same, same, same]) is None
    # The more there was to deliver, the less it took: noise.
    runs = [costs(50 * each, ran_s=4.0 - each / 20) for each in (1, 6, 48)]
    assert shares_of(runs) is None
    verdicts = [table.verdict for table in tables_of(whole({6: run(6)}))]
    assert "cannot be told from the noise" in verdicts[1]
    assert "cannot be told from the noise" in verdicts[2]


def test_a_hurry_measures_the_same_and_less() -> None:
    assert QUICK.each == FULL.each
    assert QUICK.moving < FULL.moving
