"""What is refreshed when, in virtual time, beside a round robin and the bound."""

import asyncio
import math
import sys
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import pairwise

import pytest
from tests.unit.terminal.scheduling_bench import Bench, SwitchingTerminal, now, virtual

from mt5kit.errors import ServiceOverloaded
from mt5kit.terminal.scheduling import refresh as refresh_module
from mt5kit.terminal.scheduling.parts import SchedulerRules
from mt5kit.terminal.scheduling.refresh import Nothing, Pick, Present, RefreshPlan, home_of, stay_s

SWITCH_S = 1.5
# Some ten periods of the least read account, after all have been seen.
SPAN_S = 1500.0
WARM_UP_S = 100.0


def zipf(count: int, exponent: float = 1.1) -> dict[str, float]:
    """Demand of one read per second in all, by rank."""
    raw = [rank**-exponent for rank in range(1, count + 1)]
    return {f"a{rank}": rate / sum(raw) for rank, rate in enumerate(raw, 1)}


def busy(shares: Iterable[float]) -> dict[str, float]:
    """Demand in these proportions on a terminal that is read five times a second."""
    given = list(shares)
    return {f"a{rank}": 5.0 * share / sum(given) for rank, share in enumerate(given, 1)}


def bound(demand: Mapping[str, float], switch_s: float = SWITCH_S) -> float:
    """The mean age of the best pure cycle of logins."""
    return sum(map(math.sqrt, demand.values())) ** 2 * switch_s / 2 / sum(demand.values())


def home_bound(demand: Mapping[str, float], switch_s: float = SWITCH_S) -> float:
    """The mean age where one account outweighs all others: it is stayed with."""
    roots = sorted(map(math.sqrt, demand.values()))
    return 2 * switch_s * roots[-1] * sum(roots[:-1]) / sum(demand.values())


def mean_age(demand: Mapping[str, float], looks: list[tuple[str, float]], span_s: float) -> float:
    """Age since the last look, over time and weighted by demand."""
    total = 0.0
    for account_id, rate in demand.items():
        at = [when for who, when in looks if who == account_id]
        cut = bisect_right(at, WARM_UP_S)
        times = [*at[max(cut - 1, 0) :], span_s]
        area = 0.0
        for before, after in pairwise(times):
            start = max(before, WARM_UP_S)
            area += ((after - before) ** 2 - (start - before) ** 2) / 2
        total += rate * area / (span_s - WARM_UP_S)
    return total / sum(demand.values())


async def refreshed(
    demand: dict[str, float], rules: SchedulerRules, span_s: float = SPAN_S
) -> tuple[float, int]:
    """Demand-weighted mean age of a scheduler left to itself, and its logins."""
    async with Bench(rules, SwitchingTerminal(SWITCH_S, 0.001)) as bench:
        for rank in range(1, len(demand) + 1):
            bench.entrant(rank)
        bench.book.rates = demand
        await asyncio.sleep(span_s - now())
        logins = len(bench.terminal.ops("login"))
        return mean_age(demand, bench.book.looks, now()), logins


def round_robin(demand: Mapping[str, float]) -> float:
    """Every account once a cycle."""
    return len(demand) * SWITCH_S / 2


@virtual
async def test_twenty_accounts_are_as_young_as_can_be() -> None:
    demand = busy(zipf(20).values())
    age, _ = await refreshed(demand, SchedulerRules())
    best = bound(demand)
    sys.stdout.write(
        f"20 accounts: {age:.2f} s; bound {best:.2f} s; round robin {round_robin(demand):.2f} s\n"
    )
    assert age <= 1.1 * best
    assert age < round_robin(demand)


# The first holds an account that the bound would refresh more often than its least period.
@pytest.mark.parametrize(("first", "most"), [(0, 1.2), (1, 1.1), (19, 1.1)])
@virtual
async def test_terminals_of_a_fleet_are_near_the_bound(first: int, most: float) -> None:
    # Four hundred accounts dealt to twenty terminals in the order of their demand.
    demand = busy(list(zipf(400).values())[first::20])
    age, _ = await refreshed(demand, SchedulerRules())
    sys.stdout.write(f"terminal {first}: {age:.2f} s; bound {bound(demand):.2f} s" + "\n")
    assert age <= most * bound(demand)


@virtual
async def test_staying_with_an_account_that_outweighs_the_others_makes_it_younger() -> None:
    demand = {"a1": 100.0, "a2": 1.0, "a3": 1.0, "a4": 1.0}
    rules = SchedulerRules(min_period_s=0.0)
    age, logins = await refreshed(demand, rules, 600.0)
    sys.stdout.write(
        f"home: {age:.2f} s; pure cycle {bound(demand):.2f} s; {home_bound(demand):.2f} s" + "\n"
    )
    # The age at home is that between two cheap looks.
    assert age <= 1.05 * home_bound(demand) + rules.dwell_look_s / 2
    assert age < 0.85 * bound(demand)
    # And spares logins.
    assert logins < 0.5 * 600 / SWITCH_S


