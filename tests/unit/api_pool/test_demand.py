"""Reads are counted by terminal, and fade."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_pool import demand as demand_module
from api_pool.demand import ACTIVE_S, RATE_S, DemandBook, ReadCounter


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def test_counts_are_taken_once_by_terminal() -> None:
    counter = ReadCounter()
    for terminal_id, account_id in (("t-1", "a"), ("t-1", "a"), ("t-2", "a"), ("t-1", "b")):
        counter.count(terminal_id, account_id)
    assert counter.take() == {"t-1": {"a": 2, "b": 1}, "t-2": {"a": 1}}
    assert counter.take() == {}


def test_no_more_accounts_are_counted_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand_module, "MOST_COUNTED", 2)
    counter = ReadCounter()
    for account_id in ("a", "b", "c", "a"):
        counter.count("t-1", account_id)
    assert counter.take() == {"t-1": {"a": 2, "b": 1}}


def test_a_steady_reader_is_told_by_its_rate() -> None:
    clock = Clock()
    book = DemandBook(clock)
    for _ in range(600):
        book.add({"a": 3})
        clock.now += 1
    assert book.rates()["a"] == pytest.approx(3, rel=0.02)


def test_what_is_not_read_any_more_fades_and_is_forgotten() -> None:
    clock = Clock()
    book = DemandBook(clock)
    book.add({"a": 60, "b": 60})
    assert book.rates() == {"a": 1.0, "b": 1.0}
    clock.now += RATE_S
    book.add({"b": 60})
    rates = book.rates()
    assert rates["a"] == pytest.approx(1 / math.e)
    assert rates["b"] == pytest.approx(1 + 1 / math.e)
    clock.now += ACTIVE_S - RATE_S
    assert set(book.rates()) == {"a", "b"}
    clock.now += RATE_S / 2
    assert set(book.rates()) == {"b"}
    assert book.keep(["c"]) == ("b",)
    assert book.rates() == {}
    clock.now += 1
    book.add({"b": 60})
    assert book.rates() == {"b": 1.0}


steps = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), min_size=1, max_size=30)


@given(steps)
def test_the_rate_is_the_sum_of_what_every_read_has_left(reads: list[tuple[float, int]]) -> None:
    clock = Clock()
    book = DemandBook(clock)
    at: list[tuple[float, int]] = []
    for pause_s, times in reads:
        clock.now += pause_s
        book.add({"a": times})
        at.append((clock.now, times))
    expected = sum(times * math.exp((then - clock.now) / RATE_S) / RATE_S for then, times in at)
    assert book.rates()["a"] == pytest.approx(expected)
