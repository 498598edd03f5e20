"""Turns of a shared terminal: who is in, who is next, who is answered by which call."""

import asyncio
from dataclasses import replace

import pytest
from tests.unit.terminal.scheduling_bench import Bench, identity, now, virtual

from mt5kit.errors import (
    BrokerTimeout,
    CallFailed,
    Conflict,
    ServiceOverloaded,
    TerminalMoved,
    TerminalTimeout,
    WrongAccount,
)
from mt5kit.secret import Secret
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.scheduling import SchedulerRules


@virtual
async def test_a_login_happens_only_when_another_account_is_in() -> None:
    async with Bench() as bench:
        for number in (1, 1, 2, 2, 1):
            turn = await bench.see(number)
            assert (turn.value.identity, turn.token) == (identity(number), 7)
        assert bench.terminal.ops("login") == [("login", 1), ("login", 2), ("login", 1)]
        assert bench.scheduler.current == "a1"
        assert bench.scheduler.switch_s == pytest.approx(1.5)
        assert bench.metrics.switches._value.get() == 2


@virtual
async def test_an_account_that_is_gone_is_logged_in_again_in_the_same_turn() -> None:
    async with Bench() as bench:
        await bench.see(1)
        bench.terminal.now_in = identity(2)
        assert (await bench.see(1)).value.identity == identity(1)
        assert bench.terminal.ops() == [("login", 1), ("look", 1), ("login", 1)]


@virtual
async def test_a_login_that_gives_another_account_is_no_answer() -> None:
    async with Bench() as bench:
        bench.terminal.renamed[identity(1)] = identity(1, "Renamed")
        with pytest.raises(WrongAccount):
            await bench.see(1)
        assert bench.book.looks == []
        # Only a proof may learn an identity.
        proven = await bench.scheduler.prove(Credentials(identity(1), Secret("pw")), deadline_s=15)
        assert proven.value.identity == identity(1, "Renamed")


@virtual
async def test_credentials_of_another_identity_are_not_tried() -> None:
    async with Bench() as bench:
        stale = replace(bench.entrant(1), credentials=bench.entrant(2).credentials)
        with pytest.raises(WrongAccount):
            await bench.scheduler.look(stale, deadline_s=10)
        assert bench.terminal.calls == []


@virtual
async def test_a_proof_always_logs_in_and_tells_no_look() -> None:
    async with Bench() as bench:
        for _ in range(2):
            await bench.scheduler.prove(Credentials(identity(1), Secret("pw")), deadline_s=15)
        assert bench.terminal.ops() == [("prove", 1), ("prove", 1)]
        assert bench.book.looks == []
        # The account is in: a look costs no login.
        await bench.see(1)
        assert bench.terminal.ops()[2:] == [("look", 1)]
        assert [account for account, _ in bench.book.looks] == ["a1"]


@virtual
async def test_equal_looks_are_one_call() -> None:
    async with Bench() as bench:
        asked = [bench.ask(1) for _ in range(50)]
        await asyncio.gather(*asked)
        assert bench.terminal.ops() == [("login", 1)]
        await asyncio.gather(*(bench.ask(1) for _ in range(50)))
        assert bench.terminal.ops() == [("login", 1), ("look", 1)]


@virtual
async def test_a_call_in_progress_serves_only_who_accepts_its_age() -> None:
    async with Bench() as bench:
        first = bench.ask(1)
        await asyncio.sleep(1.0)
        fresh, aged, young = bench.ask(1), bench.ask(1, max_age_s=5.0), bench.ask(1, max_age_s=0.5)
        await first
        assert aged.done()
        assert not fresh.done()
        assert not young.done()
        turns = await asyncio.gather(fresh, young)
        # Both by one further look.
        assert bench.terminal.ops() == [("login", 1), ("look", 1)]
        assert (await aged).queue_wait_ms == 0
        assert all(turn.queue_wait_ms > 400 for turn in turns)


@virtual
async def test_who_gives_up_takes_nobody_along() -> None:
    async with Bench() as bench:
        leaving, staying = bench.ask(1), bench.ask(1)
        await asyncio.sleep(0.5)
        leaving.cancel()
        await asyncio.wait({leaving})
        assert (await staying).value.identity == identity(1)
        assert bench.terminal.ops() == [("login", 1)]
        assert bench.scheduler.waiting == 0


