"""One poll through wrong answers, refusals and changes of its account."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from mt5kit.backoff import Backoff
from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.broker_time import DEFAULT_RULE
from mt5kit.domain.brokers import Brokers
from mt5kit.errors import LoginRefused, ServiceOverloaded, TerminalUnavailable
from mt5kit.secret import Secret
from mt5kit.service.supervision import keep_running
from mt5kit.state.postgres import Standing
from mt5kit.telemetry.stream_metrics import StreamMetrics
from mt5kit.terminal.credentials import Credentials
from mt5kit.testing.fake_terminal import FakeStreamTerminal, make_position, make_snapshot
from websocket_pool.channel import Channel
from websocket_pool.close_codes import CloseCode
from websocket_pool.credentials import StoredAccount
from websocket_pool.feed import Feed, FeedParts
from websocket_pool.source import StreamOver
from websocket_pool.stream import Stream

ME, OTHER = AccountIdentity(1, "Demo"), AccountIdentity(2, "Demo")


def stored(
    identity: AccountIdentity = ME, password: str = "right", seal: bytes = b"1"
) -> StoredAccount:
    return StoredAccount(
        "acc", Credentials(identity, Secret(password)), AccountState.CONNECTED, seal
    )


class Store:
    """A `CredentialSource` of one account."""

    def __init__(self) -> None:
        self.account = stored()
        self.away = False
        self.reads = 0
        self.refusals: list[bytes] = []

    async def standing(self, account_id: str) -> Standing:
        account = await self.read(account_id)
        return Standing(1, UUID(int=1), account.state)

    async def read(self, account_id: str) -> StoredAccount:
        assert account_id == "acc"
        self.reads += 1
        if self.away:
            raise ServiceOverloaded("the database does not answer")
        return self.account

    async def refused(self, account: StoredAccount, refusal: LoginRefused) -> None:
        assert refusal.message
        self.refusals.append(account.seal)


class Scene:
    def __init__(self, backoff: Backoff | None = None) -> None:
        self.store = Store()
        self.terminal = FakeStreamTerminal("S1", {ME: "right", OTHER: "right"})
        self.stream = Stream(
            Channel("acc", StreamMetrics(CollectorRegistry())), 5, asyncio.get_running_loop()
        )
        pauses = backoff or Backoff(0.001, 0.001)
        parts = FeedParts(self.store, Brokers({}, DEFAULT_RULE), backoff=lambda: pauses)
        self.feed = Feed(self.store.account, self.stream, self.terminal, lambda: 5, parts)

    @asynccontextmanager
    async def fed(self) -> AsyncIterator[tuple["asyncio.Task[None]", "asyncio.Task[None]"]]:
        tasks = asyncio.create_task(self.feed.run()), asyncio.create_task(self.feed.heed())
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_login_that_ends_in_another_account_is_not_repeated() -> None:
    scene = Scene()
    scene.terminal.answers_as[ME] = OTHER
    async with scene.fed():
        await until(lambda: scene.stream.status.state is AccountState.TERMINAL_UNAVAILABLE)
        # A hundred times as long as after any other trouble.
        await asyncio.sleep(0.1)
        assert scene.terminal.sign_ins == [ME]
        assert scene.stream.status.reason == "the terminal logs in as another account"
        assert scene.stream.look is None
        scene.terminal.answers_as.clear()
        scene.store.account = stored(seal=b"2")
        scene.feed.reread()
        await until(lambda: scene.stream.identity == ME)


@pytest.mark.parametrize("turns", range(24))
async def test_new_credentials_are_not_lost_when_the_attempt_ends(turns: int) -> None:
    scene = Scene(Backoff(0, 0))
    async with scene.fed():
        await until(lambda: scene.terminal.polls == 1)
        scene.terminal.passwords[ME] = "new"
        await scene.terminal.disturb(fault=TerminalUnavailable("away"))
        # One of these is the turn of the loop in which the attempt ends.
        for _ in range(turns):
            await asyncio.sleep(0)
        scene.store.account = stored(password="new", seal=b"2")
        scene.feed.reread()
        await until(lambda: scene.terminal.polls == 1 and len(scene.terminal.sign_ins) > 1)
        await scene.terminal.show(make_snapshot(ME, make_position(1)))
        await until(lambda: bool(scene.stream.look and scene.stream.look.positions))
    assert set(scene.store.refusals) <= {b"1"}


async def test_a_store_that_is_away_does_not_disturb_the_stream() -> None:
    scene = Scene()
    async with scene.fed():
        await until(lambda: scene.stream.look is not None)
        scene.store.away = True
        scene.feed.reread()
        await until(lambda: scene.store.reads > 2)
        await scene.terminal.show(make_snapshot(ME, make_position(1)))
        await until(lambda: bool(scene.stream.look and scene.stream.look.positions))
        assert scene.stream.status.state is AccountState.CONNECTED
        assert scene.terminal.sign_ins == [ME]
        scene.store.account = stored(seal=b"2")
        scene.store.away = False
        await until(lambda: scene.terminal.sign_ins == [ME, ME])


async def test_reading_what_has_not_changed_changes_nothing() -> None:
    scene = Scene()
    async with scene.fed():
        await until(lambda: scene.terminal.polls == 1)
        scene.feed.reread()
        await until(lambda: scene.store.reads == 1)
        await asyncio.sleep(0.01)
        assert scene.terminal.sign_ins == [ME]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (stored(OTHER, seal=b"2"), CloseCode.RESTART),
        (replace(stored(), state=AccountState.DISCONNECTED), CloseCode.ENDED),
        # Deleted, and connected anew by somebody else under the same id.
        (replace(stored(), user_id=UUID(int=2)), CloseCode.ENDED),
    ],
)
async def test_an_account_that_is_another_or_over_ends_it(
    changed: StoredAccount, code: CloseCode
) -> None:
    scene = Scene()
    async with scene.fed() as (_, heeding):
        await until(lambda: scene.stream.look is not None)
        scene.store.account = changed
        scene.feed.reread()
        with pytest.raises(StreamOver) as over:
            await asyncio.wait_for(heeding, 5)
        assert over.value.code is code
        assert scene.terminal.sign_ins == [ME]


async def test_a_refusal_is_recorded_for_the_credentials_that_were_tried() -> None:
    scene = Scene()
    scene.terminal.passwords[ME] = "other"
    async with scene.fed():
        await until(lambda: scene.store.refusals == [b"1"])
        scene.store.account = replace(stored(), state=AccountState.LOGIN_FAILED)
        reason = scene.stream.status.reason
        scene.feed.reread()
        await until(lambda: scene.store.reads == 1)
        await asyncio.sleep(0.01)
        assert scene.terminal.sign_ins == [ME]
        assert scene.stream.status.reason == reason


async def test_a_supervised_task_begins_again_and_again() -> None:
    begun = 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 5:
            enough.set()
        if begun % 2:
            raise ValueError("a fault of ours")

    task = asyncio.create_task(keep_running("work", work, Backoff(0.001, 0.001)))
    await asyncio.wait_for(enough.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
