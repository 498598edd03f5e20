"""A wall clock that is put forward and back beyond its rule."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from terminal_sim.broker.nights import Midnights, nights
from terminal_sim.broker.rollover import nights as charged
from terminal_sim.broker.rollover import rollovers_between
from terminal_sim.market.clocks import EET_US, WallClock

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# Two days before the clocks of the USA are put back in 2026.
START_MS = 1_793_512_800_000 - 2 * DAY_MS
BOUNDED = settings(max_examples=60)
MINUTES = st.integers(-1440, 1440).map(lambda minutes: minutes * 60_000)
INSTANTS = st.integers(START_MS, START_MS + 5 * DAY_MS).map(lambda ms: ms - ms % 60_000)
SHIFTS = st.lists(st.tuples(INSTANTS, MINUTES), max_size=4).map(lambda all_: tuple(sorted(all_)))
RULES = st.sampled_from([EET_US, "UTC", "+05:30"])
# Every minute of a week.
WEEK = np.arange(START_MS - DAY_MS, START_MS + 6 * DAY_MS, 60_000)


@BOUNDED
@given(RULES, SHIFTS, INSTANTS)
def test_readings_follow_the_shifts_so_far(
    rule: str, shifts: tuple[tuple[int, int], ...], at_ms: int
) -> None:
    clock, plain = WallClock(rule).shifted(shifts), WallClock(rule)
    moved = sum(by for instant, by in shifts if instant <= at_ms)
    assert clock.wall_ms(at_ms) == plain.wall_ms(at_ms) + moved
    assert clock.walls_ms(np.array([at_ms])).tolist() == [clock.wall_ms(at_ms)]
    assert clock.shifted(()).wall_ms(at_ms) == plain.wall_ms(at_ms)


@BOUNDED
@given(RULES, SHIFTS, INSTANTS)
def test_a_later_shift_changes_nothing_before_it(
    rule: str, shifts: tuple[tuple[int, int], ...], at_ms: int
) -> None:
    before = WallClock(rule).shifted(tuple(s for s in shifts if s[0] <= at_ms))
    after = WallClock(rule).shifted(shifts)
    past = WEEK[at_ms >= WEEK]
    assert after.walls_ms(past).tolist() == before.walls_ms(past).tolist()
    assert after.latests_ms(past).tolist() == before.latests_ms(past).tolist()


@BOUNDED
@given(RULES, SHIFTS)
def test_the_highest_reading_and_the_skipped_ones(
    rule: str, shifts: tuple[tuple[int, int], ...]
) -> None:
    clock = WallClock(rule).shifted(shifts)
    readings = clock.walls_ms(WEEK)
    assert clock.latests_ms(WEEK)[0] == readings[0]
    # The last reading before a change may be higher than any at a full minute, by less than one.
    highest = np.maximum.accumulate(readings)
    ahead = clock.latests_ms(WEEK) - highest
    assert np.all((ahead >= 0) & (ahead < 60_000))
    assert [clock.latest_ms(int(ms)) for ms in WEEK[::997]] == clock.latests_ms(
        WEEK[::997]
    ).tolist()
    first, stop = int(readings[0]), int(readings[-1])
    missing = set(range(first, stop, 60_000)) - set(readings.tolist())
    skipped = list(clock.skipped_ms(first, stop))
    told = {ms for start, end in skipped for ms in range(start, end, 60_000)}
    assert {ms for ms in told if first <= ms < stop} == missing
    assert all(start < end for start, end in skipped)
    assert all(one[1] < two[0] for one, two in pairwise(skipped))


@BOUNDED
@given(RULES, SHIFTS, INSTANTS, st.integers(1, 40 * DAY_MS))
def test_many_rollovers_are_the_single_ones(
    rule: str, shifts: tuple[tuple[int, int], ...], first_ms: int, length_ms: int
) -> None:
    clock = WallClock(rule).shifted(shifts)
    found = nights(clock, first_ms, first_ms + length_ms)
    single = rollovers_between(clock, first_ms, first_ms + length_ms)
    assert found.at.tolist() == single
    assert found.count.tolist() == [charged(clock, at_ms) for at_ms in single]
    after = Midnights(clock)
    for one, two in pairwise(sorted({first_ms, *single})):
        assert after.after(one) == two
        assert after.after(two - 1) == two
