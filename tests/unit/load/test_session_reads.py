"""The judge of a benchmark's answers sees each kind of wrong one, and the verdict tells of them."""

import datetime as dt
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pytest
from tests.cluster_plan import ClusterAccount
from tests.load.baselines import Baseline
from tests.load.loadgen import Reply
from tests.load.session_plan import (
    ALWAYS,
    ORDINARY,
    RATES,
    ROUND_ROBIN,
    WHEN_NEEDED,
    Measured,
    Run,
    Size,
)
from tests.load.session_reads import CPU_S, LOGINS, SWITCHES, Figures, Readers, fully_placed
from tests.load.session_table import table_of, verdict_of
from tests.load.zipf import Demand

ACCOUNTS = [
    ClusterAccount(f"account-{n}", UUID(int=n), 700 + n, 10_000.0 + n, "pass", "A-Server")
    for n in range(2)
]
TICKETS = [frozenset({1, 2}), frozenset({3})]
# What is received a second after it was sent, and may be two seconds old.
SECOND_MS, MAX_AGE_MS = 1000.0, 2000.0
NOW = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
SIZE = Size(40, 2)


@pytest.fixture
def readers() -> Readers:
    cluster: Any = SimpleNamespace(
        accounts={account.account_id: account for account in ACCOUNTS},
        tickets=lambda account: TICKETS[ACCOUNTS.index(account)],
    )
    return Readers(cluster, Demand(2, 1))


def judged(readers: Readers, body: Any, status: int = 200) -> Figures:
    """Of a reply to a snapshot of the first account, asked for a second before now."""
    now_ms = NOW.timestamp() * 1000
    figures = Figures(1.0)
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    reply = Reply(0, status, raw, 0.0, 1.0)
    readers._judge(figures, 0, reply, (now_ms - SECOND_MS, now_ms), MAX_AGE_MS)
    return figures


def answer(**changes: Any) -> dict[str, Any]:
    """A good snapshot of the first account, given half a second before now at that age."""
    as_of = NOW - dt.timedelta(seconds=1)
    account = {"login": 700, "server": "A-Server", "balance": 10_000.0}
    meta = {
        "account_id": "account-0",
        "terminal_id": "t-1",
        "source": "terminal",
        "as_of": as_of.isoformat(),
        "age_ms": 500,
    }
    positions = [{"ticket": 1}, {"ticket": 2}]
    parts = {"account": account, "meta": meta, "positions": positions}
    for name, value in changes.items():
        part = next((part for part in (account, meta) if name in part), parts)
        part[name] = value
    return parts


def test_a_good_answer_is_counted_with_its_age_and_terminal(readers: Readers) -> None:
    figures = judged(readers, answer())
    assert figures == replace(
        Figures(1.0),
        latencies_s=[1.0],
        ages_s=[0.5],
        turns=1,
        placed=defaultdict(set, {"t-1": {0}}),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"login": 701},
        {"server": "B-Server"},
        {"balance": 10_001.0},
        {"account_id": "account-1"},
        {"positions": [{"ticket": 3}]},
        {"positions": []},
        {"positions": None},
    ],
)
def test_an_answer_of_another_account_is_wrong(readers: Readers, changes: dict[str, Any]) -> None:
    figures = judged(readers, answer(**changes))
    assert (figures.wrong, figures.answers) == (1, 0)


def test_an_answer_older_than_asked_for_is_stale(readers: Readers) -> None:
    old = NOW - dt.timedelta(milliseconds=SECOND_MS + MAX_AGE_MS + 100)
    figures = judged(readers, answer(as_of=old.isoformat(), age_ms=2500))
    assert (figures.stale, figures.misdated) == (1, 0)


@pytest.mark.parametrize("age_ms", [0, 1500])
def test_an_age_that_is_not_its_own_is_seen(readers: Readers, age_ms: int) -> None:
    # It was taken just before it was sent for: given before that, or after it was received.
    taken = NOW - dt.timedelta(milliseconds=SECOND_MS + 100)
    figures = judged(readers, answer(as_of=taken.isoformat(), age_ms=age_ms))
    assert (figures.stale, figures.misdated) == (0, 1)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (503, {"code": "SERVICE_OVERLOADED"}, "SERVICE_OVERLOADED"),
        (502, "bad gateway", "502 of another shape"),
        (0, b"connection broken", "connection broken"),
        (200, {"account": 5}, "200 of another shape"),
    ],
)
def test_what_is_no_answer_is_counted_by_its_code(
    readers: Readers, status: int, body: Any, code: str
) -> None:
    figures = judged(readers, body, status)
    assert (figures.failed, figures.answers) == ({code: 1}, 0)


def test_placement_is_told_only_when_every_account_was_on_one_terminal() -> None:
    first, second = Figures(1.0), Figures(1.0)
    first.placed["t-1"] |= {0, 1}
    second.placed["t-2"] |= {2}
    assert fully_placed([first, second], 3) == [[0, 1], [2]]
    assert fully_placed([first, second], 4) is None
    second.placed["t-2"] |= {0}
    assert fully_placed([first, second], 3) is None


def measured(*, age_s: float, late_s: float, per_s: int, wrong: int = 0) -> Measured:
    found = Measured((SIZE,))
    for kind in (ALWAYS, WHEN_NEEDED, ROUND_ROBIN):
        per_naive_s = 10.0 if kind == WHEN_NEEDED else 1.0
        nothing = np.zeros(0)
        found.baselines[SIZE, kind] = Baseline(per_naive_s, nothing, nothing, 80.0, 0)
    for rate in RATES:
        figures = Figures(1.0, latencies_s=[late_s] * per_s, ages_s=[age_s] * per_s, wrong=wrong)
        figures.counted = {SWITCHES: 1.0, LOGINS: 1.0, CPU_S: 1.0}
        found.runs.append(Run(SIZE, ORDINARY, rate, figures))
    return found


def test_the_verdict_follows_the_figures() -> None:
    good = measured(age_s=SIZE.bound_s * 1.2, late_s=0.1, per_s=100)
    assert "NOT" not in verdict_of(good)
    assert "10 times the answers" in verdict_of(good)
    table = table_of(good)
    assert {len(row) for row in table.rows} == {len(table.columns)}


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (measured(age_s=SIZE.bound_s * 1.4, late_s=0.1, per_s=100), "NOT as asked for: within"),
        (measured(age_s=1, late_s=0.3, per_s=100), "NOT as asked for: under"),
        (measured(age_s=1, late_s=0.1, per_s=99), "NOT as asked for: at least"),
        (measured(age_s=1, late_s=0.1, per_s=0), "NOT as asked for: under"),
        (measured(age_s=1, late_s=0.1, per_s=0), "NOT as asked for: within"),
        (measured(age_s=1, late_s=0.1, per_s=100, wrong=1), "NOT as asked for: none"),
    ],
)
def test_the_verdict_tells_of_each_promise_that_is_broken(bad: Measured, told: str) -> None:
    assert told in verdict_of(bad)