@virtual
async def test_a_login_nobody_waits_for_any_more_still_ends_and_is_told() -> None:
    async with Bench() as bench:
        only = bench.ask(1)
        await asyncio.sleep(0.5)
        only.cancel()
        await asyncio.sleep(2)
        assert bench.terminal.ops() == [("login", 1)]
        assert [account for account, _ in bench.book.looks] == ["a1"]


@virtual
async def test_everything_for_the_account_that_is_in_goes_before_a_switch() -> None:
    async with Bench() as bench:
        await bench.see(1)
        two, one = bench.ask(2), bench.ask(1)
        await asyncio.gather(one, two)
        assert bench.terminal.ops() == [("login", 1), ("look", 1), ("login", 2)]


@virtual
async def test_the_oldest_waiter_says_who_is_next() -> None:
    async with Bench() as bench:
        await bench.see(9)
        asked = []
        for number in (3, 1, 2, 1, 3):
            asked.append(bench.ask(number))
            await asyncio.sleep(0.001)
        await asyncio.gather(*asked)
        assert bench.terminal.ops("login") == [("login", n) for n in (9, 3, 1, 2)]


@virtual
async def test_who_leaves_gives_up_the_place_of_the_account() -> None:
    async with Bench() as bench:
        await bench.see(9)
        blocking = bench.ask(8)
        await asyncio.sleep(0.1)
        leaving = bench.ask(1)
        await asyncio.sleep(0.1)
        two = bench.ask(2)
        await asyncio.sleep(0.1)
        one = bench.ask(1)
        await asyncio.sleep(0.1)
        leaving.cancel()
        await asyncio.gather(blocking, one, two)
        assert bench.terminal.ops("login")[2:] == [("login", 2), ("login", 1)]


@virtual
async def test_a_hot_account_keeps_others_waiting_no_longer_than_patience() -> None:
    rules = SchedulerRules(patience_s=1.0)
    async with Bench(rules) as bench:
        await bench.see(1)

        async def read_without_pause() -> None:
            while True:
                await bench.see(1)

        hot = asyncio.create_task(read_without_pause())
        # Until it is known how often the reader comes.
        await asyncio.sleep(1)
        asked_at = now()
        turn = await bench.see(2)
        waited = turn.queue_wait_ms / 1000
        assert 0.9 <= waited <= 1.0 + 2 * bench.terminal.look_s
        assert now() - asked_at <= 1.0 + 1.5 + 0.02
        hot.cancel()
        await asyncio.wait({hot})


@virtual
async def test_nobody_starves_among_hot_accounts() -> None:
    rules = SchedulerRules(patience_s=1.0)
    accounts = 5
    async with Bench(rules) as bench:
        waits: list[float] = []

        async def read_without_pause(number: int) -> None:
            while True:
                asked = now()
                await bench.see(number)
                waits.append(now() - asked)

        readers = [asyncio.create_task(read_without_pause(n)) for n in range(accounts)]
        await asyncio.sleep(300)
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
        # The bound of `agenda`: the call in progress, patience, a visit of each.
        visit = 1.5 + 2 * bench.terminal.look_s
        assert max(waits) <= rules.patience_s + (accounts + 1) * visit


@virtual
async def test_it_lingers_for_a_reader_that_comes_often() -> None:
    async with Bench(SchedulerRules(patience_s=1.0, linger_s=0.1)) as bench:
        await bench.see(1)
        for _ in range(10):
            await bench.see(1)
            await asyncio.sleep(0.04)
        other = bench.ask(2)
        # Nothing waits for account 1 now, but its reader is due within 40 ms.
        await asyncio.sleep(0.02)
        assert bench.terminal.ops("login") == [("login", 1)]
        await bench.see(1)
        # Its reader stays away now: the terminal goes on after a moment.
        await other
        assert bench.terminal.ops()[-2:] == [("look", 1), ("login", 2)]


