"""A house: trades, people elsewhere, faults, and what a journal keeps of them."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terminal_sim.broker.house import House
from terminal_sim.broker.journal import Journal, JournalError
from terminal_sim.broker.values import Change, TradeRequest
from terminal_sim.faults.kinds import (
    AnswerLost,
    ClockShift,
    LoginRateLimit,
    LoginRejected,
    MarketClosed,
    Requote,
    TradeRefused,
)
from terminal_sim.scenario.model import Account, Position, Robot, Scenario, Server
from terminal_sim.scenario.moments import DAY_MS, Moment
from terminal_sim.testing import ManualClock

# 2026-11-18 12:34:56.789 UTC, a Wednesday.
NOW_MS = 1_795_005_296_789
HOUR_MS = 3_600_000
BUY = TradeRequest(action=1, symbol="EURUSD", volume=0.1, type=0)


def scenario(**fields: Any) -> Scenario:
    account = Account(1, "secret", "S", investor_password="look", balance=10_000.0, **fields)
    return Scenario((Server("S", clock="UTC"),), (account, Account(2, "x", "S")), seed=5)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
def house(clock: ManualClock) -> Iterator[House]:
    house = House(scenario(), "S", clock)
    yield house
    house.close()


def passing(house: House, clock: ManualClock, ms: int) -> list[tuple[int, Change]]:
    clock.at_ms += ms
    return list(house.advance(clock.at_ms))


def buy(house: House, **fields: Any) -> int:
    outcome = house.trade(
        1, TradeRequest(action=1, symbol="EURUSD", volume=0.1, **fields), reason=3
    )
    assert outcome.result.retcode == 10009
    return outcome.result.order


def present(house: House) -> dict[str, Any]:
    state = house.state(1)
    assert state is not None
    return {
        "positions": list(state.positions.values()),
        "orders": list(state.orders.values()),
        "money": (state.balance, state.credit, state.version),
        "deals": house.history(1, "deals"),
        "done": house.history(1, "orders"),
    }


def test_only_right_credentials_are_let_in(house: House) -> None:
    admitted = house.login(1, "secret")
    assert admitted
    assert admitted.state is house.state(1)
    assert not admitted.investor
    viewed = house.login(1, "look")
    assert viewed
    assert viewed.investor
    assert house.login(1, "wrong") is None
    assert house.login(1, "\ud800") is None
    assert house.login(9, "secret") is None


def test_a_trade_is_applied_told_and_in_the_history(house: House, clock: ManualClock) -> None:
    ticket = buy(house)
    state = house.state(1)
    assert state
    assert list(state.positions) == [ticket]
    ((login, change),) = passing(house, clock, 0)
    assert (login, [p.ticket for p in change.positions]) == (1, [ticket])
    assert [deal.position_id for deal in house.history(1, "deals")] == [0, ticket]
    assert [done.ticket for done in house.history(1, "orders", order=ticket)] == [ticket]
    assert house.history(2, "orders") == ()
    assert house.history(1, "deals", first_s=NOW_MS // 1000, last_s=NOW_MS // 1000) != ()
    assert house.history(1, "deals", first_s=NOW_MS // 1000 + 1) == ()
    assert house.history(1, "deals", last_s=-(2**63), position=2**63) == ()


def test_an_investor_changes_nothing(house: House, clock: ManualClock) -> None:
    before = present(house)
    assert house.trade(1, BUY, reason=3, investor=True).result.retcode == 10017
    assert present(house) == before
    assert passing(house, clock, 1000) == []


def test_people_elsewhere_act_with_their_reason(house: House) -> None:
    house.trade(1, BUY, reason=1)
    assert house.deposit(1, 250.5, 2).result.retcode == 10009
    assert house.deposit(1, -0.5, 0).result.retcode == 10009
    deals = house.history(1, "deals")[1:]
    assert [(deal.type, deal.reason, deal.comment) for deal in deals] == [
        (0, 1, ""),
        (2, 2, "Deposit"),
        (2, 0, "Withdrawal"),
    ]
    state = house.state(1)
    assert state
    assert state.balance == 10_250.0


def test_a_debt_can_be_paid() -> None:
    lost = Position("EURUSD", "buy", 1.0, Moment(NOW_MS - 2), Moment(NOW_MS), price_open=3.0)
    house = House(scenario(positions=(lost,)), "S", ManualClock(NOW_MS))
    state = house.state(1)
    assert state
    assert state.balance < -100_000.0
    assert house.deposit(1, -1.0, 0).result.retcode == 10019
    before = state.balance
    assert house.deposit(1, 1000.0, 0).result.retcode == 10009
    assert state.balance == round(before + 1000.0, 2)


def test_what_holds_positions_cannot_be_withdrawn(house: House) -> None:
    state = house.state(1)
    assert state
    house.trade(1, TradeRequest(action=1, symbol="EURUSD", volume=5.0), reason=3)
    figures = house.check(1, TradeRequest(action=5, symbol="EURUSD", volume=0.1, type=2, price=0.9))
    free = figures.margin_free
    assert 0 < free < state.balance
    assert house.deposit(1, -round(free + 0.01, 2), 0).result.retcode == 10019
    assert state.balance == 10_000.0
    assert house.deposit(1, -free, 0).result.retcode == 10009
    assert state.balance == round(10_000.0 - free, 2)


@pytest.mark.parametrize(
    ("amount", "retcode"), [(-1e5, 10019), (float("nan"), 10013), (0.0, 10013), (0.001, 10013)]
)
def test_money_that_is_none_is_refused(house: House, amount: float, retcode: int) -> None:
    assert house.deposit(1, amount, 0).result.retcode == retcode
    state = house.state(1)
    assert state
    assert state.balance == 10_000.0


def test_stops_trigger_as_time_passes(house: House, clock: ManualClock) -> None:
    state = house.state(1)
    assert state is not None
    buy(house)
    (position,) = state.positions.values()
    near = round(position.price_open - 0.0006, 5)
    request = TradeRequest(action=6, position=position.ticket, symbol="EURUSD", sl=near)
    assert house.trade(1, request, reason=3).result.retcode == 10009
    passing(house, clock, DAY_MS)
    assert not state.positions
    assert house.history(1, "deals")[-1].comment == f"[sl {near:.5f}]"


ROBOT = Robot("EURUSD", 0.2, Moment(NOW_MS + 10_000), 60.0, 30.0)


@pytest.mark.parametrize("mode", ["hedging", "netting"])
def test_what_somebody_closed_is_left(mode: Any, clock: ManualClock) -> None:
    house = House(scenario(robot=ROBOT, margin_mode=mode), "S", clock)
    state = house.state(1)
    assert state is not None
    passing(house, clock, 15_000)
    (held,) = state.positions.values()
    close = TradeRequest(
        action=1, symbol="EURUSD", volume=0.2, type=0 if held.sign < 0 else 1, position=held.ticket
    )
    assert house.trade(1, close, reason=0).result.retcode == 10009
    passing(house, clock, 30_000)
    assert not state.positions
    assert len(house.history(1, "deals", position=held.ticket)) == 2


def test_a_robot_closes_the_rest_of_what_somebody_reduced(clock: ManualClock) -> None:
    house = House(scenario(robot=ROBOT), "S", clock)
    state = house.state(1)
    assert state is not None
    passing(house, clock, 15_000)
    (held,) = state.positions.values()
    part = TradeRequest(
        action=1, symbol="EURUSD", volume=0.05, type=0 if held.sign < 0 else 1, position=held.ticket
    )
    assert house.trade(1, part, reason=0).result.retcode == 10009
    passing(house, clock, 30_000)
    assert not state.positions
    volumes = [deal.volume for deal in house.history(1, "deals", position=held.ticket)]
    assert volumes == [0.2, 0.05, 0.15]


def test_a_netting_robot_undoes_what_it_dealt_into_anothers_position(clock: ManualClock) -> None:
    house = House(scenario(robot=ROBOT, margin_mode="netting"), "S", clock)
    state = house.state(1)
    assert state is not None
    house.trade(1, TradeRequest(action=1, symbol="EURUSD", volume=1.0, type=0), reason=0)
    while_it_trades, between = set(), set()
    passing(house, clock, 15_000)
    for _ in range(12):
        while_it_trades.add(next(iter(state.positions.values())).volume)
        passing(house, clock, 30_000)
        between.add(next(iter(state.positions.values())).volume)
        passing(house, clock, 30_000)
    assert (while_it_trades, between) == ({0.8, 1.2}, {1.0})
    tickets = [deal.ticket for deal in house.history(1, "deals")]
    assert len(tickets) == len(set(tickets)) == 27


def test_a_netting_robot_closes_only_what_it_opened(clock: ManualClock) -> None:
    robot = Robot("EURUSD", 0.01, Moment(NOW_MS + 10_000), 6000.0, 30.0)
    house = House(scenario(robot=robot, margin_mode="netting"), "S", clock)
    state = house.state(1)
    assert state is not None
    passing(house, clock, 15_000)
    (held,) = state.positions.values()
    away = held.price_open - held.sign * 0.002
    more = TradeRequest(action=1, symbol="EURUSD", volume=1.0, type=int(held.sign < 0), sl=away)
    assert house.trade(1, more, reason=0).result.retcode == 10009
    passing(house, clock, 30_000)
    (left,) = state.positions.values()
    assert (left.ticket, left.sign * left.volume) == (held.ticket, held.sign * 1.0)
    # The stop that closes the rest has numbers of its own.
    while held.ticket in state.positions:
        passing(house, clock, HOUR_MS)
    (stopped,) = (deal for deal in house.history(1, "deals") if deal.reason == 4)
    assert stopped.volume == 1.0
    for kind in ("deals", "orders"):
        rows = house.history(1, kind)
        assert len(rows) == len({row.ticket for row in rows})


def test_what_a_robot_could_not_deal_it_does_not_undo(clock: ManualClock) -> None:
    """It has no money for it, whichever way it tries."""
    robot = Robot("EURUSD", 50.0, Moment(NOW_MS + 10_000), 60.0, 30.0)
    house = House(scenario(robot=robot, margin_mode="netting"), "S", clock)
    buy(house)
    passing(house, clock, HOUR_MS)
    state = house.state(1)
    assert state is not None
    assert [p.sign * p.volume for p in state.positions.values()] == [0.1]


# 2026-11-20 22:00:00 UTC: nobody trades on the day after it.
FRIDAY_MS = 1_795_212_000_000


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("mode", ["hedging", "netting"])
def test_a_close_on_a_saturday_is_made_up_for(tmp_path: Path, mode: Any, restarts: bool) -> None:
    planned = Position(
        "EURUSD", "buy", 1.0, Moment(FRIDAY_MS + 60_000), Moment(FRIDAY_MS + DAY_MS // 2)
    )
    told = scenario(positions=(planned,), margin_mode=mode)
    told = Scenario((Server("S", clock="UTC", trading_days="weekdays"),), told.accounts, seed=5)
    clock = ManualClock(FRIDAY_MS)
    house = House(told, "S", clock, Journal.open(tmp_path, "S"))
    buy(house)
    passing(house, clock, 120_000)
    state = house.state(1)
    assert state is not None
    last = list(state.positions.values())[-1]
    buy(house, type=1, position=last.ticket)
    passing(house, clock, DAY_MS)
    if restarts:
        house.close()
        house = House(told, "S", clock, Journal.open(tmp_path, "S"))
    passing(house, clock, 2 * DAY_MS)
    state = house.state(1)
    assert state is not None
    # On a netting account the 0.1 bought before and the 0.1 sold since cancel out.
    assert [p.volume for p in state.positions.values()] == ([0.1] if mode == "hedging" else [])
    house.close()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_robot_closes_when_its_market_opens_again(
    tmp_path: Path,
    clock: ManualClock,
    restarts: bool,
) -> None:
    robot = Robot("EURUSD", 0.2, Moment(NOW_MS + 10_000), 86_400.0, 30.0)
    house = House(scenario(robot=robot), "S", clock, Journal.open(tmp_path, "S"))
    passing(house, clock, 15_000)
    house.inject(1, MarketClosed())
    passing(house, clock, 300_000)
    if restarts:
        house.close()
        house = House(scenario(robot=robot), "S", clock, Journal.open(tmp_path, "S"))
    state = house.state(1)
    assert state is not None
    assert len(state.positions) == 1
    house.mend(None)
    passing(house, clock, 61_000)
    assert not state.positions
    house.close()


def test_a_closed_market_stops_trades_robots_and_stops(clock: ManualClock) -> None:
    house = House(scenario(robot=ROBOT), "S", clock)
    buy(house)
    house.inject(1, MarketClosed(symbol="EURUSD"))
    before = present(house)
    assert house.trade(1, BUY, reason=3).result.retcode == 10018
    assert house.check(1, BUY).retcode == 10018
    passing(house, clock, 10 * 60_000)
    assert present(house)["deals"] == before["deals"]
    house.mend(1)
    passing(house, clock, 2 * 60_000)
    assert len(house.history(1, "deals")) > len(before["deals"])


def test_refusals_and_requotes_carry_nothing_out(house: House) -> None:
    acted: list[int] = []
    house.spent = acted.append
    before = present(house)
    house.inject(1, TradeRefused(retcode=10037, login=1, times=1))
    house.inject(2, Requote(times=1))
    assert house.trade(1, BUY, reason=3).result.retcode == 10037
    requoted = house.trade(1, BUY, reason=3).result
    assert requoted.retcode == 10004
    assert 0 < requoted.bid < requoted.ask
    assert present(house) == before
    assert acted == [1, 2]
    buy(house)


def test_a_requote_is_for_market_orders_only(house: House) -> None:
    house.inject(1, Requote())
    pending = TradeRequest(action=5, symbol="EURUSD", volume=0.1, type=2, price=0.9)
    assert house.trade(1, pending, reason=3).result.retcode == 10009


@pytest.mark.parametrize(("answer", "retcode"), [("timeout", 10012), ("connection", 10031)])
def test_an_answer_is_lost_after_the_deed(house: House, answer: Any, retcode: int) -> None:
    house.inject(1, AnswerLost(answer=answer, times=1))
    refused = house.trade(1, TradeRequest(action=1, symbol="EURUSD", volume=-1.0), reason=3).result
    assert house.answer(1, refused) is refused
    outcome = house.trade(1, BUY, reason=3)
    told = house.answer(1, outcome.result)
    assert told
    assert (told.retcode, told.deal, told.order) == (retcode, 0, 0)
    state = house.state(1)
    assert state
    assert len(state.positions) == 1
    assert house.answer(1, outcome.result) is outcome.result


def test_no_answer_at_all(house: House) -> None:
    house.inject(1, AnswerLost(answer="none", login=2))
    done = house.trade(1, BUY, reason=3).result
    assert house.answer(1, done) is done
    assert house.answer(2, done) is None


def test_logins_are_rejected_and_limited(house: House) -> None:
    house.inject(1, LoginRejected(login=1, times=1))
    assert house.login(2, "x") is not None
    assert house.login(1, "secret") is None
    assert house.login(1, "secret") is not None
    house.inject(2, LoginRateLimit(count=2, window_s=1000))
    tries = [house.login(1, "secret", "one") is not None for _ in range(3)]
    assert tries == [True, True, False]
    assert house.login(1, "secret", "two") is not None
    house.mend(2)
    assert house.login(1, "secret", "one") is not None


def test_a_shifted_clock_keeps_what_was_stamped(house: House, clock: ManualClock) -> None:
    first = buy(house)
    house.inject(7, ClockShift(by_s=3600))
    ((at_ms, by_ms),) = house.terms.shifts
    assert (at_ms, by_ms) == (NOW_MS + 1, HOUR_MS)
    passing(house, clock, 1000)
    second = buy(house)
    stamped = house.history(1, "deals", first_s=NOW_MS // 1000 + 3600)
    assert [deal.order for deal in stamped] == [second]
    stamped = house.history(1, "deals", first_s=NOW_MS // 1000, last_s=NOW_MS // 1000 + 60)
    assert [deal.order for deal in stamped] == [first]
    house.mend(7)
    assert [by for _, by in house.terms.shifts] == [HOUR_MS, -HOUR_MS]
    house.mend(None)
    assert len(house.terms.shifts) == 2
    with pytest.raises(ValueError, match="whole minutes"):
        house.inject(8, ClockShift(by_s=90))


def test_a_journal_brings_everything_back(tmp_path: Path, clock: ManualClock) -> None:
    def reopened() -> House:
        return House(told, "S", clock, Journal.open(tmp_path, "S"))

    held = Position("XAUUSD", "buy", 0.1, Moment(NOW_MS - DAY_MS), Moment(NOW_MS + DAY_MS))
    told = scenario(robot=ROBOT, positions=(held,))
    house = reopened()
    buy(house)
    closed = buy(house)
    passing(house, clock, 1000)
    buy(house, type=1, position=closed)
    house.trade(1, TradeRequest(action=5, symbol="EURUSD", volume=0.1, type=2, price=0.9), reason=3)
    passing(house, clock, 10 * 60_000)
    before = present(house)
    house.close()
    for _ in range(2):
        house = reopened()
        assert present(house) == before
        house.close()
    living = House(told, "S", ManualClock(NOW_MS))
    house = reopened()
    changes = passing(house, clock, 2 * DAY_MS)
    assert len(changes) > 2 * 1440
    robots = [deal for deal in house.history(1, "deals") if deal.comment == "robot"]
    list(living.advance(clock.at_ms))
    assert robots == [deal for deal in living.history(1, "deals") if deal.comment == "robot"]
    ticket = buy(house)
    assert ticket > before["deals"][-1].ticket
    house.close()


def test_relative_times_count_from_the_first_start(tmp_path: Path) -> None:
    def begun(start_ms: int) -> House:
        midnight = start_ms - start_ms % DAY_MS
        opened = Moment(midnight - 2 * DAY_MS, -2 * DAY_MS)
        told = scenario(positions=(Position("EURUSD", "buy", 0.1, opened),))
        return House(told, "S", ManualClock(start_ms), Journal.open(tmp_path, "S"))

    house = begun(NOW_MS)
    before = present(house)
    house.close()
    house = begun(NOW_MS + 3 * DAY_MS)
    assert present(house) == before
    house.close()


def test_a_journal_of_something_else_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    House(scenario(), "S", clock, Journal.open(tmp_path, "S")).close()
    other = Scenario(scenario().servers, scenario().accounts, seed=6)
    changed = scenario(currency="EUR")
    for told, reason in ((other, "was begun with seed 5"), (changed, "account 1 is not what")):
        journal = Journal.open(tmp_path, "S")
        with pytest.raises(JournalError, match=reason):
            House(told, "S", clock, journal)
        journal.close()
    (tmp_path / "T.journal").write_bytes((tmp_path / "S.journal").read_bytes())
    twin = Scenario((Server("T", clock="UTC"),), (Account(1, "secret", "T"),), seed=5)
    journal = Journal.open(tmp_path, "T")
    with pytest.raises(JournalError, match="belongs to the server 'S'"):
        House(twin, "T", clock, journal)
    journal.close()


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "S.journal").write_text("not a database at all, but long enough to be read as one")
    with pytest.raises(JournalError, match=r"S\.journal: file is not a database"):
        Journal.open(tmp_path, "S")
    (tmp_path / "T.journal").mkdir(mode=0o755)
    with pytest.raises(JournalError, match=r"T\.journal: unable to open"):
        Journal.open(tmp_path, "T")
    assert (tmp_path / "T.journal").stat().st_mode & 0o777 == 0o755
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError):
        Journal.open(tmp_path / "file", "S")


@pytest.mark.parametrize(
    "harm",
    [
        "update positions set row = x'c1'",
        "update positions set row = 'text'",
        "update positions set row = null",
        "update pending set row = x'93010203'",
        "insert into late values (1, 8, x'c1')",
        "insert into late values (1, 8, 'text')",
        "update about set advanced_ms = 'x'",
        "update about set ticket = null",
        "update about set began_ms = 1.5",
        "update accounts set balance = 'x'",
        "update accounts set version = null",
        "insert into shifts values ('x', 0, null)",
        "update deals set row = x'c1'",
        "update orders set row = x'90'",
    ],
)
def test_a_damaged_journal_is_refused(tmp_path: Path, clock: ManualClock, harm: str) -> None:
    house = House(scenario(), "S", clock, Journal.open(tmp_path, "S"))
    buy(house)
    pending = TradeRequest(action=5, symbol="EURUSD", volume=0.1, type=2, price=0.9)
    house.trade(1, pending, reason=3)
    house.close()
    base = sqlite3.connect(tmp_path / "S.journal")
    assert base.execute(harm).rowcount
    base.commit()
    base.close()
    journal = Journal.open(tmp_path, "S")
    with pytest.raises(JournalError, match=r"S\.journal: is damaged: "):
        present(House(scenario(), "S", clock, journal))
    journal.close()


def test_a_journal_of_another_version_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    House(scenario(), "S", clock, Journal.open(tmp_path, "S")).close()
    base = sqlite3.connect(tmp_path / "S.journal")
    base.execute("update about set version = 1")
    base.commit()
    base.close()
    journal = Journal.open(tmp_path, "S")
    with pytest.raises(JournalError, match="begun by another version"):
        House(scenario(), "S", clock, journal)
    journal.close()


def test_a_journal_is_its_owners_alone(tmp_path: Path, clock: ManualClock) -> None:
    for _ in range(2):
        house = House(scenario(), "S", clock, Journal.open(tmp_path, "S"))
        buy(house)
        files = list(tmp_path.iterdir())
        assert {path.name for path in files} >= {"S.journal", "S.journal-wal"}
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        house.close()
        # As an older version left it.
        (tmp_path / "S.journal").chmod(0o644)


def test_a_shift_that_outlived_its_broker_is_taken_back(tmp_path: Path, clock: ManualClock) -> None:
    house = House(scenario(), "S", clock, Journal.open(tmp_path, "S"))
    house.inject(3, ClockShift(by_s=-3600))
    passing(house, clock, 60_000)
    house.close()
    house = House(scenario(), "S", clock, Journal.open(tmp_path, "S"))
    assert [by for _, by in house.terms.shifts] == [-HOUR_MS, HOUR_MS]
    house.close()


def test_servers_of_any_name_have_a_file(tmp_path: Path) -> None:
    for name in ("../up", "a/b", "Ünï" * 60, "..", "x y"):
        Journal.open(tmp_path, name).close()
    assert len(list(tmp_path.glob("*.journal"))) == 5
