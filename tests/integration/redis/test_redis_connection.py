import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from mt5kit.state.redis import (
    Control,
    ControlChannel,
    Keys,
    LeaseStore,
    RedisFault,
    StateUnavailable,
    TicketStore,
    open_redis,
)
from mt5kit.state.redis import subscription as subscription_module
from mt5kit.state.redis.connection import answering


async def test_no_cancellation_is_lost(redis: Redis, keys: Keys) -> None:
    store, rng = LeaseStore(redis, keys), random.Random(1)

    async def work() -> None:
        while True:
            await store.announce("api", "a", 10_000)

    async def cancelled_at_random() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(rng.random() * 0.01)
        task.cancel()
        ended, _ = await asyncio.wait([task], timeout=10)
        task.cancel()
        assert ended

    for _ in range(20):
        await asyncio.gather(*(cancelled_at_random() for _ in range(20)))


async def test_a_task_that_was_cancelled_may_still_clean_up(redis: Redis, keys: Keys) -> None:
    store, cleaned = LeaseStore(redis, keys), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await store.acquire("T1", "a")
            cleaned.set()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()


async def test_a_deadline_of_ours_is_kept(redis: Redis, keys: Keys) -> None:
    store = LeaseStore(redis, keys)

    async def work_for(seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while True:
                await store.announce("api", "a", 10_000)

    for _ in range(50):
        with pytest.raises(TimeoutError):
            await work_for(0.005)


async def setting(admin: Redis, name: str) -> str:
    value = (await admin.config_get(name))[name]
    assert value is not None
    return value


@asynccontextmanager
async def configured(admin: Redis, **changed: str) -> AsyncIterator[None]:
    """Redis with other settings, until the block ends."""
    before = {name: await setting(admin, name) for name in changed}
    try:
        for name, value in changed.items():
            await admin.config_set(name, value)
        yield
    finally:
        for name, value in before.items():
            await admin.config_set(name, value)


async def refuses_writes(redis: Redis, keys: Keys) -> None:
    """A plain command and a script's are both said to be unavailable."""
    for write in (
        TicketStore(redis, keys).issue("1", "u"),
        LeaseStore(redis, keys).acquire("T", "a"),
    ):
        with pytest.raises(StateUnavailable) as away:
            await write
        assert away.value.retry_after_s


async def test_without_its_replicas_redis_is_unavailable(
    redis: Redis, admin: Redis, keys: Keys
) -> None:
    settings = {"min-replicas-to-write": "1"}
    async with configured(admin, **settings):
        await refuses_writes(redis, keys)
    assert await TicketStore(redis, keys).issue("1", "u")


async def test_with_a_disk_that_takes_nothing_redis_is_unavailable(
    redis: Redis, admin: Redis, keys: Keys, tmp_path: Path
) -> None:
    # A file cannot take the place of a directory: the save fails.
    (Path(await setting(admin, "dir")) / tmp_path.name).mkdir()
    settings = {"dbfilename": tmp_path.name, "save": "3600 1"}

    async def saving(status: str) -> None:
        await admin.bgsave()
        while (found := await redis.info("persistence"))["rdb_bgsave_in_progress"]:
            await asyncio.sleep(0.01)
        assert found["rdb_last_bgsave_status"] == status

    async with asyncio.timeout(20):
        async with configured(admin, **settings):
            await saving("err")
            await refuses_writes(redis, keys)
        await saving("ok")
    assert await TicketStore(redis, keys).issue("1", "u")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("MISCONF Redis is configured to save RDB snapshots script: f, on @user_script:2.", "away"),
        ("Error running script (call to f): @user_script:1: -NOREPLICAS Not enough", "away"),
        ("Error running script (call to f): @user_script: 1: -READONLY You can't write", "away"),
        ("BUSY Redis is busy running a script", "away"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "fault"),
        ("unknown command 'MISCONF', with args beginning with:", "fault"),
    ],
)
async def test_refusals_that_pass_are_told_from_our_mistakes(text: str, kind: str) -> None:
    with pytest.raises(StateUnavailable if kind == "away" else RedisFault), answering():
        raise ResponseError(text)


class Proxy:
    """Stands between a client and Redis; `freeze` leaves what is open half open."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._open: list[asyncio.Event] = []
        self.count = 0

    def freeze(self) -> None:
        for frozen in self._open:
            frozen.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        frozen = asyncio.Event()
        self._open.append(frozen)
        there, back = await asyncio.open_unix_connection(self._target)
        try:
            await asyncio.gather(
                self._pump(reader, back, frozen), self._pump(there, writer, frozen)
            )
        finally:
            back.close()
            writer.close()

    @staticmethod
    async def _pump(
        source: asyncio.StreamReader, sink: asyncio.StreamWriter, frozen: asyncio.Event
    ) -> None:
        while data := await source.read(65_536):
            if not frozen.is_set():
                sink.write(data)
        sink.close()


@pytest.fixture
async def proxied(
    redis_url: str, redis: Redis, tmp_path: Path
) -> AsyncIterator[tuple[Redis, Proxy]]:
    """A client behind a proxy."""
    del redis
    path = redis_url.partition("@")[2]
    proxy, mine = Proxy(path), str(tmp_path / "proxy.sock")
    server = await asyncio.start_unix_server(proxy.serve, mine)
    client = open_redis(redis_url.replace(path, mine))
    yield client, proxy
    await client.aclose()
    server.close()
    await server.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def heard_in_time(
    heard: "asyncio.Queue[object]", send: Callable[[], Awaitable[int]]
) -> object:
    async with asyncio.timeout(10):
        # Nothing tells when the listener has subscribed.
        while not await send():
            await asyncio.sleep(0.01)
        return await heard.get()


async def test_a_half_open_subscription_is_noticed(
    proxied: tuple[Redis, Proxy], redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "LISTEN_S", 0.05)
    monkeypatch.setattr(subscription_module, "ANSWER_S", 0.05)
    monkeypatch.setattr(subscription_module, "_RECONNECT_S", 0.01)
    client, proxy = proxied
    heard: asyncio.Queue[object] = asyncio.Queue()
    stood: list[int] = []

    async def listen() -> None:
        channel = ControlChannel(client, keys)
        async for order in channel.listen(lambda: stood.append(proxy.count)):
            heard.put_nowait(order)

    def send() -> Awaitable[int]:
        return ControlChannel(redis, keys).publish("a-1", Control.DISCONNECT)

    listener = asyncio.create_task(listen())
    try:
        assert await heard_in_time(heard, send) == ("a-1", Control.DISCONNECT)
        # A silence alone is no reason to come back.
        await asyncio.sleep(0.2)
        assert stood == [1]
        proxy.freeze()
        await until(lambda: len(stood) > 1)
        assert await heard_in_time(heard, send) == ("a-1", Control.DISCONNECT)
    finally:
        listener.cancel()
        await asyncio.wait([listener])
