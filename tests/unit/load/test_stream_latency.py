"""Latencies are those of a server that is known; what is beyond merging is never too little."""

import numpy as np
import pytest
from tests.load.stream_client import HEAD_BYTES, Got
from tests.load.stream_latency import (
    SPACING_MS,
    Latencies,
    Schedule,
    Told,
    held_in,
    joined,
    latencies,
    news,
    read_head,
    schedule_of,
    skipped_in,
    told_by,
)

from mt5kit.domain.instants import iso_utc
from terminal_sim.market.prices import Market
from websocket_pool.messages import Place, encode

SEED = 20261120
# Any Tuesday noon: markets are open.
NOON_MS = 1_795_521_600_000
HELD = frozenset({("EURUSD", "bid"), ("BTCUSD", "ask"), ("XAUUSD", "bid")})


def got(kind: str, seq: int, ts_ms: int, at_ms: float = 0.0, epoch: int = 1) -> Got:
    head = (
        f'{{"type":"{kind}","account_id":"account-1","epoch":{epoch},"seq":{seq},'
        f'"ts":"{iso_utc(ts_ms)}","data":{{}}}}'
    ).encode()
    return Got(at_ms / 1000, len(head), head)


def test_heads_are_read_as_the_pool_writes_them() -> None:
    place = Place("a" * 64, 1_795_521_600_000_000, 123_456)
    made = encode("account_update", place, NOON_MS + 7, {"account": {}})
    head = read_head(made.text.encode()[:HEAD_BYTES])
    assert head == (place.epoch, place.seq, "account_update", NOON_MS + 7)


def test_what_is_no_envelope_is_refused() -> None:
    with pytest.raises(ValueError, match="no envelope"):
        read_head(b'{"seq":1,"type":"status"}')


def test_a_buyer_looks_at_the_bid_and_a_seller_at_the_ask() -> None:
    snapshot = b'{"data":{"positions":[{"symbol":"EURUSD","type":0},{"symbol":"EURUSD","type":1}]}}'
    assert held_in(snapshot) == {("EURUSD", "bid"), ("EURUSD", "ask")}


def test_a_message_is_due_a_slot_after_the_earliest_instant_of_the_one_before() -> None:
    messages = [
        got("position_update", 1, 1000),
        got("account_update", 2, 1020),
        got("position_update", 3, 1500),
        got("status", 4, 1510),
        got("account_update", 5, 1600),
        # Another client got the same, and a snapshot that has no slot.
        got("account_update", 2, 1020),
        got("snapshot", 5, 1600),
    ]
    schedule = schedule_of(messages)
    assert schedule.looks.tolist() == [1000, 1020, 1500, 1600]
    # The second cannot have been sent before 1100; the status took a slot and tells of no look.
    assert schedule.due.tolist() == [-np.inf, 1100, 1200, 1700]


def test_an_epoch_begins_without_a_slot_taken() -> None:
    schedule = schedule_of([got("account_update", 9, 1000), got("account_update", 1, 1050, 0, 2)])
    assert schedule.due.tolist() == [-np.inf, -np.inf]


def test_numbers_nobody_got_have_taken_their_slots() -> None:
    schedule = schedule_of([got("account_update", seq, 1000) for seq in (1, 4, 5)])
    assert schedule.due.tolist() == [-np.inf, 1100, 1400]


def test_a_change_counts_until_the_first_message_whose_look_came_after_it() -> None:
    schedule = Schedule(np.array([1000.0, 1150.0]), np.array([-np.inf, 1130.0]))
    told = [Told("position_update", 1000, 1004), Told("account_update", 1150, 1160)]
    result = latencies(np.array([1000.0, 1010.0, 1140.0]), schedule, [told], 2000)
    assert result.total.tolist() == [4, 150, 20]
    # The second waited 120 ms for a slot, of which 100 are the contract's.
    assert result.merging.tolist() == [0, 100, 0]
    assert result.beyond.tolist() == [4, 50, 20]
    assert result.missing == 0


