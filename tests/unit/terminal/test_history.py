"""Histories in steps: pages, windows and their borders, settling, syncs."""

from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistoryPage, HistoryQuery, HistorySize
from mt5kit.domain.trades import Deal, Order
from mt5kit.errors import WrongAccount
from mt5kit.terminal.answers import TooManyRows
from mt5kit.terminal.chunks import Done, More, Step
from mt5kit.terminal.history import HistoryReader, PageJob, SyncRun, deals_page, orders_page
from mt5kit.terminal.settling import LONGEST_PAUSE_S, SETTLE_S, Settling
from mt5kit.terminal.walk import DAY_S, LAST_S, LONGEST_CALL_S, MOST_ROWS
from mt5kit.testing.fake_terminal import make_deal, make_order

ME, OTHER = AccountIdentity(1, "S"), AccountIdentity(2, "S")
T = TypeVar("T")
NOW_S = 1_790_000_000
TOKEN = 7


class Clock:
    """Moves only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeTerminal:
    """Selects history by seconds as MetaTrader does; a call costs time by its rows.

    `fine` makes its ends count to the millisecond: what a careful reader need not rely on.
    """

    def __init__(self, clock: Clock, *, fine: bool = False) -> None:
        self.clock = clock
        self.fine = fine
        self.made: list[Deal] = []
        self.done: list[Order] = []
        self.sizes: list[HistorySize] = []
        self.now_in = ME
        self.row_s = 0.0
        self.refused = 0
        self.calls: list[tuple[HistoryQuery, float]] = []

    async def history_size(self, token: int, identity: AccountIdentity) -> HistorySize:
        self._check(token, identity)
        if self.sizes:
            return self.sizes.pop(0)
        return HistorySize(len(self.made), len(self.done))

    async def deals(
        self, token: int, identity: AccountIdentity, query: HistoryQuery
    ) -> HistoryPage[Deal]:
        self._check(token, identity)
        rows = [deal for deal in self.made if self._within(query, deal.time_msc)]
        self._cost(query, len(rows))
        rows = [deal for deal in rows if query.symbol in {"", deal.symbol}]
        before = query.before or (2**62, 0)
        rows = sorted((deal for deal in rows if deal.cursor < before), key=_deal_place)[::-1]
        return HistoryPage(tuple(rows[: query.limit]), more=len(rows) > query.limit)

    async def orders(
        self, token: int, identity: AccountIdentity, query: HistoryQuery
    ) -> HistoryPage[Order]:
        self._check(token, identity)
        rows = [order for order in self.done if self._within(query, order.time_done_msc)]
        self._cost(query, len(rows))
        before = query.before or (2**62, 0)
        rows = sorted((order for order in rows if order.cursor < before), key=_order_place)[::-1]
        return HistoryPage(tuple(rows[: query.limit]), more=len(rows) > query.limit)

    def _check(self, token: int, identity: AccountIdentity) -> None:
        assert token == TOKEN
        if identity != self.now_in:
            raise WrongAccount("another account is in")

    def _within(self, query: HistoryQuery, time_msc: int) -> bool:
        assert 0 <= query.start <= query.end < 2**31
        if self.fine:
            return query.start * 1000 <= time_msc <= query.end * 1000
        return query.start <= time_msc // 1000 <= query.end

    def _cost(self, query: HistoryQuery, rows: int) -> None:
        if rows > query.most:
            self.refused += 1
            raise TooManyRows(rows)
        self.clock.now += rows * self.row_s
        self.calls.append((query, rows * self.row_s))


def _deal_place(deal: Deal) -> tuple[int, int]:
    return deal.cursor


def _order_place(order: Order) -> tuple[int, int]:
    return order.cursor


class World:
    """A terminal, who has settled there, and a clock for both."""

    def __init__(self, *, fine: bool = False, settled: bool = True) -> None:
        self.clock = Clock()
        self.terminal = FakeTerminal(self.clock, fine=fine)
        self.settling = Settling(self.clock)
        if settled:
            for _ in range(2):
                self.settling.saw(ME, HistorySize(1, 1))

    def reader(self) -> HistoryReader:
        return HistoryReader(self.terminal, ME, self.settling, self.clock)

    def job(self, query: HistoryQuery) -> PageJob[Deal]:
        return deals_page(self.reader(), query)

    def sync(self, days: int, now_s: int, sink: "Sink") -> SyncRun:
        return SyncRun(self.reader(), days, now_s, sink)

    async def page(self, query: HistoryQuery) -> HistoryPage[Deal]:
        return await finish(self, self.job(query).step)


async def finish(world: World, step: Step[T]) -> T:
    """What the work gives in the end."""
    for _ in range(10_000):
        chunk = await step(TOKEN)
        if isinstance(chunk, Done):
            return chunk.value
        world.clock.now += chunk.pause_s
    raise AssertionError("the work has no end")


async def all_pages(world: World, query: HistoryQuery) -> list[Deal]:
    """The rows of one page after another."""
    seen: list[Deal] = []
    while True:
        page = await world.page(query)
        assert len(page.rows) <= query.limit
        seen += page.rows
        if page.next_cursor is None:
            return seen
        query = msgspec.structs.replace(query, before=page.next_cursor)


def deals(*times_msc: int) -> list[Deal]:
    """Deals at these times, with tickets in another order than their times."""
    count = len(times_msc)
    return [make_deal(1 + (7 * n) % (count + 7), at) for n, at in enumerate(times_msc)]


# Few seconds and few milliseconds in them, so that many rows share either; on both sides of where
# windows meet, which are quarters of a day, days and times four of them.
QUARTER_S = DAY_S // 4
SECONDS = st.tuples(st.integers(1, 60), st.integers(-1, 1)).map(
    lambda at: at[0] * QUARTER_S + at[1]
)
MOMENTS = st.tuples(SECONDS, st.sampled_from([0, 1, 500, 999])).map(lambda at: at[0] * 1000 + at[1])


@given(
    times=st.lists(MOMENTS, max_size=40),
    span=st.tuples(SECONDS, SECONDS),
    limit=st.integers(1, 7),
    # A day's window first, then one four times, as much, a quarter, or a sixteenth as long.
    row_s=st.sampled_from([0.0, 0.125, 0.5, 2.0]),
    fine=st.booleans(),
    symbol=st.sampled_from(["", "EURUSD", "XAUUSD"]),
)
async def test_pages_are_a_sorted_list_cut_up(
    times: list[int],
    span: tuple[int, int],
    limit: int,
    row_s: float,
    fine: bool,
    symbol: str,
) -> None:
    world = World(fine=fine)
    world.terminal.row_s = row_s
    world.terminal.made = [
        msgspec.structs.replace(deal, ticket=n, symbol=("EURUSD", "XAUUSD")[n % 2])
        for n, deal in enumerate(deals(*times))
    ]
    start, end = min(span), max(span)
    expected = [
        deal
        for deal in sorted(world.terminal.made, key=_deal_place, reverse=True)
        if start <= deal.time_msc // 1000 <= end and symbol in {"", deal.symbol}
    ]
    assert await all_pages(world, HistoryQuery(start, end, symbol, None, limit)) == expected


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("row_s", [0.0, 0.001, 0.004])
async def test_rows_at_the_ends_of_windows_come_once(*, fine: bool, row_s: float) -> None:
    world = World(fine=fine)
    world.terminal.row_s = row_s
    # Wherever windows meet that are days, or quarters of them, long: before, there, and behind.
    borders = [NOW_S - quarter * QUARTER_S for quarter in range(25)]
    times = [
        (border + second) * 1000 + ms
        for border in borders
        for second in (-1, 0, 1)
        for ms in (999, 999, 1, 0, 0)
    ]
    world.terminal.made = deals(*times)
    newest_first = sorted(world.terminal.made, key=_deal_place, reverse=True)
    for limit in (4, 1000):
        seen = await all_pages(world, HistoryQuery(0, NOW_S - 1, "", None, limit))
        assert seen == [deal for deal in newest_first if deal.time_msc < NOW_S * 1000]
    sink = Sink()
    await finish(world, world.sync(90, NOW_S - 1 - DAY_S, sink).step)
    assert sink.made == [deal for deal in newest_first if deal.time_msc < NOW_S * 1000]


async def test_windows_are_as_long_as_a_call_may_take() -> None:
    world = World()
    world.terminal.row_s = 0.002
    # 20 a day: the first month costs more than a second of the terminal.
    world.terminal.made = [make_deal(n, (NOW_S - n * 4320) * 1000) for n in range(2000)]
    page = await world.page(HistoryQuery(0, NOW_S, "", None, 1000))
    assert len(page.rows) == 1000
    costs = [cost for _, cost in world.terminal.calls]
    assert costs[0] > LONGEST_CALL_S
    assert max(costs[1:]) <= LONGEST_CALL_S
    # And not so short that the page takes for ever.
    assert len(costs) < 20


async def test_a_busy_time_behind_quiet_years_is_not_read_in_one_call() -> None:
    world = World()
    world.terminal.row_s = 0.00002
    busy_s = NOW_S - 3000 * DAY_S
    world.terminal.made = [make_deal(n, (busy_s - n * 20) * 1000) for n in range(8000)]
    page = await world.page(HistoryQuery(0, NOW_S, "", None, 1000))
    assert [deal.ticket for deal in page.rows] == list(range(1000))
    # Each refusal is a count of a long period: growing again on the way there would repeat them.
    assert 0 < world.terminal.refused <= 4
    assert max(cost for _, cost in world.terminal.calls) <= LONGEST_CALL_S
    assert len(world.terminal.calls) < 60


async def test_a_second_is_read_whatever_it_holds() -> None:
    world = World()
    world.terminal.made = [make_deal(n, NOW_S * 1000 + n % 7) for n in range(MOST_ROWS + 1)]
    page = await world.page(HistoryQuery(0, NOW_S + 10, "", None, 3))
    assert [deal.time_msc % 1000 for deal in page.rows] == [6, 6, 6]
    assert page.more


async def test_an_empty_past_is_crossed_in_a_few_calls() -> None:
    world = World()
    page = await world.page(HistoryQuery(0, 2**40, "", None, 100))
    assert page == HistoryPage((), more=False)
    assert len(world.terminal.calls) < 12
    assert world.terminal.calls[0][0].end == LAST_S + 1


async def test_a_period_that_ends_before_it_begins_is_empty() -> None:
    world = World()
    world.terminal.made = deals(5000)
    assert (await world.page(HistoryQuery(9, 3, "", None, 5))).rows == ()
    assert world.terminal.calls == []


async def test_orders_are_paged_by_when_they_were_done() -> None:
    world = World()
    world.terminal.done = [
        msgspec.structs.replace(
            make_order(n), time_setup_msc=n * 1000, time_done_msc=(NOW_S - n % 5) * 1000
        )
        for n in range(20)
    ]
    job = orders_page(world.reader(), HistoryQuery(NOW_S - 3, NOW_S, "", None, 100))
    chunk = await job.step(TOKEN)
    assert isinstance(chunk, Done)
    assert [order.time_done_msc // 1000 for order in chunk.value.rows] == [
        NOW_S - age for age in range(4) for _ in range(4)
    ]


# -- settling -------------------------------------------------------------------------------------


async def test_a_history_is_believed_when_it_stands_still() -> None:
    world = World(settled=False)
    world.terminal.made = deals(1000, 2000)
    nothing, part = HistorySize(0, 0), HistorySize(1, 0)
    world.terminal.sizes = [nothing, nothing, nothing, part]
    page = await world.page(HistoryQuery(0, 10, "", None, 5))
    assert len(page.rows) == 2
    assert world.terminal.sizes == []


async def test_a_funded_account_without_a_past_is_not_believed_before_its_time() -> None:
    world = World(settled=False)
    began = world.clock.now
    assert (await world.page(HistoryQuery(0, 10, "", None, 5))).rows == ()
    assert SETTLE_S <= world.clock.now - began <= SETTLE_S + LONGEST_PAUSE_S


async def test_an_account_without_money_or_past_is_believed_at_once() -> None:
    world = World(settled=False)
    world.terminal.sizes = [HistorySize(0, 0, funded=False)] * 2
    began = world.clock.now
    assert (await world.page(HistoryQuery(0, 10, "", None, 5))).rows == ()
    assert world.clock.now - began <= LONGEST_PAUSE_S


async def test_a_settled_history_is_not_asked_again_until_the_next_login() -> None:
    world = World(settled=False)
    world.terminal.made = deals(1000)
    job = world.job(HistoryQuery(0, 10, "", None, 5))
    first = await job.step(TOKEN)
    assert isinstance(first, More)
    assert first.pause_s > 0
    assert isinstance(await job.step(TOKEN), Done)
    again = world.job(HistoryQuery(0, 10, "", None, 5))
    assert isinstance(await again.step(TOKEN), Done)
    world.settling.logged_in(OTHER)
    world.settling.logged_in(ME)
    world.terminal.sizes = [HistorySize(0, 0)]
    third = world.job(HistoryQuery(0, 10, "", None, 5))
    assert isinstance(await third.step(TOKEN), More)


async def test_a_login_between_two_steps_makes_the_history_settle_again() -> None:
    world = World()
    world.terminal.row_s = 1.0
    world.terminal.made = [make_deal(n, (NOW_S - n * 40 * DAY_S) * 1000) for n in range(5)]
    job = world.job(HistoryQuery(0, NOW_S, "", None, 5))
    assert isinstance(await job.step(TOKEN), More)
    world.settling.logged_in(ME)
    loading = [HistorySize(0, 0)] * 3
    world.terminal.sizes = list(loading)
    calls = len(world.terminal.calls)
    for _ in loading:
        assert isinstance(await job.step(TOKEN), More)
    assert len(world.terminal.calls) == calls
    page = await finish(world, job.step)
    assert [deal.ticket for deal in page.rows] == list(range(5))


async def test_another_account_in_the_terminal_fails_the_step() -> None:
    world = World(settled=False)
    world.terminal.now_in = OTHER
    job = world.job(HistoryQuery(0, 10, "", None, 5))
    with pytest.raises(WrongAccount):
        await job.step(TOKEN)


# -- sync -----------------------------------------------------------------------------------------


class Sink:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.made: list[Deal] = []
        self.done: list[Order] = []
        self.heard: list[int] = []

    def deals(self, rows: tuple[Deal, ...]) -> None:
        self.made += rows

    def orders(self, rows: tuple[Order, ...]) -> None:
        self.done += rows

    def progress(self, percent: int) -> None:
        self.heard.append(percent)


async def test_a_sync_reads_the_last_days_newest_first() -> None:
    world = World(settled=False)
    world.terminal.row_s = 0.0005
    world.terminal.made = [make_deal(n, (NOW_S - n * 3600) * 1000) for n in range(6000)]
    world.terminal.done = [
        msgspec.structs.replace(make_order(n), time_done_msc=(NOW_S - n * DAY_S) * 1000 + 5)
        for n in range(400)
    ]
    sink = Sink()
    result = await finish(world, world.sync(90, NOW_S, sink).step)
    # A day more, because the broker's clock may be up to a day behind ours.
    assert sink.made == world.terminal.made[: 91 * 24 + 1]
    assert sink.done == world.terminal.done[:92]
    assert (result.deals, result.orders) == (len(sink.made), len(sink.done))
    assert sink.heard == sorted(sink.heard)
    assert sink.heard[-1] == 100
    assert len(set(sink.heard)) > 4
