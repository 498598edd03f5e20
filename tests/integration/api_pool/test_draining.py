"""Terminals that are stopped, and come back, while their accounts are read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from tests.cluster import Cluster, ClusterAccount, ClusterPlan, running_cluster, wait_for
from tests.cluster_client import Answer, ClusterClient
from tests.cluster_plan import CONTROL_KEY, Contained
from tests.containers import SUPERVISOR_PORT, Container
from tests.judge import Judge

from local_stack.embedded import RoleDsns
from mt5kit.state.keys import Keys

pytestmark = pytest.mark.long

NAMES = ("t-1", "t-2", "t-3")
FRESH = {"fresh": 1}
THINK_S = 0.02
STEP_S = 0.02
# Reads of each account that show that it is served.
SOME = 5


@pytest.fixture(scope="module")
def cluster(postgres: RoleDsns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    plan = ClusterPlan(
        accounts=6,
        # So long that turns wait for logins of other accounts, and not too long for one terminal.
        login_seconds=0.1,
        environment={"CONNECTS_PER_MINUTE": "100000"},
        containers=tuple(Contained(name, "api") for name in NAMES),
    )
    with running_cluster(plan, Path(tmp_path_factory.mktemp("cluster")), dsns=postgres) as running:
        running.connect_all()
        yield running


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> None:
    """Each test begins with all terminals."""
    for container in cluster.containers.values():
        container.start()
    cluster.wait_leased()


def places(cluster: Cluster) -> dict[str, str]:
    """The terminal of each account, as Redis has it."""
    record = cluster.redis.client.hgetall(Keys().placements("api"))
    assert isinstance(record, dict)
    return {_text(account): _text(terminal) for account, terminal in record.items()}


def _text(name: object) -> str:
    assert isinstance(name, bytes)
    return name.decode()


def leased(cluster: Cluster) -> set[str]:
    return {name for name in NAMES if cluster.owner_of(name)}


def left_by_all(container: Container) -> bool:
    """Whether it has ended because nobody was connected any more."""
    return not container.running and "every client has left" in container.said


class Readers:
    """Reads every account without pause: its newest look, its past, and, of some, anew."""

    def __init__(self, cluster: Cluster, client: ClusterClient) -> None:
        self._cluster = cluster
        self._client = client
        self._judge = Judge(cluster)
        self.answers: list[Answer] = []
        self.over = False

    async def look(self, account: ClusterAccount) -> None:
        while not self.over:
            answer = await self._client.read(account, "snapshot", params=FRESH)
            self._judge.hear(answer, FRESH)
            self.answers.append(answer)
            await asyncio.sleep(THINK_S)

    async def study(self, account: ClusterAccount) -> None:
        while not self.over:
            answer = await self._client.read(account, "history/deals", params={"max_age_ms": 0})
            self.answers.append(answer)
            await asyncio.sleep(10 * THINK_S)

    async def connect(self, account: ClusterAccount) -> None:
        while not self.over:
            self.answers.append(await self._client.connect(account))
            await asyncio.sleep(10 * THINK_S)

    async def until(self, condition: object) -> None:
        """Read on until it is so."""
        assert callable(condition)
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(STEP_S)

    async def some(self) -> None:
        """Until every account has been read some times more."""
        before = len(self.answers)

        def served() -> bool:
            read = [each.account.account_id for each in self.answers[before:]]
            return all(read.count(one) >= SOME for one in self._cluster.accounts)

        await self.until(served)

    def assert_all_were_answered(self) -> None:
        failed = [(each.code, each.body) for each in self.answers if not each.ok]
        assert not failed, failed[:5]
        assert not self._judge.verdict.wrong, self._judge.verdict.wrong[:5]


@contextlib.asynccontextmanager
async def reading(cluster: Cluster) -> AsyncIterator[Readers]:
    async with ClusterClient(cluster) as client:
        readers = Readers(cluster, client)
        accounts = list(cluster.accounts.values())
        async with asyncio.TaskGroup() as group:
            for account in accounts:
                group.create_task(readers.look(account))
            group.create_task(readers.study(accounts[0]))
            group.create_task(readers.connect(accounts[-1]))
            try:
                await readers.some()
                yield readers
            finally:
                readers.over = True
    readers.assert_all_were_answered()


async def test_accounts_leave_a_terminal_that_is_stopped(cluster: Cluster) -> None:
    leaving = cluster.containers["t-2"]
    async with reading(cluster) as readers:
        await readers.until(lambda: "t-2" in places(cluster).values())
        leaving.terminate()
        await readers.until(lambda: left_by_all(leaving))
        assert leased(cluster) == {"t-1", "t-3"}
        assert set(places(cluster).values()) == {"t-1", "t-3"}
        await readers.some()


@pytest.mark.long
async def test_accounts_come_to_a_terminal_that_is_new(cluster: Cluster) -> None:
    coming = cluster.containers["t-2"]
    async with reading(cluster) as readers:
        coming.terminate()
        await readers.until(lambda: left_by_all(coming))
        await asyncio.to_thread(coming.start)
        await readers.until(lambda: "t-2" in leased(cluster))
        # A third of them, and it is even.
        await readers.until(lambda: list(places(cluster).values()).count("t-2") == 2)
        await readers.some()


@pytest.mark.long
async def test_accounts_that_have_nowhere_to_go_stay_as_long_as_the_terminal(
    cluster: Cluster,
) -> None:
    one, two, three = cluster.containers.values()
    async with reading(cluster) as readers:
        for leaving in (two, three):
            leaving.terminate()
            await readers.until(lambda leaving=leaving: left_by_all(leaving))
        one.terminate()
        await readers.until(lambda: "terminal_drains" in logs(cluster, "t-1"))
        await readers.some()
        assert set(places(cluster).values()) == {"t-1"}
        assert one.running
        await asyncio.to_thread(three.start)
        await readers.until(lambda: left_by_all(one))
        assert set(places(cluster).values()) == {"t-3"}
        await readers.some()


def logs(cluster: Cluster, terminal_id: str) -> str:
    """What the replicas have said of a terminal."""
    lines = (line for each in cluster.replicas.values() for line in each.logs().splitlines())
    return "\n".join(line for line in lines if f'"{terminal_id}"' in line)


@pytest.mark.long
def test_a_terminal_whose_supervisor_says_that_it_drains_is_not_tried_without_end(
    cluster: Cluster,
) -> None:
    """`POST /drain` stops nothing: the terminal is there, and nobody is to use it."""
    container = cluster.containers["t-3"]
    url = f"http://{container.address}:{SUPERVISOR_PORT}/drain"
    httpx.post(url, headers={"X-Supervisor-Key": CONTROL_KEY}).raise_for_status()
    wait_for(lambda: "t-3" not in leased(cluster), "it is still held")
    assert "t-3" not in places(cluster).values()
    container.stop()
    container.start()
    cluster.wait_leased()
