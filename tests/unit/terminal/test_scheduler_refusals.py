"""Credentials a broker refused, brokers that are silent, and budgets that are used up."""

import asyncio
from itertools import pairwise

import pytest
from structlog.testing import capture_logs
from tests.unit.terminal.scheduling_bench import Bench, identity, now, virtual

from mt5kit.errors import BrokerTimeout, LoginRefused, ServiceOverloaded, StaleToken
from mt5kit.secret import Secret
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.scheduling import Done, Entrant, RefusalMemory, SchedulerRules


@virtual
async def test_a_refused_password_is_never_tried_again() -> None:
    async with Bench() as bench:
        bench.terminal.refused.add((identity(1), "pw"))
        bench.book.rates = {"a1": 1.0}

        async def step(token: int) -> Done[int]:
            return Done(token)

        job = asyncio.create_task(bench.scheduler.work(bench.entrant(1), step, deadline_s=60))
        asked = [bench.ask(1) for _ in range(5)]
        await asyncio.sleep(1)
        asked.append(bench.ask(1))
        outcomes = await asyncio.gather(job, *asked, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LoginRefused] * 7
        # Looks, jobs and an hour of refreshes later it has still been tried once.
        at = now()
        with pytest.raises(LoginRefused) as again:
            await bench.see(1)
        assert again.value.details == {"mt5_code": -6}
        assert now() - at < 0.01
        with pytest.raises(LoginRefused):
            await bench.scheduler.work(bench.entrant(1), step, deadline_s=60)
        await asyncio.sleep(3600)
        assert bench.terminal.passwords_tried == [(identity(1), "pw")]
        assert bench.book.refusals == ["a1"]


@virtual
async def test_a_refusal_is_told_without_waiting_for_other_logins() -> None:
    async with Bench() as bench:
        bench.terminal.refused.add((identity(1), "pw"))
        with pytest.raises(LoginRefused):
            await bench.see(1)
        other = bench.ask(2)
        await asyncio.sleep(0.1)
        at = now()
        with pytest.raises(LoginRefused):
            await bench.see(1)
        assert now() - at < 0.01
        await other


@virtual
async def test_other_credentials_are_tried() -> None:
    async with Bench() as bench:
        bench.terminal.refused.add((identity(1), "pw"))
        with pytest.raises(LoginRefused):
            await bench.see(1)
        bench.passwords["a1"] = "new"
        assert (await bench.see(1)).value.identity == identity(1)
        assert bench.terminal.passwords_tried == [(identity(1), "pw"), (identity(1), "new")]


@virtual
async def test_a_proof_clears_what_was_refused() -> None:
    async with Bench() as bench:
        bench.terminal.refused.add((identity(1), "pw"))
        with pytest.raises(LoginRefused):
            await bench.see(1)
        with pytest.raises(LoginRefused):
            await bench.scheduler.prove(Credentials(identity(1), Secret("pw")), deadline_s=15)
        # Only stored credentials make an account `login_failed`.
        assert bench.book.refusals == ["a1"]
        bench.terminal.refused.clear()
        await bench.scheduler.prove(Credentials(identity(1), Secret("pw")), deadline_s=15)
        await bench.see(2)
        assert (await bench.see(1)).value.identity == identity(1)


@virtual
async def test_a_refusal_hurts_no_other_account() -> None:
    async with Bench() as bench:
        bench.terminal.refused.add((identity(1), "pw"))
        refused, other = bench.ask(1), bench.ask(2)
        with pytest.raises(LoginRefused):
            await refused
        assert (await other).value.identity == identity(2)
        assert bench.scheduler.up


