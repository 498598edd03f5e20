"""Terminals that freeze, vanish and come back; leases that go; hand-over."""

import asyncio

import pytest
from structlog.testing import capture_logs
from tests.unit.terminal.scheduling_bench import Bench, identity, now, virtual

from mt5kit.errors import (
    CallFailed,
    InternalFault,
    LoginRefused,
    TerminalMoved,
    TerminalTimeout,
    TerminalUnavailable,
)
from mt5kit.secret import Secret
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.scheduling import Done, More


async def until(condition: object) -> None:
    """Wait for something in virtual time."""
    async with asyncio.timeout(3600):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


@virtual
async def test_a_frozen_terminal_is_found_while_idle_and_recovers() -> None:
    async with Bench() as bench:
        await bench.see(1)
        bench.terminal.frozen = True
        froze = now()
        await until(lambda: not bench.scheduler.up)
        assert now() - froze < 2.0 + 2.0 + 0.1
        at = now()
        with pytest.raises(TerminalUnavailable) as refused:
            await bench.see(1)
        assert now() == pytest.approx(at)
        assert 0 < (refused.value.retry_after_s or 0) <= 0.5
        await asyncio.sleep(60)
        bench.terminal.frozen = False
        thawed = now()
        await until(lambda: bench.scheduler.up)
        # The longest pause between probes, and a probe that was under way.
        assert now() - thawed < 5.0 + 2.0 + 0.1
        assert (await bench.see(1)).value.identity == identity(1)
        assert bench.book.changes == [False, True]
        assert bench.terminal.ops("login") == [("login", 1)]


@virtual
async def test_a_read_that_times_out_fails_all_who_wait() -> None:
    async with Bench() as bench:
        await bench.see(1)
        bench.terminal.frozen = True
        first, second = bench.ask(1), bench.ask(2)
        with pytest.raises(TerminalTimeout):
            await first
        with pytest.raises(TerminalUnavailable) as refused:
            await second
        assert type(refused.value) is TerminalUnavailable
        assert now() == pytest.approx(1.5 + 2.0, abs=0.01)
        assert not bench.scheduler.up


@virtual
async def test_a_frozen_terminal_is_found_before_a_login_is_tried() -> None:
    async with Bench() as bench:
        await bench.see(1)
        bench.terminal.frozen = True
        asked = now()
        with pytest.raises(TerminalTimeout):
            await bench.see(2)
        assert now() - asked == pytest.approx(2.0, abs=0.01)
        assert not bench.scheduler.up
        assert bench.terminal.ops("login") == [("login", 1)]


@virtual
async def test_two_absences_in_a_row_open_the_breaker() -> None:
    async with Bench() as bench:
        await bench.see(1)
        bench.terminal.faults.append(TerminalUnavailable("broken"))
        with pytest.raises(TerminalUnavailable):
            await bench.see(1)
        assert bench.scheduler.up
        assert (await bench.see(1)).value.identity == identity(1)
        bench.terminal.away = True
        for _ in range(2):
            with pytest.raises(TerminalUnavailable):
                await bench.see(1)
        assert not bench.scheduler.up


@virtual
async def test_refusals_of_the_module_leave_the_breaker_closed() -> None:
    async with Bench() as bench:
        await bench.see(1)
        bench.terminal.faults.extend(CallFailed("no") for _ in range(5))
        for _ in range(5):
            with pytest.raises(CallFailed):
                await bench.see(1)
        assert bench.scheduler.up


@virtual
async def test_a_probe_that_finds_another_account_is_believed() -> None:
    async with Bench() as bench:
        await bench.see(1)
        bench.terminal.now_in = identity(2)
        await until(lambda: bench.scheduler.current is None)
        assert bench.scheduler.up
        await bench.see(1)
        assert bench.terminal.ops() == [("login", 1), ("login", 1)]


@virtual
async def test_no_probe_disturbs_a_login() -> None:
    async with Bench() as bench:
        bench.terminal.switch_s = 18.0
        await bench.see(1)
        login = next(call for call in bench.terminal.calls if call.op == "login")
        during = [c for c in bench.terminal.calls if login.began < c.began < login.ended]
        assert during == []


