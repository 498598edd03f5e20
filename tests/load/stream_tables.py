"""What was measured of streams, as tables."""

from collections.abc import Sequence
from typing import Final

from tests.load.figures import Table, quantiles
from tests.load.stream_fit import Shares, shares_of
from tests.load.stream_latency import SPACING_MS, Floats
from tests.load.stream_runs import KNEE_MS, SETTLE_S, Broadcast, Measured, Run
from tests.load.stream_stage import OTHER, OWNER, Costs

COMMAND: Final = "`python -m tests.load streams`"
ALLOWED_MS: Final = 60.0
# Of what a bare broadcast delivers for the same processor time.
PROMISED: Final = 0.6
# A machine this little idle is full; a replica that has this much of a core is, too.
FULL_MACHINE, ONE_CORE = 0.05, 0.9


def tables_of(measured: Measured) -> list[Table]:
    """Latencies, costs, the knee, and the crowd that waits."""
    return [_latencies(measured), _costs(measured), _knee(measured), _idle(measured)]


def _latencies(measured: Measured) -> Table:
    one, two, size = measured.one, measured.two, measured.size
    rows = [*_latency_rows("1 replica", one), *_latency_rows("2 replicas", two)]
    for place, name in ((OWNER, "at the account's owner"), (OTHER, "at the other, through Redis")):
        part = two.delivered.by_place.get(place)
        if part is not None:
            rows.append((f"2 replicas: change → client {name}", *_row(part.total)))
            rows.append((f"2 replicas: beyond merging {name}", *_row(part.beyond)))
    worst = max(quantiles(run.delivered.all.beyond.tolist())[1] for run in (one, two))
    missing = one.delivered.all.missing + two.delivered.all.missing
    skipped = one.delivered.skipped + two.delivered.skipped
    counted = one.delivered.all.total.size + two.delivered.all.total.size
    return Table(
        "Streams: from a price change in the terminal to the frame in a client",
        f"{COMMAND}: {size.moving} accounts of 5 positions each, prices moving, {size.each}"
        f" watchers each ({one.costs.watchers} connections), {size.seconds:.0f} s at one WebSocket"
        " replica and as long at two, half of each account's watchers at the replica that polls"
        " it and half at the other. When prices change is known to the millisecond (the simulated"
        " market is a function of time); a change counts once for each watcher, until the receipt"
        " of the first message whose look came at or after it. State messages of an account are"
        f" {SPACING_MS:.0f} ms apart by contract (ADR 0003), so that message was due at the"
        f" change, or {SPACING_MS:.0f} ms after the one before it was sent. Merging is the time"
        f" from the change until then, {SPACING_MS:.0f} ms at most; when the one before was sent"
        " is taken at the earliest that its look and its own predecessor allow, so what is beyond"
        " merging is never told too small. Positions and account take turns: a change is in one"
        " of them first and in the other next.",
        ("ms", "p50", "p95", "p99"),
        rows,
        f"p95 is {worst:.0f} ms beyond merging at worst (asked for: under {ALLOWED_MS:.0f} ms)."
        f" Of {counted} receipts {missing} did not come in time, {skipped} messages were replaced"
        f" by a snapshot. The clients took {max(one.costs.client_core, two.costs.client_core):.0%}"
        " of a core and were late themselves by"
        f" {max(one.costs.client_late_ms, two.costs.client_late_ms):.1f} ms (p95); the machine"
        f" was idle for {one.costs.idle:.0%} and {two.costs.idle:.0%}.",
    )


def _latency_rows(where: str, run: Run) -> list[tuple[str, ...]]:
    every = run.delivered.all
    return [
        (f"{where}: price change → first state message that tells it", *_row(every.total)),
        (f"{where}: of it merging", *_row(every.merging)),
        (f"{where}: of it beyond merging", *_row(every.beyond)),
        (f"{where}: change → next `position_update`", *_row(run.delivered.positions)),
        (f"{where}: a message's look → client", *_row(run.delivered.path)),
    ]


def _row(values: Floats) -> tuple[str, str, str]:
    p50, p95, p99 = quantiles(values.tolist())
    return f"{p50:.1f}", f"{p95:.1f}", f"{p99:.1f}"