@virtual
async def test_the_memory_of_refusals_holds_no_password() -> None:
    async with Bench() as bench:
        bench.passwords["a1"] = "correct horse"
        bench.terminal.refused.add((identity(1), "correct horse"))
        with pytest.raises(LoginRefused):
            await bench.see(1)
        assert bench.refusals.knows("a1")
        assert "correct horse" not in repr(vars(bench.refusals))
        fingerprint = bench.refusals._refused["a1"][0]
        # Another process hashes otherwise.
        async with Bench() as other:
            other.passwords["a1"] = "correct horse"
            other.terminal.refused.add((identity(1), "correct horse"))
            with pytest.raises(LoginRefused):
                await other.see(1)
            assert other.refusals._refused["a1"][0] != fingerprint


def test_all_refusals_are_forgotten_at_once() -> None:
    memory = RefusalMemory()
    for number in (1, 2):
        typed = Credentials(identity(number), Secret("pw"))
        memory.remember(f"a{number}", typed, LoginRefused("no"))
    memory.clear_all()
    for number in (1, 2):
        assert not memory.knows(f"a{number}")
        memory.check(f"a{number}", Credentials(identity(number), Secret("pw")))


@virtual
async def test_a_broker_that_refuses_refreshes_is_given_none_for_a_while() -> None:
    async with Bench() as bench:
        bench.terminal.refused = {(identity(number), "pw") for number in range(1, 6)}
        for number in range(1, 6):
            bench.entrant(number)
        for number in range(6, 9):
            bench.entrant(number, "Other")
        bench.book.rates = {f"a{number}": 1.0 for number in range(1, 9)}
        with capture_logs() as logs:
            await asyncio.sleep(300)
        tried = [who for who, _ in bench.terminal.passwords_tried if who.server == "S"]
        assert len(tried) == len(bench.book.refusals) == 2
        assert logs.count({"event": "refreshes_paused", "server": "S", "log_level": "warning"}) == 1
        told = [entry for entry in logs if entry["event"] == "login_refused"]
        assert {(entry["account_id"], entry["server"], entry["spare"]) for entry in told} == {
            (account_id, "S", True) for account_id in bench.book.refusals
        }
        assert {entry["terminal"] for entry in told} == {"t-1"}
        # The other server goes on, and so does who is waited for.
        assert bench.book.looks[-1][1] > 295
        bench.terminal.refused.clear()
        left = next(n for n in range(1, 6) if f"a{n}" not in bench.book.refusals)
        bench.book.rates = {f"a{left}": 1.0}
        assert (await bench.see(left)).value.identity == identity(left)
        # While it is in, looking at it costs no login.
        await asyncio.sleep(10)
        assert now() - bench.book.looks[-1][1] < 1
        # Another scheduler of the process heeds the pause, and its end.
        async with Bench(refusals=bench.refusals) as another:
            another.book.rates = {"a9": 1.0}
            another.entrant(9)
            await asyncio.sleep(600 - now())
            assert another.terminal.ops("login") == []
            await asyncio.sleep(20)
            assert another.terminal.ops("login") == [("login", 9)]


def test_a_pause_is_told_once_and_not_lengthened() -> None:
    memory = RefusalMemory()
    assert not memory.spare_refused("a1", "S", 0.0)
    assert memory.spare_refused("a2", "S", 10.0)
    # Logins of other terminals that were under way.
    assert not memory.spare_refused("a3", "S", 15.0)
    assert not memory.spare_refused("a4", "Other", 16.0)
    assert memory.paused_until("S") == 610.0
    assert memory.paused_until("Other") < 0
    assert not memory.spare_refused("a5", "S", 611.0)
    assert memory.spare_refused("a6", "S", 612.0)


@virtual
async def test_refusals_far_apart_or_waited_for_pause_nothing() -> None:
    async with Bench() as bench:
        bench.terminal.refused = {(identity(number), "pw") for number in range(1, 5)}
        with capture_logs() as logs:
            for number in (1, 2):
                with pytest.raises(LoginRefused):
                    await bench.see(number)
            for number in (3, 4):
                bench.entrant(number)
                bench.book.rates = {f"a{number}": 1.0}
                await asyncio.sleep(70)
        assert bench.book.refusals == ["a1", "a2", "a3", "a4"]
        assert "refreshes_paused" not in {entry["event"] for entry in logs}
        assert [entry["spare"] for entry in logs if entry["event"] == "login_refused"] == [
            False,
            False,
            True,
            True,
        ]


