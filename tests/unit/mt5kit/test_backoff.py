"""Back-off doubles, is capped, and never waits a full cap at once for everybody."""

import random

from hypothesis import given
from hypothesis import strategies as st

from mt5kit.backoff import Backoff


@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=100))
def test_delays_stay_between_half_and_all_of_a_capped_doubling(seed: int, failures: int) -> None:
    backoff = Backoff(first_s=0.1, cap_s=5.0, rng=random.Random(seed))
    for failure in range(failures):
        full = min(5.0, 0.1 * 2**failure)
        assert full / 2 <= backoff.next_s() <= full
    backoff.reset()
    assert backoff.next_s() <= 0.1
