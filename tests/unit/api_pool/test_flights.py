"""Looks that several requests share."""

import asyncio

import msgspec
import pytest

from api_pool.flights import Flights
from api_pool.turns import LookTurn, Taken
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.instants import now_ms
from mt5kit.errors import TerminalTimeout

ALPHA = AccountIdentity(1001, "Broker")


class Owner:
    """Takes a turn when the test lets it."""

    def __init__(self) -> None:
        self.asked: list[LookTurn] = []
        self.answers: list[asyncio.Future[Taken]] = []

    async def take(self, turn: LookTurn) -> Taken:
        self.asked.append(turn)
        answer: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return await answer


def taken(as_of_ms: int) -> Taken:
    return Taken("t-1", "api-1", 7, as_of_ms, 0.0, 0.0, msgspec.Raw(b"{}"))


class Looks:
    """Flights of looks at one account."""

    def __init__(self, owner: Owner) -> None:
        self._flights, self._owner = Flights(), owner

    async def look(self, turn: LookTurn) -> Taken:
        asked = (turn.account_id, turn.identity)
        return await self._flights.share(asked, turn.max_age_ms, lambda: self._owner.take(turn))


def turn(max_age_ms: int, identity: AccountIdentity = ALPHA) -> LookTurn:
    return LookTurn("alpha", identity, max_age_ms)


async def test_who_takes_some_age_shares_a_look() -> None:
    owner = Owner()
    flights = Looks(owner)
    waiting = [asyncio.create_task(flights.look(turn(age))) for age in (60_000, 60_000, 5_000)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    look = taken(now_ms())
    owner.answers[0].set_result(look)
    assert await asyncio.gather(*waiting) == [look] * 3
    assert len(owner.asked) == 1


async def test_fresh_shares_only_a_look_made_after_it_was_asked_for() -> None:
    owner = Owner()
    flights = Looks(owner)
    first = asyncio.create_task(flights.look(turn(0)))
    await asyncio.sleep(0)
    before_ms = now_ms()
    while now_ms() == before_ms:
        await asyncio.sleep(0)
    late = [asyncio.create_task(flights.look(turn(0))) for _ in range(5)]
    await asyncio.sleep(0)
    owner.answers[0].set_result(taken(before_ms))
    await first
    while len(owner.answers) < 2:
        await asyncio.sleep(0)
    # One more for all of them, and no more than one at a time.
    assert len(owner.asked) == 2
    look = taken(now_ms())
    owner.answers[1].set_result(look)
    assert await asyncio.gather(*late) == [look] * 5
    assert len(owner.asked) == 2


async def test_a_shared_look_that_is_too_old_is_taken_again() -> None:
    owner = Owner()
    flights = Looks(owner)
    first = asyncio.create_task(flights.look(turn(60_000)))
    await asyncio.sleep(0)
    second = asyncio.create_task(flights.look(turn(5_000)))
    await asyncio.sleep(0)
    owner.answers[0].set_result(taken(now_ms() - 30_000))
    await first
    while len(owner.answers) < 2:
        await asyncio.sleep(0)
    young = taken(now_ms())
    owner.answers[1].set_result(young)
    assert await second == young


async def test_other_credentials_share_nothing() -> None:
    owner = Owner()
    flights = Looks(owner)
    waiting = [
        asyncio.create_task(flights.look(turn(60_000, identity)))
        for identity in (ALPHA, AccountIdentity(1002, "Broker"))
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(owner.asked) == 2
    for answer in owner.answers:
        answer.set_result(taken(now_ms()))
    await asyncio.gather(*waiting)


async def test_who_hangs_up_takes_nothing_from_the_others_and_a_failure_is_everybodys() -> None:
    owner = Owner()
    flights = Looks(owner)
    waiting = [asyncio.create_task(flights.look(turn(60_000))) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    owner.answers[0].set_exception(TerminalTimeout("late"))
    for task in waiting[1:]:
        with pytest.raises(TerminalTimeout):
            await task
    again = asyncio.create_task(flights.look(turn(60_000)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(owner.asked) == 2
    owner.answers[1].set_result(taken(now_ms()))
    await again


async def test_a_flight_that_has_just_landed_holds_nobody_up() -> None:
    flights = Flights()
    old, young = taken(now_ms() - 30_000), taken(now_ms())
    landing: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()

    async def land() -> Taken:
        return await landing

    async def again() -> Taken:
        return young

    first = asyncio.create_task(flights.share("alpha", 60_000, land))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    [flight] = flights._flights.values()
    landing.set_result(old)
    while not flight.done():
        await asyncio.sleep(0)
    # As when the next request is served before the loop has told of the landing.
    flights._flights["alpha"] = flight
    assert await flights.share("alpha", 0, again) is young
    assert await first is old