@virtual
async def test_without_a_lease_nothing_is_asked() -> None:
    async with Bench(no_lease=TerminalMoved("not ours")) as bench:
        with pytest.raises(TerminalMoved):
            await bench.see(1)
        await asyncio.sleep(60)
        assert bench.terminal.calls == []
        bench.no_lease = None
        assert (await bench.see(1)).value.identity == identity(1)


@virtual
async def test_hand_over_waits_for_the_call_in_progress_and_refuses_the_rest() -> None:
    async with Bench() as bench:
        served, late, other = bench.ask(1), None, bench.ask(2)
        await asyncio.sleep(0.5)
        late = bench.ask(1)
        await asyncio.sleep(0)
        leaving = asyncio.create_task(bench.scheduler.hand_over())
        for refused in (late, other):
            with pytest.raises(TerminalMoved) as moved:
                await refused
            assert (moved.value.retry_after_s or 9) <= 1
        assert now() == pytest.approx(0.5)
        with pytest.raises(TerminalMoved):
            await bench.see(3)
        assert (await served).value.identity == identity(1)
        await leaving
        assert now() == pytest.approx(1.5, abs=0.01)
        await bench.scheduler.hand_over()
        calls = len(bench.terminal.calls)
        await asyncio.sleep(10)
        assert len(bench.terminal.calls) == calls


@virtual
async def test_hand_over_waits_for_no_login_that_has_not_begun() -> None:
    async with Bench() as bench:
        bench.book.take_s = 1.0
        credentials = Credentials(identity(1), Secret("pw"))
        proof = asyncio.create_task(bench.scheduler.prove(credentials, deadline_s=15))
        await asyncio.sleep(0.5)
        await bench.scheduler.hand_over()
        assert now() == pytest.approx(1.0, abs=0.01)
        with pytest.raises(TerminalMoved):
            await proof
        assert bench.terminal.ops() == []


@virtual
async def test_hand_over_of_an_idle_terminal_is_immediate() -> None:
    async with Bench() as bench:
        await bench.see(1)
        await asyncio.sleep(0.7)
        at = now()
        await bench.scheduler.hand_over()
        assert now() == pytest.approx(at)


@virtual
async def test_hand_over_ends_a_job_at_its_next_step() -> None:
    async with Bench() as bench:

        async def step(token: int) -> More | Done[int]:
            await bench.terminal.chunk(identity(1))
            return More()

        job = asyncio.create_task(bench.scheduler.work(bench.entrant(1), step, deadline_s=600))
        await asyncio.sleep(5)
        at = now()
        await bench.scheduler.hand_over()
        assert now() - at <= 0.25
        with pytest.raises(TerminalMoved):
            await job


@virtual
async def test_events_and_sources_that_fail_stop_nothing() -> None:
    async with Bench() as bench:

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        bench.book.looked = broken  # type: ignore[method-assign, assignment]
        bench.book.changed = broken  # type: ignore[method-assign, assignment]
        bench.book.refused = broken  # type: ignore[method-assign, assignment]
        bench.terminal.refused.add((identity(3), "pw"))
        with capture_logs() as logs:
            with pytest.raises(LoginRefused):
                await bench.see(3)
            bench.terminal.faults.append(TerminalTimeout("late"))
            with pytest.raises(TerminalTimeout):
                await bench.see(1)
            await asyncio.sleep(1)
            assert (await bench.see(1)).value.identity == identity(1)
            bench.book.rates = {"a1": 1.0, "a2": 1.0}
            bench.book.source_fault = ZeroDivisionError()
            await asyncio.sleep(60)
            bench.book.demand = broken  # type: ignore[method-assign, assignment]
            await asyncio.sleep(60)
            assert (await bench.see(2)).value.identity == identity(2)
        assert {"look_not_told", "refresh_failed", "demand_unknown"} <= {
            entry["event"] for entry in logs
        }


@virtual
async def test_credentials_that_fail_unforeseen_fail_their_turn_alone() -> None:
    async with Bench() as bench:

        async def broken() -> object:
            raise ZeroDivisionError

        object.__setattr__(bench.entrant(1), "credentials", broken)
        failing, other = bench.ask(1), bench.ask(2)
        with capture_logs() as logs, pytest.raises(InternalFault, match="the turn failed"):
            await failing
        assert [entry["event"] for entry in logs] == ["turn_failed"]
        assert (await other).value.identity == identity(2)
