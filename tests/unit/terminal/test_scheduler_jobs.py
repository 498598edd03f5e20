"""Long work in steps: last among those who wait, and yet always done."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from structlog.testing import capture_logs
from tests.unit.terminal.scheduling_bench import Bench, identity, now, virtual

from mt5kit.errors import CallFailed, Conflict, InternalFault, ServiceOverloaded, WrongAccount
from mt5kit.terminal.scheduling import Chunk, Done, More, SchedulerRules, Turn


def steps(
    bench: Bench, number: int, count: int, pause_s: float = 0.0
) -> Callable[[int], Awaitable[Chunk[int]]]:
    """Work of `count` steps of 250 ms."""
    done = 0

    async def step(token: int) -> Chunk[int]:
        nonlocal done
        await bench.terminal.chunk(identity(number))
        done += 1
        return Done(done) if done == count else More(pause_s)

    return step


def start(
    bench: Bench, number: int, count: int, pause_s: float = 0.0, deadline_s: float = 600.0
) -> "asyncio.Task[Turn[int]]":
    work = bench.scheduler.work(
        bench.entrant(number), steps(bench, number, count, pause_s), deadline_s=deadline_s
    )
    return asyncio.create_task(work)


@virtual
async def test_a_job_logs_its_account_in_and_gives_its_result() -> None:
    async with Bench() as bench:
        turn = await start(bench, 1, 3)
        assert (turn.value, turn.token) == (3, 7)
        assert turn.broker_ms == pytest.approx(750)
        assert turn.queue_wait_ms == pytest.approx(1500, abs=10)
        assert bench.terminal.ops() == [("login", 1), *[("chunk", 1)] * 3]


@virtual
async def test_looks_come_between_the_steps() -> None:
    async with Bench() as bench:
        job = start(bench, 1, 20)
        await asyncio.sleep(2)
        waits = []
        while not job.done():
            asked = now()
            await bench.see(1)
            waits.append(now() - asked)
            await asyncio.sleep(0.1)
        assert max(waits) <= 0.25 + 0.01
        assert bench.terminal.ops("login") == [("login", 1)]


@virtual
async def test_a_pause_is_kept_and_the_account_stays_in() -> None:
    async with Bench() as bench:
        bench.book.rates = {"a1": 1.0, "a2": 1.0, "a3": 1.0}
        bench.entrant(2), bench.entrant(3)
        await start(bench, 1, 4, pause_s=0.2)
        chunks = [call for call in bench.terminal.calls if call.op == "chunk"]
        for before, after in pairwise(chunks):
            assert after.began - before.ended >= 0.2
        inside = [
            call
            for call in bench.terminal.calls
            if chunks[0].began < call.began < chunks[-1].began and call.op == "login"
        ]
        assert inside == []


@virtual
async def test_looks_elsewhere_go_first_and_the_job_goes_on_afterwards() -> None:
    async with Bench() as bench:
        job = start(bench, 1, 8)
        await asyncio.sleep(2.1)
        asked = now()
        await bench.see(2)
        assert now() - asked <= 0.25 + 1.5 + 0.01
        assert (await job).value == 8
        assert bench.terminal.ops("login") == [("login", 1), ("login", 2), ("login", 1)]


@virtual
async def test_a_job_has_a_visit_of_its_own_among_hot_accounts() -> None:
    rules = SchedulerRules(job_patience_s=5.0, patience_s=1.0)
    async with Bench(rules) as bench:

        async def read_without_pause(number: int) -> None:
            while True:
                await bench.see(number)

        readers = [asyncio.create_task(read_without_pause(n)) for n in (2, 3)]
        await asyncio.sleep(5)
        asked = now()
        job = start(bench, 1, 12)
        await job
        chunks = [call.began for call in bench.terminal.calls if call.op == "chunk"]
        assert asked + 5.0 <= chunks[0] <= asked + 5.0 + 1.0 + 3 * 1.6
        visits = sum(op == ("login", 1) for op in bench.terminal.ops("login"))
        # Four steps of 250 ms a visit of a second.
        assert visits == 3
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)


@virtual
async def test_a_job_of_the_hot_account_itself_gets_its_steps() -> None:
    async with Bench(SchedulerRules(job_patience_s=1.0)) as bench:
        bench.terminal.look_s = 0.2

        async def read_without_pause(after_s: float) -> None:
            await asyncio.sleep(after_s)
            while True:
                await bench.see(1)

        # Each look ends with the other reader waiting.
        readers = [asyncio.create_task(read_without_pause(after_s)) for after_s in (0, 1.6)]
        await asyncio.sleep(3)
        assert (await start(bench, 1, 3, deadline_s=60)).value == 3
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)


@virtual
async def test_pages_asked_for_one_after_another_cost_one_switch() -> None:
    async with Bench() as bench:
        bench.book.rates = {f"a{n}": 1.0 for n in range(2, 6)}
        for number in range(2, 6):
            bench.entrant(number)
        await asyncio.sleep(20)
        for _ in range(5):
            await start(bench, 1, 1)
            await asyncio.sleep(0.005)
        assert bench.terminal.ops("login").count(("login", 1)) == 1
        # And nobody comes any more: refreshes go on.
        at, logins = now(), len(bench.terminal.ops("login"))
        await asyncio.sleep(0.3 + 1.5)
        assert len(bench.terminal.ops("login")) == logins + 1
        began = next(call.began for call in bench.terminal.calls if call.ended > at + 1)
        assert began <= at + 0.25


@virtual
async def test_the_next_page_is_not_waited_for_while_somebody_waits() -> None:
    async with Bench() as bench:
        await start(bench, 1, 1)
        asked = now()
        await bench.see(2)
        assert now() - asked == pytest.approx(1.5, abs=0.01)
        await start(bench, 1, 1)
        asked = now()
        await start(bench, 2, 1)
        assert now() - asked == pytest.approx(1.5 + 0.25, abs=0.01)


@virtual
async def test_a_long_job_and_refreshes_share_the_terminal() -> None:
    async with Bench(SchedulerRules(job_patience_s=5.0)) as bench:
        bench.book.rates = {f"a{n}": 1.0 for n in range(2, 12)}
        for number in range(2, 12):
            bench.entrant(number)
        job = start(bench, 1, 200)
        await job
        seconds = now()
        logins = len(bench.terminal.ops("login"))
        # Fifty seconds of steps; refreshes had about as much meanwhile, and no more than that.
        assert 80 <= seconds <= 160
        assert logins >= 20


@virtual
async def test_an_account_that_is_gone_is_logged_in_again_once() -> None:
    async with Bench() as bench:
        job = start(bench, 1, 4)
        await asyncio.sleep(1.6)
        bench.terminal.now_in = identity(2)
        assert (await job).value == 4
        assert bench.terminal.ops("login") == [("login", 1), ("login", 1)]

        async def always_wrong(token: int) -> Chunk[int]:
            raise WrongAccount("another")

        with pytest.raises(WrongAccount):
            await bench.scheduler.work(bench.entrant(1), always_wrong, deadline_s=60)


@virtual
async def test_a_failing_step_fails_the_job_alone() -> None:
    async with Bench() as bench:
        look = bench.ask(1)
        await look
        bench.terminal.faults.append(CallFailed("no"))
        with pytest.raises(CallFailed):
            await start(bench, 1, 3)

        async def broken(token: int) -> Chunk[int]:
            raise ZeroDivisionError

        with capture_logs(), pytest.raises(InternalFault, match="the work failed"):
            await bench.scheduler.work(bench.entrant(1), broken, deadline_s=60)
        assert (await bench.see(1)).value.identity == identity(1)
        assert bench.scheduler.waiting == 0


@virtual
async def test_a_job_ends_with_its_deadline_or_its_account() -> None:
    async with Bench() as bench:
        asked = now()
        with pytest.raises(ServiceOverloaded):
            await start(bench, 1, 1000, pause_s=0.5, deadline_s=10)
        assert now() - asked == pytest.approx(10, abs=0.01)
        job = start(bench, 1, 1000)
        await asyncio.sleep(5)
        bench.scheduler.forget("a1", Conflict("deleted"))
        with pytest.raises(Conflict):
            await job
        await asyncio.sleep(0.5)
        chunks = len(bench.terminal.ops("chunk"))
        await asyncio.sleep(10)
        assert len(bench.terminal.ops("chunk")) == chunks
