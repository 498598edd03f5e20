"""Rate limits: a second's worth at once, then the rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_pool.limits import MOST_CALLERS, RateLimiter
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
