"""Credentials a broker refused, brokers that are silent, and budgets that are used up."""

import asyncio

import pytest
from tests.unit.terminal.scheduling_bench import Bench, identity, now, virtual

from mt5kit.errors import BrokerTimeout, LoginRefused, ServiceOverloaded, StaleToken
from mt5kit.secret import Secret
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.scheduling import Done, SchedulerRules


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
