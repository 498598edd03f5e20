"""Sync jobs on a real Redis: claimed by whoever holds the terminal, ended or begun again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from api_pool import syncing
from api_pool.history_pages import FIRST_PAGE, HistoryPages, key_of, page_query
from api_pool.places import Board, Places
from api_pool.store_watch import StoreWatch
from api_pool.syncing import SyncParts, SyncRunner
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.brokers import Brokers
from mt5kit.domain.instants import now_ms
from mt5kit.errors import LoginRefused, TerminalMoved
from mt5kit.secret import Secret
from mt5kit.service.background import Background
from mt5kit.state.redis import (
    HistoryCache,
    Keys,
    PlacementStore,
    Redis,
    StateUnavailable,
    SyncJob,
    SyncStore,
    TerminalEntry,
    open_redis,
)
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.history import SyncResult
from mt5kit.terminal.scheduling import Entrant, Turn

KEYS = Keys("mt5:test")
BROKERS = Brokers({"S": "UTC"}, "UTC")
IDENTITY = AccountIdentity(7, "S")


class Scheduler:
    """Finds three deals and two orders; `work_ends` makes it fail, or wait."""

    def __init__(self) -> None:
        self.looks: list[str] = []
        self.works = 0
        self.work_ends: Callable[[], Awaitable[None]] | None = None

    async def look(self, entrant: Entrant, *, deadline_s: float) -> None:
        assert deadline_s == syncing.JOB_DEADLINE_S
        self.looks.append(entrant.account_id)

    async def work(self, _entrant: Entrant, _step: object, *, deadline_s: float) -> Any:
        assert deadline_s == syncing.JOB_DEADLINE_S
        self.works += 1
        if self.work_ends is not None:
            await self.work_ends()
        return Turn(SyncResult(3, 2), 1, 0, 0)


class Owned:
    def __init__(self, terminal_id: str) -> None:
        self.terminal_id = terminal_id
        self.scheduler = Scheduler()
        self.link: Any = self
        self.settling: Any = None

    async def deals(self, *_: object) -> None:
        raise AssertionError("the scheduler takes no step")

    orders = deals


class Replica:
    """A replica with one terminal; its runner is the real one."""

    def __init__(self, redis: Redis, name: str, terminal_id: str, capacity: int = 5) -> None:
        self.instance_id = name
        self.terminal_id = terminal_id
        self.owned = {terminal_id: Owned(terminal_id)}
        self.ended = False
        self.background = Background()
        self.store = SyncStore(redis, KEYS)
        self.cache = HistoryCache(redis, KEYS)
        self.placements = PlacementStore(redis, KEYS)
        board = Board((), capacity)
        board.attach(
            lambda: {terminal_id: TerminalEntry(name, up=True, since_ms=0, switch_ms=1, waiting=0)}
        )
        parts: dict[str, Any] = {"fleet": self, "sessions": self}
        self.runner = SyncRunner(
            SyncParts(
                store=self.store,
                placements=self.placements,
                places=Places(self.placements, board, 300, StoreWatch()),
                pages=HistoryPages(self.cache, self.background, StoreWatch()),
                brokers=BROKERS,
                background=self.background,
                **parts,
            )
        )

    @property
    def scheduler(self) -> Scheduler:
        return self.owned[self.terminal_id].scheduler

    async def to_refresh(self, account_id: str) -> Entrant | None:
        return None if self.ended else self.entrant(account_id, IDENTITY)

    def entrant(self, account_id: str, identity: AccountIdentity) -> Entrant:
        async def credentials() -> Credentials:
            return Credentials(identity, Secret("none"))

        return Entrant(account_id, identity, credentials)

    async def status(self, job: SyncJob) -> SyncJob:
        known = await self.store.get(job.sync_id)
        assert known is not None
        return known

    async def until(self, job: SyncJob, status: str) -> SyncJob:
        async with asyncio.timeout(10):
            while (known := await self.status(job)).status != status:
                await asyncio.sleep(0.002)
        return known


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def replica(redis: Redis) -> AsyncIterator[Replica]:
    replica = Replica(redis, "api-1", "t-1")
    await replica.placements.place("alpha", ["t-1"])
    yield replica
    await replica.background.aclose()


@pytest.fixture
def short_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncing, "CLAIM_MS", 30)
    monkeypatch.setattr(syncing, "RENEW_S", 0.005)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_job_ends_with_what_it_read_and_warms_the_first_pages(replica: Replica) -> None:
    job = await replica.store.create("alpha", "user", 40)
    await replica.runner.look()
    done = await replica.until(job, "done")
    assert (done.progress, done.deals, done.orders, done.error) == (100, 3, 2, None)
    assert replica.scheduler.looks == ["alpha"]
    query = page_query(BROKERS, "S")
    assert query.limit == FIRST_PAGE
    for kind in ("deals", "orders"):
        page = await replica.cache.get("alpha", kind, key_of(query))
        assert page is not None
        assert (page.identity_login, page.terminal_id) == (7, "t-1")
    await replica.runner.look()
    assert replica.scheduler.works == 1


async def test_a_job_that_reads_less_than_a_page_may_need_warms_none(replica: Replica) -> None:
    job = await replica.store.create("alpha", "user", 5)
    await replica.runner.look()
    await replica.until(job, "done")
    assert await replica.cache.get("alpha", "deals", key_of(page_query(BROKERS, "S"))) is None


async def test_a_job_of_anothers_terminal_is_left_to_it(redis: Redis, replica: Replica) -> None:
    other = Replica(redis, "api-2", "t-2")
    job = await replica.store.create("alpha", "user", 40)
    await other.runner.look()
    assert (await replica.status(job)).status == "queued"
    await replica.runner.look()
    await replica.until(job, "done")
    assert other.scheduler.works == 0


@pytest.mark.usefixtures("short_claims")
async def test_a_replica_that_dies_leaves_its_job_to_the_next_owner(
    redis: Redis, replica: Replica
) -> None:
    dying = Replica(redis, "api-2", "t-1")
    dying.scheduler.work_ends = forever
    job = await replica.store.create("alpha", "user", 40)
    await dying.runner.look()
    await replica.until(job, "running")
    await replica.runner.look()
    assert replica.scheduler.works == 0, "it is claimed"
    # Killed: nothing is renewed and nothing is written.
    for task in [one for one in asyncio.all_tasks() if one.get_name().startswith("sync-")]:
        task.cancel()
    async with asyncio.timeout(10):
        while not replica.scheduler.works:
            await replica.runner.look()
    assert (await replica.until(job, "done")).deals == 3


@pytest.mark.usefixtures("short_claims")
async def test_a_job_at_work_keeps_its_claim(redis: Redis, replica: Replica) -> None:
    waiting = Replica(redis, "api-2", "t-1")
    job = await replica.store.create("alpha", "user", 40)
    over = asyncio.Event()
    rounds = 0

    async def ends() -> None:
        await over.wait()

    replica.scheduler.work_ends = ends
    await replica.runner.look()
    began = (await replica.until(job, "running")).updated_ms
    while (await replica.status(job)).updated_ms < began + 3 * syncing.CLAIM_MS:
        await waiting.runner.look()
        rounds += 1
    over.set()
    await replica.until(job, "done")
    assert rounds
    assert (replica.scheduler.works, waiting.scheduler.works) == (1, 0)


@pytest.mark.parametrize("gone", [TerminalMoved("handed over"), StateUnavailable("away")])
async def test_a_job_whose_terminal_goes_is_begun_again(replica: Replica, gone: Exception) -> None:
    async def moved() -> None:
        replica.scheduler.work_ends = None
        raise gone

    replica.scheduler.work_ends = moved
    job = await replica.store.create("alpha", "user", 40)
    with capture_logs() as logs:
        await replica.runner.look()
        async with asyncio.timeout(10):
            while not logs:
                await asyncio.sleep(0)
    assert logs[0]["event"] == "sync_left"
    await replica.runner.look()
    await replica.until(job, "done")
    assert replica.scheduler.works == 2


@pytest.mark.parametrize(
    ("failure", "code"),
    [(LoginRefused("no"), "MT5_LOGIN_FAILED"), (ValueError("odd"), "INTERNAL")],
)
async def test_a_job_that_fails_says_why_and_is_not_begun_again(
    replica: Replica, failure: Exception, code: str
) -> None:
    async def fail() -> None:
        raise failure

    replica.scheduler.work_ends = fail
    job = await replica.store.create("alpha", "user", 40)
    await replica.runner.look()
    failed = await replica.until(job, "failed")
    assert failed.error is not None
    assert failed.error.code == code
    await replica.runner.look()
    assert replica.scheduler.works == 1


@pytest.mark.parametrize("placed", [True, False])
async def test_a_job_of_an_account_that_ended_fails_and_leaves_it_no_place(
    replica: Replica, placed: bool
) -> None:
    if not placed:
        await replica.placements.remove("alpha")
    replica.ended = True
    job = await replica.store.create("alpha", "user", 40)
    await replica.runner.look()
    failed = await replica.until(job, "failed")
    assert failed.error is not None
    assert failed.error.code == "ACCOUNT_NOT_FOUND"
    assert await replica.placements.where("alpha") is None
    assert replica.scheduler.looks == []


@pytest.mark.usefixtures("short_claims")
async def test_a_job_of_a_deleted_account_is_ended_while_it_runs(replica: Replica) -> None:
    stopped = asyncio.Event()

    async def until_cancelled() -> None:
        try:
            await forever()
        finally:
            stopped.set()

    replica.scheduler.work_ends = until_cancelled
    job = await replica.store.create("alpha", "user", 40)
    await replica.runner.look()
    await replica.until(job, "running")
    assert await replica.store.cancel_account("alpha")
    async with asyncio.timeout(10):
        await stopped.wait()
    failed = await replica.until(job, "failed")
    assert failed.error is not None
    assert failed.error.code == "ACCOUNT_NOT_FOUND"


async def test_a_job_waits_for_room(redis: Redis) -> None:
    replica = Replica(redis, "api-1", "t-1", capacity=1)
    await replica.placements.place("beta", ["t-1"])
    job = await replica.store.create("alpha", "user", 40)
    with capture_logs() as logs:
        await replica.runner.look()
    assert [line["event"] for line in logs] == ["sync_waits"]
    assert (await replica.status(job)).status == "queued"
    used = {"beta": now_ms() - 301_000}
    await redis.zadd(KEYS.sessions("api", "t-1"), used)
    await replica.runner.look()
    await replica.until(job, "done")
    await replica.background.aclose()
