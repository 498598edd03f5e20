"""The table of account sessions, and what it says of what was promised."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tests.load.figures import Table
from tests.load.session_plan import (
    ALWAYS,
    NAIVE_RATE,
    ORDINARY,
    RATES,
    REPLICAS,
    ROUND_ROBIN,
    SEED,
    SWITCH_S,
    WHEN_NEEDED,
    Measured,
    Size,
)
from tests.load.session_reads import CPU_S, LOGINS, SWITCHES, Figures, fully_placed
from tests.load.zipf import EXPONENT

# Issue 4.
TIMES_NAIVE, TIMES_BOUND, P95_MS = 10, 1.3, 200
NONE = "-"
COLUMNS = (
    "sessions", "what", "asked/s", "answered/s", "p50 ms", "p95 ms", "p99 ms", "mean age s",
    "age p50 / p95 / max s", "switches/min", "logins/min", "by a turn", "cores",
    "not answered",
)  # fmt: skip
KINDS = {
    ALWAYS: "(a) a login for each request",
    WHEN_NEEDED: "(a) a login when another account is in",
    ROUND_ROBIN: "(b) round-robin refresh",
}


def table_of(measured: Measured) -> Table:
    """Everything that was measured, size after size."""
    sizes = " and ".join(f"{size.accounts} over {size.terminals}" for size in measured.sizes)
    return Table(
        "Account sessions: many accounts on few terminals",
        f"{sizes} simulated terminals at {SWITCH_S} s per login, {REPLICAS} API replicas, readers"
        f" Zipf({EXPONENT})-distributed over the accounts (seed {SEED}). Requests come at their own"
        " pace (Poisson) through our own client, two reads of the account for each snapshot;"
        " latencies count from when a request was due, so that waiting for the server to catch up"
        " is in them. Ages are those that answers tell, requests are their weights. Each row is"
        " measured after a warm-up; limits of keys and accounts and, but for the row that names"
        " it, the login budget are out of the way. Beside ours: (a) a login for each request by"
        " mt5linux on the terminal with the shortest queue, and the same but for requests whose"
        " account is the last of a queue already (both at"
        f" {NAIVE_RATE:.0f} requests/s, which they do not keep up with, so their latencies only"
        " grow); (b) every terminal logging its accounts in by turns; (c) the least mean age that"
        " refreshing alone can give, (Σ√pᵢ)²/2C.",
        COLUMNS,
        [row for size in measured.sizes for row in _rows(measured, size)],
        verdict_of(measured),
    )


def verdict_of(measured: Measured) -> str:
    """What was promised, beside what was measured."""
    sentences = []
    for size in measured.sizes:
        runs = [measured.ordinary(size, rate) for rate in RATES]
        times = runs[-1].per_s / measured.naive_per_s(size)
        ages = [_mean(each.ages()) / size.bound_s for each in runs]
        late = [_quantiles(each.latencies() * 1000)[1] for each in runs]
        at = " and ".join(f"{rate:.0f}" for rate in RATES)
        sentences.append(
            f"{size}, at {at} requests/s: {times:.0f} times the answers of the better of (a)"
            f" ({_judged(times >= TIMES_NAIVE)}: at least {TIMES_NAIVE}), mean age"
            f" {' and '.join(f'{age:.2f}' for age in ages)} times the bound"
            f" ({_judged(all(age <= TIMES_BOUND for age in ages))}: within {TIMES_BOUND}), p95"
            f" {' and '.join(f'{ms:.0f}' for ms in late)} ms"
            f" ({_judged(all(ms < P95_MS for ms in late))}: under {P95_MS})."
        )
    right, wrong, stale, misdated = (
        sum(getattr(run.figures, name) for run in measured.runs)
        for name in ("answers", "wrong", "stale", "misdated")
    )
    wrong += sum(each.wrong for each in measured.baselines.values())
    sentences.append(
        f"Of {right + wrong} answers {wrong} were of another account (login, server, balance,"
        f" positions), {stale} older than asked for and {misdated} told another age than their"
        f" own ({_judged(not (wrong or stale or misdated))}: none)."
    )
    return " ".join(sentences)


def _judged(kept: bool) -> str:
    return "as asked for" if kept else "NOT as asked for"


def _rows(measured: Measured, size: Size) -> Iterator[tuple[str, ...]]:
    for kind, title in KINDS.items():
        base = measured.baselines[size, kind]
        yield (
            str(size), title, f"{NAIVE_RATE:.0f}", f"{base.per_s:.1f}",
            *_latencies(base.latencies_s), *_ages(base.ages_s),
            NONE, f"{base.logins_per_min:.0f}", NONE, NONE, NONE,
        )  # fmt: skip
    runs = [run for run in measured.runs if run.size == size]
    bounds = [("(c) the bound", size.bound_s)]
    ordinary = [run.figures for run in runs if run.title == ORDINARY]
    placed = fully_placed(ordinary, size.accounts)
    if placed is not None:
        bound_s = size.demand.placed_bound_s(placed, SWITCH_S)
        bounds.append(("(c) the bound of accounts placed as ours were", bound_s))
    for title, bound_s in bounds:
        yield (str(size), title, *[NONE] * 5, f"{bound_s:.2f}", *[NONE] * 6)
    for run in runs:
        found = run.figures
        yield (
            str(size), f"ours, {run.title}", f"{run.rate:.0f}", f"{found.per_s:.1f}",
            *_latencies(found.latencies()), *_ages(found.ages()),
            f"{found.per_min(SWITCHES):.0f}", f"{found.per_min(LOGINS):.0f}",
            f"{found.turns / max(found.answers, 1):.1%}",
            f"{found.counted[CPU_S] / found.seconds:.2f}", _failures(found),
        )  # fmt: skip


def _latencies(seconds: NDArray[np.float64]) -> tuple[str, ...]:
    if not len(seconds):
        return (NONE,) * 3
    return tuple(f"{value:.1f}" for value in _quantiles(seconds * 1000))


def _ages(seconds: NDArray[np.float64]) -> tuple[str, str]:
    if not len(seconds):
        return NONE, NONE
    p50, p95, _ = _quantiles(seconds)
    return f"{np.mean(seconds):.2f}", f"{p50:.2f} / {p95:.1f} / {np.max(seconds):.1f}"


def _mean(values: NDArray[np.float64]) -> float:
    """NaN of nothing, which keeps no promise."""
    return float(np.mean(values)) if len(values) else float("nan")


def _quantiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """p50, p95 and p99; likewise."""
    if not len(values):
        return (float("nan"),) * 3
    p50, p95, p99 = np.quantile(values, [0.5, 0.95, 0.99])
    return float(p50), float(p95), float(p99)


def _failures(figures: Figures) -> str:
    total = sum(figures.failed.values())
    if not total:
        return "none"
    codes = ", ".join(f"{count} {code}" for code, count in figures.failed.most_common())
    return f"{total / (total + figures.answers):.1%}: {codes}"