@pytest.mark.parametrize("hottest", [4.0, 9.0, 16.0, 100.0])
def test_staying_is_never_worse_than_cycling(
    hottest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    demand = {"a1": hottest, "a2": 1.0, "a3": 1.0, "a4": 0.5, "a5": 0.5}
    rules = SchedulerRules(min_period_s=0.0)
    ages: list[float] = []

    @virtual
    async def measure() -> None:
        ages.append((await refreshed(demand, rules, 600.0))[0])

    measure()
    monkeypatch.setattr(refresh_module, "home_of", lambda _weights: None)
    measure()
    staying, cycling = ages
    sys.stdout.write(f"hottest {hottest}: {staying:.2f} s; cycling {cycling:.2f} s" + "\n")
    assert staying <= 1.02 * cycling


@virtual
async def test_no_account_is_logged_in_more_often_than_its_period() -> None:
    for demand in ({"a1": 1.0, "a2": 1.0}, {"a1": 100.0, "a2": 1.0}, zipf(3)):
        async with Bench(SchedulerRules(min_period_s=5.0)) as bench:
            for rank in range(1, 4):
                bench.entrant(rank)
            bench.book.rates = dict(demand)
            await asyncio.sleep(300)
            logins = [call for call in bench.terminal.calls if call.op == "login"]
            assert len(logins) > 15
            last: dict[object, float] = {}
            for call in logins:
                assert call.ended - last.get(call.who, -math.inf) >= 5.0
                last[call.who] = call.ended


@virtual
async def test_no_account_is_logged_in_more_than_twice_as_often_as_it_is_read() -> None:
    async with Bench() as bench:
        bench.book.rates = {"a1": 0.03, "a2": 0.02, "a3": 0.01}
        for rank in range(1, 4):
            bench.entrant(rank)
        await asyncio.sleep(3600)
        logins = bench.terminal.ops("login")
        for account_id, rate in bench.book.rates.items():
            count = logins.count(("login", int(account_id[1:])))
            # One more at the start, when nobody has been seen; who stays in is looked at freely.
            assert 0.8 * rate * 3600 <= count <= 2 * rate * 3600 + 1


@virtual
async def test_an_account_alone_costs_one_login() -> None:
    async with Bench() as bench:
        bench.entrant(1)
        bench.book.rates = {"a1": 0.01}
        await asyncio.sleep(600)
        assert bench.terminal.ops("login") == [("login", 1)]
        gaps = [b - a for (_, a), (_, b) in pairwise(bench.book.looks)]
        assert max(gaps) <= 0.3


@virtual
async def test_refreshes_leave_the_budget_its_reserve_and_wait() -> None:
    async with Bench() as bench:
        bench.book.rates = zipf(5)
        for rank in range(1, 6):
            bench.entrant(rank)
        await asyncio.sleep(20)
        spares = [spare for _, spare in bench.book.granted]
        assert len(spares) >= 5
        assert all(spares)
        asked: list[float] = []
        until = now() + 60

        def wait_s(_server: str, spare: bool) -> float:
            if not spare:
                return 0.0
            asked.append(now())
            return min(10.0, max(until - now(), 0.0))

        bench.book.wait_s = wait_s
        await asyncio.sleep(2)
        logins = len(bench.terminal.ops("login"))
        await bench.see(6)
        assert len(bench.terminal.ops("login")) == logins + 1
        await asyncio.sleep(until - now() - 1)
        assert len(bench.terminal.ops("login")) == logins + 1
        # One question a server and wait, and not one an account.
        assert len(asked) <= 8
        await asyncio.sleep(20)
        assert len(bench.terminal.ops("login")) >= logins + 5


@virtual
async def test_accounts_not_to_be_refreshed_are_left_alone_and_asked_about_again() -> None:
    async with Bench() as bench:
        bench.book.rates = {"a1": 1.0, "a2": 0.1}
        gone = bench.entrant(1)
        bench.entrant(2)
        del bench.book.entrants["a1"]
        await asyncio.sleep(20)
        assert bench.terminal.ops("login") == [("login", 2)]
        bench.book.entrants["a1"] = gone
        await asyncio.sleep(40)
        assert ("login", 1) in bench.terminal.ops("login")


@virtual
async def test_the_account_that_is_in_is_looked_at_while_its_source_knows_it_or_is_away() -> None:
    async with Bench() as bench:
        bench.book.rates = {"a1": 1.0}
        bench.entrant(1)
        await asyncio.sleep(10)
        bench.book.source_fault = ServiceOverloaded("away")
        await asyncio.sleep(60)
        assert now() - bench.book.looks[-1][1] <= 0.3
        bench.book.source_fault = None
        del bench.book.entrants["a1"]
        await asyncio.sleep(60)
        assert now() - bench.book.looks[-1][1] >= 54


@virtual
async def test_an_account_that_goes_during_its_refresh_is_not_told() -> None:
    async with Bench() as bench:
        bench.book.rates = {"a1": 1.0}
        bench.entrant(1)
        await asyncio.sleep(1)
        bench.book.rates = {}
        bench.scheduler.forget("a1")
        await asyncio.sleep(5)
        assert bench.book.looks == []
        assert bench.scheduler.current is None


@virtual
async def test_a_source_that_is_away_is_asked_again() -> None:
    async with Bench() as bench:
        bench.book.rates = {"a1": 1.0}
        bench.entrant(1)
        bench.book.source_fault = ServiceOverloaded("away")
        await asyncio.sleep(20)
        assert bench.terminal.ops("login") == []
        bench.book.source_fault = None
        await asyncio.sleep(10)
        assert bench.terminal.ops("login") == [("login", 1)]


@virtual
async def test_demand_comes_before_refreshes() -> None:
    async with Bench() as bench:
        bench.book.rates = zipf(20)
        for rank in range(1, 21):
            bench.entrant(rank)
        await asyncio.sleep(30.3)
        for _ in range(20):
            asked = now()
            await bench.see(30)
            # A refresh in progress, and its own login.
            assert now() - asked <= 2 * SWITCH_S + 0.02
            await asyncio.sleep(1.7)


def test_unknown_accounts_come_first_and_the_most_read_of_them() -> None:
    plan = RefreshPlan(SchedulerRules())
    present = Present(None, 0.0, 1.5)
    plan.looked("old", "S", 0.0, logged_in=True)
    demand = {"old": 1.0, "new": 0.5, "hot": 0.9}
    assert plan.next(demand, present, 100.0) == Pick("hot")


def test_nothing_says_until_when() -> None:
    plan = RefreshPlan(SchedulerRules(min_period_s=5.0, dwell_look_s=0.25))
    plan.looked("a", "S", 10.0, logged_in=True)
    plan.looked("b", "S", 12.0, logged_in=True)
    demand = {"a": 1.0, "b": 1.0}
    assert plan.next(demand, Present("b", 12.0, 1.5), 12.0) == Nothing(12.25)
    assert plan.next(demand, Present(None, 12.0, 1.5), 12.0) == Nothing(13.5)
    plan.skip("a", 20.0)
    assert plan.next(demand, Present(None, 12.0, 1.5), 12.0) == Nothing(15.5)
    plan.skip_server("S", 30.0)
    assert plan.next(demand, Present(None, 12.0, 1.5), 20.0) == Nothing(30.0)
    assert plan.next({}, Present(None, 12.0, 1.5), 50.0) == Nothing(math.inf)


def test_a_server_without_logins_keeps_nobody_from_looking_at_who_is_in() -> None:
    plan = RefreshPlan(SchedulerRules(min_period_s=5.0, dwell_look_s=0.25))
    plan.looked("a", "S", 10.0, logged_in=True)
    plan.looked("b", "S", 12.0, logged_in=True)
    plan.skip_server("S", 600.0)
    demand = {"a": 1.0, "b": 1.0}
    assert plan.next(demand, Present("b", 12.0, 1.5), 100.0) == Pick("b")
    plan.looked("b", "S", 100.0, logged_in=False)
    assert plan.next(demand, Present("b", 12.0, 1.5), 100.0) == Nothing(100.25)
    assert plan.next(demand, Present(None, 12.0, 1.5), 100.0) == Nothing(600.0)


def test_an_account_that_hangs_is_left_alone_for_longer_each_time() -> None:
    plan = RefreshPlan(SchedulerRules())
    rests = []
    for _ in range(8):
        plan.hung("a", 0.0, 18.0)
        nothing = plan.next({"a": 1.0}, Present(None, 0.0, 1.5), 0.0)
        assert isinstance(nothing, Nothing)
        rests.append(nothing.until / 18.0)
    assert rests == [1, 2, 4, 8, 16, 32, 32, 32]
    plan.looked("a", "S", 600.0, logged_in=True)
    plan.hung("a", 600.0, 618.0)
    assert plan.next({"a": 1.0}, Present(None, 0.0, 1.5), 600.0) == Nothing(618.0)


def test_accounts_that_left_leave_no_records() -> None:
    plan = RefreshPlan(SchedulerRules())
    for number in range(1000):
        account_id = f"a{number}"
        plan.looked(account_id, "S", float(number), logged_in=True)
        plan.next({account_id: 1.0}, Present(account_id, 0.0, 1.5), float(number))
    assert len(plan._looked) < 100
    plan.forget("a999")
    assert "a999" not in plan._looked


def test_the_stay_at_home_is_that_of_the_optimum() -> None:
    assert stay_s({"a": 3.0, "b": 1.0}, "a", 1.5) == pytest.approx(6.0)
    assert stay_s({"a": 1.0}, "a", 1.5) == math.inf


def test_only_one_that_outweighs_all_others_has_its_home_here() -> None:
    assert home_of({"a": 1.0, "b": 1.0}) is None
    assert home_of({"a": 3.0, "b": 1.0, "c": 1.0}) == "a"
    assert home_of({"a": 1.0}) == "a"
    assert home_of({}) is None
