import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_stack.scaling import ScaleRefused, steps
from swarm_stack.sizes import Sizes
from swarm_stack.variables import POOLS

SIZES = Sizes.read()
PRESENT = {"api-pool": 3, "mt5-api": 3, "websocket-pool": 2, "mt5-stream": 2, "mt5-market": 0}


def test_a_growing_pool_gets_terminals_and_replicas_together() -> None:
    assert steps("api-pool", PRESENT, 5, SIZES) == [{"mt5-api": 5, "api-pool": 5}]


def test_of_a_shrinking_pool_the_terminals_leave_first() -> None:
    assert steps("websocket-pool", PRESENT, 1, SIZES) == [{"mt5-stream": 1}, {"websocket-pool": 1}]


@given(
    st.sampled_from([*POOLS, *POOLS.values()]),
    st.integers(1, 10),
    st.integers(1, 10),
    st.integers(1, 10),
)
def test_a_pool_ends_with_as_many_terminals_as_replicas_and_is_never_short_of_replicas(
    service: str, wanted: int, replicas: int, terminals: int
) -> None:
    pool = next(pool for pool in POOLS if service in {pool, POOLS[pool]})
    counts = {**PRESENT, pool: replicas, POOLS[pool]: terminals}
    for step in steps(service, counts, wanted, SIZES):
        leaving = any(step[name] < counts[name] for name in step if name == POOLS[pool])
        assert not (leaving and step.get(pool, counts[pool]) < counts[pool])
        counts |= step
    assert counts[pool] == counts[POOLS[pool]] == wanted


def test_market_terminals_scale_by_themselves_and_to_none() -> None:
    assert steps("mt5-market", PRESENT | {"mt5-market": 3}, 0, SIZES) == [{"mt5-market": 0}]


@pytest.mark.parametrize(
    ("service", "wanted", "said"),
    [
        ("redis", 2, "exactly one replica"),
        ("nowhere", 2, "what can be scaled: api-pool"),
        ("api-pool", 0, "1 to 20"),
        ("api-pool", 21, "1 to 20"),
        ("mt5-stream", 11, "1 to 10"),
        ("mt5-market", 16, "0 to 15"),
    ],
)
def test_what_does_not_scale_is_refused_with_what_does(
    service: str, wanted: int, said: str
) -> None:
    with pytest.raises(ScaleRefused, match=said):
        steps(service, PRESENT, wanted, SIZES)


def test_a_stack_that_does_not_run_is_not_scaled() -> None:
    with pytest.raises(ScaleRefused, match="make deploy"):
        steps("api-pool", {}, 3, SIZES)
