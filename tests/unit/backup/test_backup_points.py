"""Which times can be restored, and from which full backup."""

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.barman import FullBackup, lsn
from backup.gaps import Gaps
from backup.points import NotPossible, Points, shown
from backup.timelines import Timelines
from backup.wal import End

START = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)
NOW = START + dt.timedelta(days=2)


def at(minutes: float) -> dt.datetime:
    return START + dt.timedelta(minutes=minutes)


def full(minutes: float, timeline: int = 1, end_lsn: int | None = None) -> FullBackup:
    """A full backup that ended then, at a position that grows with the time."""
    return FullBackup(
        f"b{minutes:g}", at(minutes - 1), at(minutes), timeline, end_lsn or int(minutes), 1
    )


class Log:
    """Each timeline's last commit, in minutes."""

    def __init__(self, last: dict[int, float]) -> None:
        self.last = last

    def last_end(self, timeline: int) -> End | None:
        last = self.last.get(timeline)
        return None if last is None else End(at(last), f"0/{last:g}")


def points(
    tmp_path: Path, backups: list[FullBackup], last: dict[int, float], *restores: tuple[int, int]
) -> Points:
    """Of a cluster that begins at 0; each restore is (when, to when), and begins a timeline."""
    timelines = Timelines(tmp_path, lambda _: None)
    timelines.note(1, at(0))
    history = ""
    for number, (when, to) in enumerate(restores, start=2):
        history += f"{number - 1}\t0/{to:X}\tbefore {shown(at(to))}\n\n"
        timelines.note(number, at(when), history)
    return Points(backups, timelines, Log(last), Gaps(tmp_path))


def test_the_newest_full_backup_before_the_time_is_taken(tmp_path: Path) -> None:
    some = points(tmp_path, [full(10), full(20), full(30)], {1: 40})
    plan = some.plan(at(25), NOW)
    assert (plan.backup.backup_id, plan.timeline, plan.last) == ("b20", 1, None)
    # At its very end it is consistent, and not before.
    assert some.plan(at(30), NOW).backup.backup_id == "b30"
    assert some.plan(at(29.99), NOW).backup.backup_id == "b20"


def test_the_last_commit_can_be_restored_and_nothing_after_it(tmp_path: Path) -> None:
    some = points(tmp_path, [full(10)], {1: 40})
    assert some.plan(at(40), NOW).last == "0/40"
    assert some.plan(at(39.99), NOW).last is None
    with pytest.raises(NotPossible, match=r"at 2026-11-29T00:41.*only what was until.*T00:40"):
        some.plan(at(41), NOW)


def test_what_is_refused_says_what_is_not(tmp_path: Path) -> None:
    some = points(tmp_path, [full(10)], {1: 40})
    with pytest.raises(NotPossible, match=r"no full backup before 2026-11-29T00:05.*from 20"):
        some.plan(at(5), NOW)
    with pytest.raises(NotPossible, match=r"in the future.*from 2026-11-29T00:10.*T00:40"):
        some.plan(NOW + dt.timedelta(seconds=1), NOW)
    with pytest.raises(NotPossible, match="There is no full backup"):
        points(tmp_path / "none", [], {}).plan(at(5), NOW)
    with pytest.raises(NotPossible, match="There is no full backup"):
        Points([], Timelines(tmp_path / "nothing", lambda _: None), Log({}), Gaps(tmp_path)).plan(
            at(5), NOW
        )


def test_a_time_is_restored_as_it_was_then(tmp_path: Path) -> None:
    # At 50 somebody went back to 30, lived on from there, and went back at 90 to 70.
    backups = [full(10), full(40), full(60, 2, 35), full(80, 2, 75)]
    some = points(tmp_path, backups, {1: 49, 2: 89, 3: 95}, (50, 30), (90, 70))
    found = {
        minutes: (plan.backup.backup_id, plan.timeline, plan.last)
        for minutes in (20, 45, 49, 52, 65, 85, 89, 92)
        for plan in [some.plan(at(minutes), NOW)]
    }
    assert found == {
        20: ("b10", 1, None),
        45: ("b40", 1, None),  # what was given up at 50 is there still
        49: ("b40", 1, "0/49"),
        52: ("b10", 2, None),  # b40 is of what was given up
        65: ("b60", 2, None),
        85: ("b80", 2, None),
        89: ("b80", 2, "0/89"),
        92: ("b60", 3, None),  # b80 is of what was given up
    }
    # What came after the last that was received of a course is not known, now as little as then.
    for minutes, last in ((49.5, "T00:49"), (89.5, "T01:29")):
        with pytest.raises(NotPossible, match=f"only what was until 2026-11-29{last}"):
            some.plan(at(minutes), NOW)