@virtual
async def test_it_does_not_linger_for_a_reader_that_comes_seldom() -> None:
    async with Bench() as bench:
        for _ in range(5):
            await bench.see(1)
            await asyncio.sleep(3)
        asked = now()
        await bench.see(2)
        assert now() - asked == pytest.approx(1.5, abs=0.01)


@virtual
async def test_the_queue_is_bounded_and_says_how_long() -> None:
    async with Bench(SchedulerRules(most_waiting=3)) as bench:
        waiting = [bench.ask(number) for number in (1, 2, 3)]
        await asyncio.sleep(0.1)
        with pytest.raises(ServiceOverloaded) as refused:
            await bench.see(4)
        # What is left of the first login, two more, and one for the fourth.
        assert refused.value.retry_after_s == pytest.approx(5.9, abs=0.01)
        await asyncio.gather(*waiting)


@virtual
async def test_what_cannot_be_answered_in_time_is_refused_at_once() -> None:
    async with Bench() as bench:
        first = bench.ask(1)
        asked = now()
        with pytest.raises(ServiceOverloaded) as refused:
            await bench.see(2, deadline_s=1.0)
        assert now() - asked < 0.01
        assert refused.value.retry_after_s == pytest.approx(3.0, abs=0.1)
        # Those who ask the same as somebody who waits already wait with them.
        joined = bench.ask(1)
        assert (await first).value == (await joined).value


@virtual
async def test_a_deadline_ends_the_waiting() -> None:
    async with Bench() as bench:
        await bench.see(1)
        bench.terminal.switch_s = 4.0
        asked = now()
        # A login that takes longer than the last ones did, and not yet alarmingly long.
        with pytest.raises(ServiceOverloaded):
            await bench.see(2, deadline_s=3.0)
        assert now() - asked == pytest.approx(3.0, abs=0.01)
        await bench.see(2)
        bench.terminal.switch_s = 11.0
        with pytest.raises(TerminalTimeout):
            await bench.see(4, deadline_s=8.0)
        assert bench.scheduler.up


@virtual
async def test_a_proof_waits_for_its_turn_and_then_has_its_own_deadline() -> None:
    async with Bench(SchedulerRules(proof_patience_s=10.0)) as bench:
        bench.terminal.switch_s = 11.0
        credentials = Credentials(identity(1), Secret("pw"))
        proven = await bench.scheduler.prove(credentials, deadline_s=15)
        assert proven.broker_ms == pytest.approx(11_000)
        blocking = bench.ask(2)
        await asyncio.sleep(0.1)
        with pytest.raises(ServiceOverloaded):
            await bench.scheduler.prove(credentials, deadline_s=15)
        await blocking


@virtual
async def test_a_login_nobody_waits_for_is_not_begun() -> None:
    async with Bench() as bench:
        bench.book.take_s = 1.0
        credentials = Credentials(identity(1), Secret("pw"))
        proof = asyncio.create_task(bench.scheduler.prove(credentials, deadline_s=15))
        await asyncio.sleep(0.5)
        proof.cancel()
        await asyncio.sleep(3)
        look = bench.ask(1)
        await asyncio.sleep(0.5)
        look.cancel()
        await asyncio.sleep(3)
        assert bench.terminal.ops() == []
        assert bench.scheduler.waiting == 0


@virtual
async def test_a_failure_is_of_those_who_asked_for_the_call() -> None:
    async with Bench() as bench:
        await bench.see(1)
        bench.terminal.look_s = 1.0
        bench.terminal.faults.append(CallFailed("no"))
        first = bench.ask(1)
        with pytest.raises(CallFailed):
            await first
        # A failed call says nothing of who is in; asking again mends it, without a login.
        assert (await bench.see(1)).value.identity == identity(1)
        assert len(bench.terminal.passwords_tried) == 1
        assert bench.scheduler.switch_s == pytest.approx(1.5)


