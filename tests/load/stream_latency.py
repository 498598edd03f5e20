"""From what clients got and what the market did to latencies. Pure.

When terminals' prices changed is known to the millisecond: the simulated market is a function of
time. A change is told by the first message whose look came at or after it. By contract the state
messages of an account are at least 100 ms apart, so that message was due at the change, or 100 ms
after the one before it was sent, whichever was later. When that one was sent no client knows;
it was not before its look, nor sooner than 100 ms after its own predecessor. That earliest
instant is taken, and no more than the contract's 100 ms are called merging (a change that the
terminal's look has just missed waits longer), so what is called beyond it is never too little.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from tests.load.stream_client import Got

from terminal_sim.market.prices import Market

Floats: TypeAlias = npt.NDArray[np.float64]
Held: TypeAlias = frozenset[tuple[str, str]]

SPACING_MS: Final = 100.0
# A symbol that has not moved for so long is not among those traded here.
BACK_MS: Final = 60_000
POSITIONS: Final = "position_update"
# What tells of a look. A status is made whenever there is one to be told.
TELLING: Final = frozenset({POSITIONS, "account_update", "order_update", "snapshot"})
NUMBERED: Final = frozenset({POSITIONS, "account_update", "order_update", "status"})
_HEAD: Final = re.compile(
    rb'{"type":"(\w+)","account_id":"[\w-]+","epoch":(\d+),"seq":(\d+),"ts":"([^"]+)"'
)


class Head(NamedTuple):
    """What a message says of itself; `ts_ms` in UTC epoch milliseconds."""

    epoch: int
    seq: int
    kind: str
    ts_ms: float


class Told(NamedTuple):
    """A message that tells of a look: when that was and when it came, UTC epoch milliseconds."""

    kind: str
    look_ms: float
    at_ms: float


@lru_cache(maxsize=1 << 16)
def read_head(head: bytes) -> Head:
    """The envelope of a message, from its beginning.

    Raises:
        ValueError: It is none of contracts §4, or in another order.
    """
    found = _HEAD.match(head)
    if found is None:
        raise ValueError(f"no envelope: {head[:80]!r}")
    ts_ms = datetime.fromisoformat(found[4].decode()).timestamp() * 1000
    return Head(int(found[2]), int(found[3]), found[1].decode(), round(ts_ms))


def told_by(got: Iterable[Got]) -> list[Told]:
    """The messages of a client that tell of looks."""
    heads = ((read_head(one.head), one.at_s) for one in got)
    return [
        Told(head.kind, head.ts_ms, at_s * 1000) for head, at_s in heads if head.kind in TELLING
    ]


def held_in(snapshot: bytes) -> Held:
    """Symbols of a snapshot's positions, each with the price it is valued at."""
    positions = msgspec.json.decode(snapshot)["data"]["positions"]
    return frozenset((one["symbol"], "ask" if one["type"] else "bid") for one in positions)


@dataclass(frozen=True)
class Schedule:
    """The messages of one account that tell of looks, whoever got them.

    Attributes:
        looks: Their looks, ascending, UTC epoch milliseconds.
        due: When each might be sent at the earliest, had there been something to tell.
    """

    looks: Floats
    due: Floats


def schedule_of(messages: Iterable[Got]) -> Schedule:
    """The schedule of an account, from what any of its clients got."""
    looks, due = [0.0], [0.0]
    before, sent_ms = Head(0, 0, "", 0.0), -np.inf
    for head in sorted({read_head(one.head) for one in messages}):
        if head.kind not in NUMBERED:
            continue
        if head.epoch != before.epoch:
            sent_ms = -np.inf
        free_ms = sent_ms + SPACING_MS
        sent_ms = max(head.ts_ms, sent_ms + SPACING_MS * (head.seq - before.seq))
        before = head
        if head.kind in TELLING:
            looks.append(max(looks[-1], head.ts_ms))
            due.append(free_ms)
    return Schedule(np.array(looks[1:]), np.array(due[1:]))


def news(market: Market, held: Held, looks: Floats) -> Floats:
    """Instants after the first look and up to the last at which a held price changed.

    A price that was back where it had been told before anybody was told is none.
    """
    instants: list[Floats] = [np.empty(0)]
    for symbol, side in sorted(held) if looks.size else ():
        ticks = market.ticks(symbol, int(looks[0]) - BACK_MS, int(looks[-1]) + 1)
        at, price = ticks["time_msc"].astype(np.float64), ticks[side]
        shown = price[np.searchsorted(at, looks, side="right") - 1]
        changed = at[np.flatnonzero(np.diff(price)) + 1]
        changed = changed[changed > looks[0]]
        teller = np.searchsorted(looks, changed)
        instants.append(changed[shown[teller] != shown[teller - 1]])
    return np.sort(np.concatenate(instants))


@dataclass(frozen=True)
class Latencies:
    """Milliseconds of each change and client, in the same order.

    Attributes:
        total: From the change to the client's receipt of the first message that tells it.
        merging: Of it, until that message was due: at most 100.
        missing: How many of them did not come while the recording lasted: they count as if they
            had come at its very end.
    """

    total: Floats
    merging: Floats
    missing: int

    @property
    def beyond(self) -> Floats:
        """What was not merging."""
        return self.total - self.merging


def latencies(
    changes: Floats, schedule: Schedule, clients: Iterable[Sequence[Told]], end_ms: float
) -> Latencies:
    """Of one account's changes at each of its clients.

    Args:
        changes: Instants, none after the schedule's last look.
        schedule: Of the account.
        clients: What each was told, in the order of its coming.
        end_ms: When the recording ended.
    """
    due = schedule.due[np.searchsorted(schedule.looks, changes)]
    waited = np.clip(due - changes, 0.0, SPACING_MS)
    totals, missing = [np.empty(0)], 0
    for told in clients:
        came = np.append(np.array([one.at_ms for one in told]), end_ms)
        looks = np.maximum.accumulate(np.array([one.look_ms for one in told]))
        first = np.searchsorted(looks, changes)
        missing += int(np.count_nonzero(first == len(told)))
        totals.append(came[first] - changes)
    total = np.concatenate(totals)
    # Who waits for the end does not wait for a slot any more.
    merging = np.minimum(np.tile(waited, len(totals) - 1), total)
    return Latencies(total, merging, missing)


def joined(parts: Sequence[Latencies]) -> Latencies:
    """Those of several accounts as one."""
    return Latencies(
        np.concatenate([part.total for part in parts]),
        np.concatenate([part.merging for part in parts]),
        sum(part.missing for part in parts),
    )


def skipped_in(clients: Iterable[Sequence[Got]]) -> int:
    """Numbers that clients were not told: a snapshot took their place, or nothing did."""
    skipped = 0
    for got in clients:
        heads = [head for one in got if (head := read_head(one.head)).kind in NUMBERED]
        skipped += sum(
            max(0, after.seq - before.seq - 1)
            for before, after in itertools.pairwise(heads)
            if after.epoch == before.epoch
        )
    return skipped