def test_a_full_backup_of_another_way_leads_nowhere(tmp_path: Path) -> None:
    """Somebody has put the directory of before the restore back into its place."""
    timelines = Timelines(tmp_path, lambda _: None)
    timelines.note(1, at(0))
    timelines.note(2, at(50), "1\t0/30\tbefore\n")
    timelines.note(1, at(90))
    some = Points([full(10), full(60, 2, 35)], timelines, Log({1: 100, 2: 80}), Gaps(tmp_path))
    assert some.plan(at(95), NOW).backup.backup_id == "b10"
    assert some.plan(at(70), NOW).backup.backup_id == "b60"


def test_of_a_course_of_which_nothing_was_received_nothing_is_known(tmp_path: Path) -> None:
    some = points(tmp_path, [full(10)], {1: 49}, (50, 30))
    assert some.latest is None
    with pytest.raises(NotPossible, match=r"nothing was received.*since the last restore"):
        some.plan(at(50), NOW)
    assert some.plan(at(49), NOW).timeline == 1
    assert "Nothing was received since" in some.table()


def test_a_timeline_of_unknown_descent_is_not_guessed(tmp_path: Path) -> None:
    timelines = Timelines(tmp_path, lambda _: None)
    timelines.note(2, at(0))
    with pytest.raises(NotPossible, match="history of timeline 2 is missing"):
        Points([full(10, 2)], timelines, Log({2: 40}), Gaps(tmp_path)).plan(at(20), NOW)


def test_the_table_can_be_given_back(tmp_path: Path) -> None:
    some = points(tmp_path, [full(10), full(20)], {1: 40.5})
    table = some.table()
    assert [line.split()[0] for line in table.splitlines()[1:3]] == ["b10", "b20"]
    latest = table.split(" can be")[0].split()[-1]
    assert some.plan(dt.datetime.fromisoformat(latest), NOW).last == "0/40.5"


@given(
    ends=st.lists(st.integers(1, 1000), min_size=1, max_size=8, unique=True),
    last=st.integers(1, 1200),
    to=st.integers(0, 1300),
)
def test_a_plan_never_begins_after_its_time(ends: list[int], last: int, to: int) -> None:
    timelines = Timelines(Path("/nowhere"), lambda _: None)
    backups = [full(end) for end in sorted(ends)]
    some = Points(backups, timelines, Log({1: max(last, *ends)}), Gaps(Path("/nowhere")))
    possible = min(ends) <= to <= max(last, *ends)
    try:
        plan = some.plan(at(to), NOW)
    except NotPossible:
        assert not possible
    else:
        assert possible
        assert plan.backup.ended <= plan.to
        assert not [one for one in backups if plan.backup.ended < one.ended <= plan.to]


def test_positions_are_numbers() -> None:
    assert lsn("16/B374D848") == 0x16B374D848
    assert lsn("0/0") == 0


def test_no_way_leads_over_a_hole_of_the_log(tmp_path: Path) -> None:
    some = points(tmp_path, [full(10), full(60)], {1: 100})
    Gaps(tmp_path).note(at(30), at(50))
    Gaps(tmp_path).note(at(90), at(95))
    assert some.plan(at(30), NOW).backup.backup_id == "b10"
    for minutes in (30.01, 40, 59.9, 90.1, 99):
        with pytest.raises(NotPossible, match="has a hole"):
            some.plan(at(minutes), NOW)
    assert some.plan(at(60), NOW).backup.backup_id == "b60"
    assert some.plan(at(90), NOW).backup.backup_id == "b60"
    assert "but for what lies after 2026-11-29T00:30" in some.table()


def test_a_full_backup_that_began_before_the_log_came_back_is_none(tmp_path: Path) -> None:
    some = points(tmp_path, [full(50.5)], {1: 100})
    Gaps(tmp_path).note(at(30), at(50))
    with pytest.raises(NotPossible, match="has a hole"):
        some.plan(at(60), NOW)