@virtual
async def test_forgetting_an_account_fails_its_turns_and_silences_its_login() -> None:
    async with Bench() as bench:
        gone, other = bench.ask(1), bench.ask(2)
        await asyncio.sleep(0.5)
        bench.scheduler.forget("a1", Conflict("disconnected"))
        with pytest.raises(Conflict):
            await gone
        assert now() == pytest.approx(0.5)
        await other
        assert [account for account, _ in bench.book.looks] == ["a2"]
        moved = bench.ask(3)
        await asyncio.sleep(0.5)
        bench.scheduler.forget("a3")
        with pytest.raises(TerminalMoved):
            await moved


@virtual
async def test_an_account_that_moves_is_answered_by_the_call_in_progress_and_by_no_other() -> None:
    async with Bench() as bench:
        served, other = bench.ask(1), bench.ask(2)
        await asyncio.sleep(0.5)
        # The login began before it was asked for.
        late = bench.ask(1)
        await asyncio.sleep(0.5)
        bench.scheduler.leave("a1")
        with pytest.raises(TerminalMoved):
            await late
        assert now() == pytest.approx(1.0)
        assert (await served).value.identity == identity(1)
        assert (await other).value.identity == identity(2)
        assert [account for account, _ in bench.book.looks] == ["a1", "a2"]
        # Whoever had been sent here before it moved is not turned away.
        assert (await bench.see(1)).value.identity == identity(1)


@virtual
async def test_expected_waits_count_the_logins_ahead() -> None:
    async with Bench() as bench:
        assert bench.scheduler.expected_wait_s() == pytest.approx(1.5)
        await bench.see(1)
        assert bench.scheduler.expected_wait_s("a1") < 1
        waiting = [bench.ask(2), bench.ask(3)]
        await asyncio.sleep(0)
        assert bench.scheduler.expected_wait_s("a4") == pytest.approx(4.5)
        await asyncio.gather(*waiting)


@virtual
async def test_expected_waits_count_what_is_left_of_the_login_under_way() -> None:
    async with Bench() as bench:
        await bench.see(1)
        expected = bench.scheduler.expected_wait_s
        waiting = bench.ask(2)
        await asyncio.sleep(1.0)
        # Half a second, and for those who are not in a login of their own.
        assert expected("a2") == pytest.approx(0.5, abs=0.01)
        behind = bench.ask(4)
        await asyncio.sleep(0)
        # The login that this one waits for anyway is not its own once more.
        assert expected("a4") == pytest.approx(2.0, abs=0.01)
        behind.cancel()
        await asyncio.wait({behind})
        assert expected("a1") == expected() == pytest.approx(2.0, abs=0.01)
        await waiting
        # The same where nobody waits for the login.
        bench.book.rates = {"a3": 1.0}
        bench.entrant(3)
        await bench.see(2)
        await asyncio.sleep(1.0)
        assert expected("a3") == pytest.approx(0.5, abs=0.05)
        assert expected("a1") == pytest.approx(2.0, abs=0.05)


@virtual
async def test_what_is_late_already_is_expected_to_last_as_long_again() -> None:
    async with Bench(SchedulerRules(login_deadline_s=42.0)) as bench:
        await bench.see(1)
        bench.terminal.hanging.add(identity(2))
        hung = bench.ask(2)
        for lasted_s, left_s in ((5.0, 5.0), (15.0, 15.0), (35.0, 20.0)):
            await asyncio.sleep(lasted_s - (now() - 1.5))
            assert bench.scheduler.expected_wait_s("a1") == pytest.approx(left_s + 1.5, abs=0.05)
        with pytest.raises(BrokerTimeout):
            await hung


@virtual
async def test_expected_waits_count_the_silence_of_a_broker() -> None:
    async with Bench() as bench:
        await bench.see(1)
        bench.terminal.hanging.add(identity(2))
        with pytest.raises(BrokerTimeout) as hung:
            await bench.see(2)
        assert hung.value.retry_after_s
        assert bench.scheduler.expected_wait_s("a2") == pytest.approx(18.0 + 1.5, abs=0.05)
        assert bench.scheduler.expected_wait_s("a1") == pytest.approx(1.5)
        bench.terminal.hanging.add(identity(3))
        with pytest.raises(BrokerTimeout):
            await bench.see(3)
        # Two of them: it is the server.
        assert bench.scheduler.expected_wait_s("a1") == pytest.approx(18.0 + 1.5, abs=0.05)
