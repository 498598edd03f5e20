import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from mt5kit.telemetry.bulk_histogram import BulkHistogram
from mt5kit.telemetry.stream_metrics import DELIVERY_BUCKETS_S

# Sums of these are exact in any order.
exact = st.integers(0, 1 << 16).map(lambda number: number / 1024)


def exposed(registry: CollectorRegistry) -> list[bytes]:
    """What is scraped, without the instant of creation: our services do not show it either."""
    return [line for line in generate_latest(registry).splitlines() if b"_created" not in line]


@given(seen=st.lists(st.tuples(exact | st.sampled_from([1, 2, 5, 30]), st.integers(0, 9))))
def test_many_at_once_are_exposed_as_one_by_one(seen: list[tuple[float, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    bulk = BulkHistogram("late_seconds", "How late", DELIVERY_BUCKETS_S, ours)
    single = Histogram("late_seconds", "How late", buckets=DELIVERY_BUCKETS_S, registry=theirs)
    for value, times in seen:
        bulk.observe(value, times)
        for _ in range(times):
            single.observe(value)
    assert exposed(ours) == exposed(theirs)


@pytest.mark.parametrize("bound", DELIVERY_BUCKETS_S)
def test_a_bound_belongs_to_its_bucket(bound: float) -> None:
    registry = CollectorRegistry()
    BulkHistogram("late_seconds", "How late", DELIVERY_BUCKETS_S, registry).observe(bound, 3)
    counts = {
        one: registry.get_sample_value("late_seconds_bucket", {"le": str(float(one))})
        for one in DELIVERY_BUCKETS_S
    }
    assert counts == {one: 3 if one >= bound else 0 for one in DELIVERY_BUCKETS_S}


def test_a_name_is_taken_once() -> None:
    registry = CollectorRegistry()
    BulkHistogram("late_seconds", "How late", (1,), registry)
    with pytest.raises(ValueError, match="late_seconds"):
        Histogram("late_seconds", "How late", registry=registry)
