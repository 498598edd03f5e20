"""Sockets are noted without waiting, and written when Postgres is there."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from mt5kit.errors import AccountNotFound, Mt5SwarmError
from mt5kit.state.postgres import ClosedSocket, DatabaseFault, DatabaseUnavailable, OpenSocket
from websocket_pool import subscriptions
from websocket_pool.poll_marks import PollMarks
from websocket_pool.subscriptions import BEAT_S, KEEP_DAYS, SubscriptionBook


class Rows:
    """Keeps what is recorded; `failures` are raised by the calls to come."""

    def __init__(self) -> None:
        self.rows: dict[UUID, int | None] = {}
        self.ages: dict[UUID, float] = {}
        self.writings: list[str] = []
        self.beats: list[set[UUID]] = []
        self.failures: list[Mt5SwarmError] = []
        self.kept_days: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def record(
        self,
        account_id: str,
        instance_id: str,
        opened: Sequence[OpenSocket],
        closed: Sequence[ClosedSocket] = (),
    ) -> None:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.writings.append(account_id)
        for one in opened:
            self.rows[one.socket], self.ages[one.socket] = None, one.open_s
        for over in closed:
            self.rows[over.socket], self.ages[over.socket] = over.code, over.closed_s

    async def beat(self, instance_id: str, sockets: Sequence[UUID]) -> tuple[UUID, ...]:
        if self.failures:
            raise self.failures.pop(0)
        self.beats.append(set(sockets))
        return tuple(one for one in sockets if self.rows.get(one, 0) is not None)

    async def forget(self, keep_days: int) -> int:
        self.kept_days.append(keep_days)
        return 7


class World:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.rows = Rows()
        self.book = SubscriptionBook(self.rows, "ws-1", lambda: self.now_s)


@pytest.fixture
async def world() -> World:
    return World()


async def test_a_burst_is_one_transaction_for_each_account(world: World) -> None:
    opened = [world.book.opened(f"acc-{number % 3}") for number in range(30)]
    world.book.closed(opened[4], 1001)
    assert world.rows.writings == []
    await world.book.flush()
    assert sorted(world.rows.writings) == ["acc-0", "acc-1", "acc-2"]
    assert len(world.rows.rows) == 30
    assert [code for code in world.rows.rows.values() if code] == [1001]
    await world.book.flush()
    assert len(world.rows.writings) == 3


async def test_moments_are_told_as_they_were_and_only_the_first_close_counts(world: World) -> None:
    one = world.book.opened("acc")
    world.now_s += 3
    await world.book.flush()
    assert world.rows.ages[one.socket] == 3
    world.book.closed(one, 4408)
    world.now_s += 2
    world.book.closed(one, 1012)
    await world.book.flush()
    assert (world.rows.rows[one.socket], world.rows.ages[one.socket]) == (4408, 2)


async def test_a_socket_that_closes_while_its_opening_is_written_is_closed_next(
    world: World,
) -> None:
    world.rows.gate.clear()
    one = world.book.opened("acc")
    writing = asyncio.create_task(world.book.flush())
    await asyncio.sleep(0)
    world.book.closed(one, 1000)
    world.rows.gate.set()
    await writing
    await world.book.flush()
    assert world.rows.rows == {one.socket: 1000}


async def test_nothing_is_lost_while_postgres_is_away(world: World) -> None:
    one, two, three = (world.book.opened(name) for name in ("acc-1", "acc-2", "acc-3"))
    await world.book.flush()
    world.book.closed(one, 1000)
    four = world.book.opened("acc-4")
    for _ in range(3):
        world.rows.failures = [DatabaseUnavailable("away")]
        with pytest.raises(DatabaseUnavailable):
            await world.book.flush()
    world.book.closed(two, 1001)
    await world.book.flush()
    assert world.rows.rows == {
        one.socket: 1000,
        two.socket: 1001,
        three.socket: None,
        four.socket: None,
    }


async def test_an_interrupted_writing_is_done_again(world: World) -> None:
    world.rows.gate.clear()
    one = world.book.opened("acc")
    writing = asyncio.create_task(world.book.flush())
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    world.rows.gate.set()
    await world.book.flush()
    assert world.rows.rows == {one.socket: None}


async def test_of_those_that_closed_the_oldest_are_forgotten_and_open_ones_never(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "MOST_ENDED", 5)
    stays = world.book.opened("acc")
    closed = [world.book.opened("acc") for _ in range(8)]
    for number, one in enumerate(closed):
        world.book.closed(one, 4000 + number)
    with capture_logs() as logs:
        await world.book.flush()
        await world.book.flush()
    assert [line["count"] for line in logs if line["event"] == "closed_sockets_not_recorded"] == [3]
    codes = [code for code in world.rows.rows.values() if code]
    assert codes == [4003, 4004, 4005, 4006, 4007]
    assert world.rows.rows[stays.socket] is None


async def test_only_open_sockets_that_have_rows_are_renewed_and_only_when_it_is_time(
    world: World,
) -> None:
    one, two = world.book.opened("acc-1"), world.book.opened("acc-2")
    await world.book.flush()
    assert world.rows.beats == []
    world.book.closed(two, 1000)
    world.now_s += BEAT_S
    await world.book.flush()
    await world.book.flush()
    assert world.rows.beats == [{one.socket}]


async def test_writing_up_does_not_keep_the_beat_waiting(world: World) -> None:
    first = world.book.opened("acc")
    await world.book.flush()
    opened = [world.book.opened(f"acc-{number}") for number in range(3)]
    world.now_s += BEAT_S
    world.rows.gate.clear()
    writing = asyncio.create_task(world.book.flush())
    await asyncio.sleep(0)
    assert world.rows.beats == [{first.socket}]
    world.rows.gate.set()
    await writing
    assert all(world.rows.rows[one.socket] is None for one in opened)


@pytest.mark.parametrize("failure", [AccountNotFound("gone"), DatabaseFault("odd")])
async def test_what_is_refused_holds_up_nothing_else(world: World, failure: Mt5SwarmError) -> None:
    bad, good = world.book.opened("bad"), world.book.opened("good")
    world.rows.failures = [failure]
    await world.book.flush()
    assert world.rows.rows == {good.socket: None}
    world.now_s += BEAT_S
    await world.book.flush()
    await world.book.flush()
    # An account that is gone has no rows; what failed for another reason is tried again.
    assert (bad.socket in world.rows.rows) is isinstance(failure, DatabaseFault)


async def test_its_end_writes_up_and_closes_what_is_open(world: World) -> None:
    one, two = world.book.opened("acc"), world.book.opened("acc")
    world.book.start()
    world.book.closed(one, 4401)
    await world.book.close()
    assert world.rows.rows == {one.socket: 4401, two.socket: 1012}
    world.book.closed(two, 1006)
    assert world.rows.rows[two.socket] == 1012


async def test_its_end_does_not_wait_for_postgres_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "CLOSE_LIMIT_S", 0.01)
    world.book.opened("acc")
    world.rows.gate.clear()
    with capture_logs() as logs:
        await world.book.close()
    assert [line["event"] for line in logs] == ["subscriptions_left_open"]


async def test_it_writes_and_forgets_by_itself(world: World) -> None:
    one = world.book.opened("acc")
    world.book.start()
    async with asyncio.timeout(30):
        while not (world.rows.kept_days and world.rows.rows):
            await asyncio.sleep(0.001)
    assert world.rows.rows == {one.socket: None}
    assert world.rows.kept_days == [KEEP_DAYS]
    await world.book.close()


class Polls:
    def __init__(self) -> None:
        self.touched: list[str] = []
        self.failures: dict[str, Mt5SwarmError] = {}

    async def touch_poll(self, account_id: str) -> None:
        if account_id in self.failures:
            raise self.failures[account_id]
        self.touched.append(account_id)


async def test_a_streamed_account_is_marked_once_for_all_its_looks() -> None:
    polls = Polls()
    marks = PollMarks(polls)
    for _ in range(100):
        marks.looked("acc")
    await marks.flush()
    await marks.flush()
    assert polls.touched == ["acc"]


async def test_marks_outlast_an_outage_but_not_their_account() -> None:
    polls = Polls()
    marks = PollMarks(polls)
    marks.looked("acc")
    polls.failures = {"acc": DatabaseUnavailable("away")}
    with pytest.raises(DatabaseUnavailable):
        await marks.flush()
    polls.failures = {"gone": AccountNotFound("gone")}
    marks.looked("gone")
    await marks.flush()
    polls.failures = {}
    await marks.flush()
    assert polls.touched == ["acc"]
