"""A server that may not exist costs one login, not one for each who names it."""

import asyncio

import pytest

from api_pool.doubts import SILENCE_S, Doubts
from mt5kit.errors import BrokerTimeout, LoginRefused, Mt5SwarmError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Counts the logins under way at once."""

    def __init__(self, failure: Mt5SwarmError | None) -> None:
        self.failure = failure
        self.tries = 0
        self.at_once = 0
        self.most_at_once = 0

    async def login(self, doubts: Doubts) -> None:
        async with doubts.trying("S"):
            self.tries += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            for _ in range(3):
                await asyncio.sleep(0)
            self.at_once -= 1
            if self.failure is not None:
                raise self.failure


async def test_a_silent_server_is_tried_once_by_all() -> None:
    clock = Clock()
    doubts, server = Doubts(clock), Server(BrokerTimeout("silence"))
    outcomes = await asyncio.gather(
        *(server.login(doubts) for _ in range(5)), return_exceptions=True
    )
    assert [type(one) for one in outcomes] == [BrokerTimeout] * 5
    assert server.tries == 1
    last = outcomes[-1]
    assert isinstance(last, BrokerTimeout)
    assert last.retry_after_s == SILENCE_S
    clock.now += SILENCE_S
    server.failure = None
    await server.login(doubts)
    assert server.tries == 2


@pytest.mark.parametrize("failure", [None, LoginRefused("no")])
async def test_a_server_that_answers_is_tried_by_all_at_once(
    failure: Mt5SwarmError | None,
) -> None:
    doubts, server = Doubts(), Server(failure)
    await asyncio.gather(server.login(doubts), return_exceptions=True)
    await asyncio.gather(*(server.login(doubts) for _ in range(4)), return_exceptions=True)
    assert server.tries == 5
    assert server.most_at_once == 4


async def test_a_server_that_falls_silent_is_doubted_again() -> None:
    doubts, server = Doubts(), Server(None)
    await server.login(doubts)
    server.failure = BrokerTimeout("silence")
    for _ in range(3):
        with pytest.raises(BrokerTimeout):
            await server.login(doubts)
    assert server.tries == 2


async def test_who_gives_up_lets_the_next_one_try() -> None:
    doubts, server = Doubts(), Server(None)
    first = asyncio.create_task(server.login(doubts))
    await asyncio.sleep(0)
    second = asyncio.create_task(server.login(doubts))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert server.tries == 2
