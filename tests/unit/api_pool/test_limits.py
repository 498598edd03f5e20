"""Rate limits: a second's worth at once, then the rate; shares of it, replica by replica."""

from bisect import bisect_left
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_pool.limits import MOST_CALLERS, MOST_DEMANDS, RateLimiter
from mt5kit.errors import RateLimited


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    st.integers(min_value=1, max_value=50),
    st.lists(st.floats(min_value=0, max_value=0.5), min_size=1, max_size=200),
)
def test_no_window_sees_more_than_its_share(rate: int, pauses: list[float]) -> None:
    clock = Clock()
    limiter = RateLimiter("key", rate, clock)
    admitted: list[float] = []
    for pause in pauses:
        clock.now += pause
        try:
            limiter.admit("a")
        except RateLimited:
            continue
        admitted.append(clock.now)
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            span = admitted[last] - start
            assert last - first + 1 <= rate * (span + 1) + 1


def test_the_wait_it_names_is_the_wait_it_takes() -> None:
    clock = Clock()
    limiter = RateLimiter("account", 4, clock)
    for _ in range(4):
        limiter.admit("a")
    with pytest.raises(RateLimited) as refused:
        limiter.admit("a")
    assert refused.value.retry_after_s
    limiter.admit("b")
    clock.now += refused.value.retry_after_s + 0.001
    limiter.admit("a")


def test_a_rate_below_one_lets_the_first_through() -> None:
    clock = Clock()
    limiter = RateLimiter("key", 0.5, clock)
    limiter.admit("a")
    with pytest.raises(RateLimited):
        limiter.admit("a")
    clock.now += 2.001
    limiter.admit("a")


def test_it_forgets_the_callers_idle_longest() -> None:
    limiter = RateLimiter("account", 1, Clock())
    for caller in range(MOST_CALLERS + 5):
        limiter.admit(str(caller))
    limiter.admit("0")
    with pytest.raises(RateLimited):
        limiter.admit(str(MOST_CALLERS))


def admits(limiter: RateLimiter, caller: str) -> bool:
    try:
        limiter.admit(caller)
    except RateLimited:
        return False
    return True


@given(st.integers(min_value=0, max_value=2**32), st.integers(min_value=1, max_value=6))
def test_shares_that_sum_to_the_rate_admit_no_more_than_rate_and_burst(
    seed: int, replicas: int
) -> None:
    random = Random(seed)
    rate = random.choice((8, 20, 50))
    clock = Clock()
    limiters = [RateLimiter("key", rate, clock) for _ in range(replicas)]
    for limiter in limiters:
        limiter.set_default_share(rate / replicas)
    admitted: list[float] = []
    for _ in range(4):
        # Some second's shares: what one replica loses another gains, in the midst of it all.
        weights = [random.random() ** 4 + 0.2 for _ in limiters]
        for limiter, weight in zip(limiters, weights, strict=True):
            limiter.set_shares({"a": rate * weight / sum(weights)})
        for _ in range(random.randrange(1, 150)):
            clock.now += random.choice((0.0, 0.001, 0.02))
            if admits(random.choice(limiters), "a"):
                admitted.append(clock.now)
        if random.random() < 0.3:
            clock.now += random.random()
    for first, start in enumerate(admitted):
        within = bisect_left(admitted, start + 1) - first
        # Requests are whole: each replica rounds its own share of rate and burst up to one.
        assert within <= 2 * rate + replicas, seed


def test_a_share_that_moves_brings_no_second_burst() -> None:
    clock = Clock()
    one, other = (RateLimiter("key", 20, clock) for _ in range(2))
    one.set_shares({"a": 19.9})
    other.set_shares({"a": 0.1})
    for limiter in (one, other):
        limiter.set_default_share(10)
    assert sum(admits(one, "a") for _ in range(100)) == 19
    assert sum(admits(other, "a") for _ in range(100)) == 1
    one.set_shares({"a": 0.1})
    other.set_shares({"a": 19.9})
    assert not any(admits(limiter, "a") for limiter in (one, other) for _ in range(50))
    clock.now += 1
    assert sum(admits(other, "a") for _ in range(100)) == 19


def test_who_has_no_share_has_the_default_one() -> None:
    limiter = RateLimiter("account", 20, Clock())
    assert limiter.default_share == 20
    limiter.set_shares({"b": 3})
    limiter.set_default_share(5)
    assert sum(admits(limiter, "a") for _ in range(100)) == 5
    assert sum(admits(limiter, "b") for _ in range(100)) == 3
    limiter.set_shares({})
    clock = limiter._clock
    assert isinstance(clock, Clock)
    clock.now += 1
    assert sum(admits(limiter, "b") for _ in range(100)) == 5


def test_demands_count_the_refused_and_begin_anew() -> None:
    clock = Clock()
    limiter = RateLimiter("key", 1, clock)
    for caller, times in (("a", 3), ("b", 40)):
        for _ in range(times):
            admits(limiter, caller)
    clock.now += 2
    assert list(limiter.demands().items()) == [("b", 20), ("a", 1.5)]
    clock.now += 1
    assert limiter.demands() == {}
    for number in range(MOST_DEMANDS + 10):
        admits(limiter, f"c-{number}")
    clock.now += 1
    assert len(limiter.demands()) == MOST_DEMANDS


def test_who_is_refused_is_not_forgotten_for_it() -> None:
    limiter = RateLimiter("account", 1, Clock())
    assert admits(limiter, "greedy")
    for caller in range(MOST_CALLERS + 5):
        admits(limiter, str(caller))
        if caller % 1000 == 0:
            assert not admits(limiter, "greedy")