@virtual
async def test_a_login_that_hangs_holds_back_its_account_alone() -> None:
    async with Bench() as bench:
        bench.terminal.hanging.add(identity(1))
        with capture_logs() as logs, pytest.raises(BrokerTimeout):
            await bench.see(1)
        assert logs == [
            {
                "event": "broker_silent",
                "log_level": "warning",
                "terminal": "t-1",
                "server": "S",
            }
        ]
        asked = now()
        with pytest.raises(BrokerTimeout):
            await bench.see(1)
        assert now() - asked < 0.1
        assert (await bench.see(2)).value.identity == identity(2)
        # After a login there the next to hang is the first again.
        await asyncio.sleep(20)
        bench.terminal.hanging.add(identity(3))
        with pytest.raises(BrokerTimeout):
            await bench.see(3)
        assert (await bench.see(2)).value.identity == identity(2)


@virtual
async def test_a_second_account_that_hangs_silences_the_server() -> None:
    async with Bench() as bench:
        bench.terminal.hanging |= {identity(1), identity(2)}
        for number in (1, 2):
            with pytest.raises(BrokerTimeout):
                await bench.see(number)
        asked = now()
        with pytest.raises(BrokerTimeout):
            await bench.see(3)
        assert now() - asked < 0.1
        bench.entrant(4, "Other")
        assert (await bench.see(4)).value.identity == identity(4, "Other")
        await asyncio.sleep(20)
        assert (await bench.see(3)).value.identity == identity(3)


@virtual
async def test_refreshes_do_not_starve_for_one_that_hangs() -> None:
    async with Bench() as bench:
        bench.terminal.hanging.add(identity(1))
        for number in range(1, 6):
            bench.entrant(number)
        bench.book.rates = {f"a{number}": 1.0 for number in range(1, 6)}
        with capture_logs():
            await asyncio.sleep(3600)
        calls = [call for call in bench.terminal.calls if call.who == identity(1)]
        assert len(calls) >= 3
        assert sum(call.ended - call.began for call in calls) < 0.1 * 3600
        for number in range(2, 6):
            assert bench.terminal.ops("login").count(("login", number)) > 300
        # The others of its server go on at once.
        logins = [call for call in bench.terminal.calls if call.op == "login"]
        for hung, after in pairwise(logins):
            if hung.who == identity(1):
                assert after.began - hung.ended < 0.1


@virtual
async def test_refreshes_come_back_with_their_broker() -> None:
    async with Bench() as bench:
        bench.terminal.silent.add("S")
        for number in range(1, 6):
            bench.entrant(number)
        bench.book.rates = {f"a{number}": 1.0 for number in range(1, 6)}
        with capture_logs():
            await asyncio.sleep(600)
        assert len(bench.terminal.ops("login")) * 18 < 0.55 * 600
        bench.terminal.silent.clear()
        back = now()
        while {account_id for account_id, _ in bench.book.looks} != bench.book.rates.keys():
            await asyncio.sleep(0.1)
        # A login under way, the silence after it, and a login of each.
        assert now() - back < 3 * 18


@virtual
async def test_refreshes_ask_once_of_a_server_that_is_silent() -> None:
    async with Bench() as bench:
        for number in range(1, 9):
            bench.entrant(number)
        bench.book.rates = {f"a{number}": 1.0 for number in range(1, 9)}
        await asyncio.sleep(30)
        bench.terminal.silent.add("S")
        asked: list[str] = []
        entrant = bench.book.entrant

        async def counted(account_id: str) -> Entrant | None:
            asked.append(account_id)
            return await entrant(account_id)

        bench.book.entrant = counted  # type: ignore[method-assign]
        logins = len(bench.terminal.ops("login"))
        with capture_logs():
            await asyncio.sleep(300)
        tried = len(bench.terminal.ops("login")) - logins
        assert len(asked) <= tried + 2