def test_what_never_came_counts_until_the_end() -> None:
    schedule = Schedule(np.array([1000.0, 1100.0]), np.array([0.0, 0.0]))
    told = [[Told("account_update", 1000, 1003)], []]
    result = latencies(np.array([999.0, 1050.0]), schedule, told, 9000)
    assert result.total.tolist() == [4, 7950, 8001, 7950]
    assert result.missing == 3
    assert joined([result, result]).missing == 6


def test_skipped_numbers_are_counted_and_a_new_epoch_skips_none() -> None:
    one = [got("account_update", 1, 1000), got("snapshot", 4, 1000), got("account_update", 5, 1000)]
    other = [got("account_update", 7, 1000), got("status", 1, 1000, 0, 2)]
    assert skipped_in([one, other]) == 3


def test_only_what_tells_of_a_look_is_told() -> None:
    kinds = ("heartbeat", "account_update", "status", "snapshot", "order_update")
    told = told_by(got(kind, 1, 1000, 1005.0) for kind in kinds)
    assert [one.kind for one in told] == ["account_update", "snapshot", "order_update"]
    assert told[0].look_ms == 1000
    assert told[0].at_ms == pytest.approx(1005)


def test_a_price_that_is_back_before_anybody_was_told_is_no_news() -> None:
    market = Market(1)
    ticks = market.ticks("EURUSD", NOON_MS, NOON_MS + 600_000)
    bid, at = ticks["bid"], ticks["time_msc"]
    back = next(n for n in range(1, len(bid) - 1) if bid[n - 1] == bid[n + 1] != bid[n])
    held = frozenset({("EURUSD", "bid")})
    before, between, after = at[back] - 1, at[back], at[back + 1]
    assert news(market, held, np.array([before, after], float)).tolist() == []
    seen = news(market, held, np.array([before, between, after], float)).tolist()
    assert seen == [at[back], at[back + 1]]


class KnownServer:
    """Looks when it likes and sends when it may, each with a delay of its own."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        market = Market(1)
        self.looks: list[float] = []
        self.sent: list[float] = []
        now, sent, told = float(NOON_MS), -np.inf, None
        while now < NOON_MS + 5_000:
            now += rng.integers(15, 40)
            shown = tuple(
                market.quotes(symbol, np.array([int(now)]))[side][0] for symbol, side in HELD
            )
            if shown != told:
                # Late for the slot by anything, and sometimes by much.
                sent = max(now + rng.exponential(3), sent + SPACING_MS) + rng.exponential(5)
                told = shown
                self.looks.append(now)
                self.sent.append(sent)
                now = max(now, sent)
        self.received = [at + rng.exponential(10) for at in self.sent]

    def judged(self) -> tuple[np.ndarray, Latencies]:
        messages = [
            got("account_update", number, int(look), at)
            for number, (look, at) in enumerate(zip(self.looks, self.received, strict=True))
        ]
        schedule = schedule_of(messages)
        changes = news(Market(1), HELD, schedule.looks)
        return changes, latencies(changes, schedule, [told_by(messages)], self.received[-1])


@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_what_is_beyond_merging_is_never_less_than_it_was(seed: int) -> None:
    server = KnownServer(seed)
    changes, result = server.judged()
    assert changes.size > 20, f"seed {seed}"
    teller = np.searchsorted(server.looks, changes)
    before, received = np.array(server.sent)[teller - 1], np.array(server.received)[teller]
    assert np.allclose(result.total, received - changes, atol=0.01), f"seed {seed}"
    truly_due = np.maximum(changes, before + SPACING_MS)
    assert np.all(result.beyond >= received - truly_due - 0.01), f"seed {seed}"
    assert np.all(result.merging <= SPACING_MS), f"seed {seed}"
    assert np.all(result.beyond >= 0), f"seed {seed}"