def _costs(measured: Measured) -> Table:
    one, single, none = measured.one.costs, measured.single.costs, measured.unwatched
    rows = [
        _cost_row("1 replica, nobody watches", none),
        _cost_row("1 replica, 1 watcher an account", single),
        _cost_row(f"1 replica, {measured.size.each} watchers an account", one),
        _cost_row(f"2 replicas, {measured.size.each} watchers an account", measured.two.costs),
    ]
    return Table(
        "Streams: what the replicas take",
        f"{COMMAND}: processor time of the replicas' processes (all threads, /proc) in the runs"
        " above, and with fewer watchers. Without any, what is left is the owner's work: looks,"
        " diffs, encoding and Redis. Waiting is the time a replica's threads were ready to run"
        " and others had the processors, in seconds a second. Memory is PSS, the last minute's"
        " messages of every account in it.",
        (
            "",
            "messages delivered/s",
            "cores",
            "CPU ms per 1,000 delivered",
            "waiting for a core",
            "memory MB",
            "clients' core",
            "machine idle",
        ),
        rows,
        f"The owner's work takes {none.cores / measured.size.moving * 1000:.1f} ms of processor a"
        f" second and account when nobody watches. {_shares(measured)}",
    )


def _cost_row(what: str, costs: Costs) -> tuple[str, ...]:
    return (
        what,
        f"{costs.rate:,.0f}",
        f"{costs.cores:.2f}",
        f"{1e6 / costs.per_cpu_s:.1f}" if costs.deliveries else "-",
        f"{costs.waited_s / costs.seconds:.2f}",
        f"{costs.memory / 1e6:.1f}",
        f"{costs.client_core:.2f}",
        f"{costs.idle:.0%}",
    )


def _knee(measured: Measured) -> Table:
    knee, broadcast = measured.steps[measured.knee], measured.broadcast
    rows = [_step_row(each, measured.steps[each]) for each in sorted(measured.steps)]
    rows.append(_broadcast_row(measured.knee, broadcast))
    share = knee.costs.per_cpu_s / broadcast.costs.per_cpu_s
    kept = "kept" if share >= PROMISED else "not kept"
    return Table(
        "Streams: how many watchers a replica bears",
        f"{COMMAND}: one replica, {measured.size.moving} accounts, watchers doubled until it takes"
        f" more than {KNEE_MS:.0f} ms (p95) from a message's look to the client, or the clients are"
        f" full, then halved between; {measured.size.step_s:.0f} s a step, after {SETTLE_S:.0f} s."
        " p50 to p99 are from the price change to the client, so where terminals get too little of"
        " the machine to be looked at in time, that is in them and not the replica's."
        " Beside it the `websockets` library's own `broadcast()` (asyncio server on uvloop,"
        " uncompressed) of as many messages a second of the same sizes to as many connections of"
        " the same clients, while the terminals go on being polled; its p50 to p99 are from"
        " making a message to its receipt, and to be held against a replica's with merging and"
        " looking taken off.",
        (
            "watchers an account",
            "connections",
            "delivered/s",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "p95 beyond merging",
            "p95 look → client",
            "server's cores",
            "waiting for a core",
            "clients' core",
            "clients late, p95 ms",
            "machine idle",
            "delivered per CPU second",
            "enough?",
        ),
        rows,
        f"{_reach(measured)} For a second of its processor the replica delivers"
        f" {knee.costs.per_cpu_s:,.0f} messages, looks and Redis included, the bare broadcast"
        f" {broadcast.costs.per_cpu_s:,.0f}: {share:.0%} (promised: at least {PROMISED:.0%};"
        f" {kept}). {_alone(measured)}",
    )


def _fitted(measured: Measured) -> Shares | None:
    runs = [measured.single, *measured.steps.values()]
    return shares_of([run.costs for run in runs])


def _shares(measured: Measured) -> str:
    """What a message and a delivery take, if that can be told."""
    shares = _fitted(measured)
    if shares is None:
        return "What a delivery takes cannot be told from the noise of these runs."
    return (
        f"Fitted to all runs of one replica, making a message takes {shares.message_s * 1e6:.0f}"
        f" µs and delivering it {shares.delivery_s * 1e6:.1f} µs a client (the fit misses by"
        f" {shares.error:.0%})."
    )