@virtual
async def test_a_silent_broker_gets_at_most_half_of_the_time() -> None:
    async with Bench(SchedulerRules(login_deadline_s=12)) as bench:
        bench.terminal.silent.add("Dead")
        bench.entrant(1, "Dead")
        with pytest.raises(BrokerTimeout):
            await bench.see(1)
        at = now()
        assert at == pytest.approx(10, abs=0.1)
        with pytest.raises(BrokerTimeout) as held:
            await bench.see(1)
        assert now() - at < 0.1
        assert held.value.retry_after_s == pytest.approx(10, abs=0.1)
        await bench.see(2)
        await asyncio.sleep(10)
        bench.terminal.silent.clear()
        assert (await bench.see(1)).value.identity == identity(1, "Dead")
        assert bench.scheduler.up


@virtual
async def test_without_a_login_in_the_budget_those_who_can_wait_do() -> None:
    async with Bench() as bench:
        bench.book.wait_s = lambda _server, _spare: max(5.0 - now(), 0.0)
        patient, hurried = bench.ask(1), bench.ask(1, deadline_s=3.0)
        at = now()
        with pytest.raises(ServiceOverloaded) as refused:
            await hurried
        assert now() - at < 0.1
        assert refused.value.retry_after_s == pytest.approx(5.0, abs=0.1)
        turn = await patient
        assert now() == pytest.approx(6.5, abs=0.1)
        assert turn.value.identity == identity(1)
        # No hammering of the budget meanwhile.
        assert bench.book.granted == [("S", False)]


@virtual
async def test_a_budget_used_up_holds_up_no_other_server() -> None:
    async with Bench() as bench:
        bench.book.wait_s = lambda server, _spare: 30.0 if server == "Full" else 0.0
        bench.entrant(1, "Full")
        held, other = bench.ask(1), bench.ask(2)
        assert (await other).value.identity == identity(2)
        assert not held.done()
        held.cancel()


@virtual
async def test_a_proof_waits_for_the_budget_or_is_told_how_long() -> None:
    async with Bench(SchedulerRules(proof_patience_s=10)) as bench:
        credentials = Credentials(identity(1), Secret("pw"))
        bench.book.wait_s = lambda _server, _spare: max(5.0 - now(), 0.0)
        await bench.scheduler.prove(credentials, deadline_s=15)
        assert now() == pytest.approx(6.5, abs=0.1)
        bench.book.wait_s = lambda _server, _spare: 60.0
        with pytest.raises(ServiceOverloaded) as refused:
            await bench.scheduler.prove(credentials, deadline_s=15)
        assert refused.value.retry_after_s == pytest.approx(60)


@virtual
async def test_a_store_that_does_not_answer_costs_the_terminal_little() -> None:
    async with Bench(SchedulerRules(fetch_deadline_s=2.0)) as bench:
        await bench.see(1)

        async def never() -> Credentials:
            await asyncio.Event().wait()
            raise AssertionError

        stuck = bench.entrant(2)
        object.__setattr__(stuck, "credentials", never)
        waiting = bench.ask(2)
        await asyncio.sleep(0.1)
        other = bench.ask(1)
        with pytest.raises(ServiceOverloaded):
            await waiting
        assert (await other).value.identity == identity(1)
        assert now() < 4.5


@virtual
async def test_a_newer_owner_ends_everything_that_waits() -> None:
    async with Bench() as bench:
        first, second = bench.ask(1), bench.ask(2)
        bench.terminal.faults.append(StaleToken("a newer owner"))
        for asked in (first, second):
            with pytest.raises(StaleToken):
                await asked
        assert bench.scheduler.up
        assert bench.scheduler.current is None