def _alone(measured: Measured) -> str:
    """Deliveries by themselves beside the broadcast, which makes its messages from nothing."""
    shares = _fitted(measured)
    if shares is None:
        return "Deliveries by themselves cannot be told from the noise of these runs."
    alone = 1 / shares.delivery_s
    return (
        f"Deliveries by themselves, as fitted to all these runs: {alone:,.0f},"
        f" {alone / measured.broadcast.costs.per_cpu_s:.0%}."
    )


def _reach(measured: Measured) -> str:
    """How far the search came, and what ended it."""
    knee = measured.steps[measured.knee]
    in_time = [each for each, run in measured.steps.items() if run.breaks is None and not run.late]
    if knee.breaks is not None:
        return f"Even {measured.knee} watchers an account are too many: {knee.breaks}."
    text = f"{measured.knee} watchers an account ({knee.costs.watchers:,} connections) are borne"
    beyond = [each for each in measured.steps if each > measured.knee]
    if beyond:
        text += f", {min(beyond)} are not: {measured.steps[min(beyond)].breaks}"
    elif measured.broken:
        text += f"; then {measured.broken}"
    else:
        text += ", and no more were tried"
    if measured.refused:
        text += f"; {measured.refused} of those that came were turned away at first"
    text += f". From change to client it takes less than {KNEE_MS:.0f} ms (p95) up to"
    text += f" {max(in_time)}" if in_time else " none of them"
    ended = measured.steps[min(beyond)] if beyond else knee
    if ended.costs.idle < FULL_MACHINE and ended.costs.cores < ONE_CORE:
        text += (
            f"; the machine was full and left the replica {ended.costs.cores:.2f} of a core,"
            " so this is the machine's limit rather than the replica's"
        )
    return f"{text}."


def _step_row(each: int, run: Run) -> tuple[str, ...]:
    every, path = run.delivered.all, run.delivered.path
    beyond, seen = (_row(values)[1] for values in (every.beyond, path))
    enough = run.breaks or ("terminals looked at too late" if run.late else "yes")
    return (f"{each}", *_load(run.costs, every.total, (beyond, seen)), enough)


def _broadcast_row(each: int, broadcast: Broadcast) -> tuple[str, ...]:
    parts = ("-", _row(broadcast.path)[1])
    return (f"{each}, bare broadcast", *_load(broadcast.costs, broadcast.path, parts), "")


def _load(costs: Costs, values: Floats, parts: Sequence[str]) -> Sequence[str]:
    return (
        f"{costs.watchers:,}",
        f"{costs.rate:,.0f}",
        *_row(values),
        *parts,
        f"{costs.cores:.2f}",
        f"{costs.waited_s / costs.seconds:.2f}",
        f"{costs.client_core:.2f}",
        f"{costs.client_late_ms:.1f}",
        f"{costs.idle:.0%}",
        f"{costs.per_cpu_s:,.0f}",
    )


def _idle(measured: Measured) -> Table:
    few, many = measured.idle_before, measured.idle
    connections = many.watchers - few.watchers
    each = (many.memory - few.memory) / connections
    return Table(
        "Streams: connections that mostly wait",
        f"{COMMAND}: one replica, started anew, {many.accounts} accounts that hold nothing, so"
        f" that there are heartbeats and little else; {many.seconds:.0f} s. Memory is PSS; of a"
        " connection it is what the replica has more than with the connections of the first row.",
        ("connections", "messages delivered/s", "cores", "memory MB", "clients' core"),
        [
            (
                f"{costs.watchers:,}",
                f"{costs.rate:,.1f}",
                f"{costs.cores:.3f}",
                f"{costs.memory / 1e6:.1f}",
                f"{costs.client_core:.2f}",
            )
            for costs in (few, many)
        ],
        f"A waiting connection takes {each / 1000:.1f} kB and"
        f" {(many.cores - few.cores) / connections * 1e6:.0f} µs of processor a second.",
    )
