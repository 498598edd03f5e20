"""Stream terminals that are stopped, and come back, while their accounts are watched."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.cluster import Cluster, ClusterPlan, running_cluster
from tests.cluster_client import Answer, ClusterClient
from tests.cluster_plan import Contained
from tests.containers import Container
from tests.integration.websocket_pool.clients import SOME, Client, trade
from tests.watch_ledger import Ledger
from websockets.asyncio.client import ClientConnection

from local_stack.embedded import RoleDsns
from mt5kit.state.keys import Keys

pytestmark = pytest.mark.long

# Each container can take all accounts.
EACH = 2
STEP_S = 0.05


@pytest.fixture(scope="module")
def cluster(postgres: RoleDsns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    plan = ClusterPlan(
        accounts=EACH,
        replicas=1,
        ws_replicas=2,
        login_seconds=0.1,
        containers=(
            Contained("t-1", "api"),
            Contained("s-1", "stream", EACH),
            Contained("s-2", "stream", EACH),
        ),
    )
    with running_cluster(plan, Path(tmp_path_factory.mktemp("cluster")), dsns=postgres) as running:
        running.connect_all()
        yield running


def terminals(cluster: Cluster) -> set[str]:
    """Those on which an account is streamed."""
    names = map(Keys().stream_of, cluster.accounts)
    found = [cluster.redis.client.get(name) for name in names]
    return {one.decode() for one in found if isinstance(one, bytes)}


def leased(cluster: Cluster, container: Container) -> set[str]:
    ids = container.contained.terminal_ids
    return {one for one in ids if cluster.owner_of(one)}


def whole(cluster: Cluster, container: Container) -> bool:
    return leased(cluster, container) == {*container.contained.terminal_ids}


def left_by_all(container: Container) -> bool:
    """Whether it has ended because nobody was connected any more."""
    return not container.running and "every client has left" in container.said


class Crowd:
    """A socket of each account at each replica, and somebody who asks for tickets all the time."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.ledger = Ledger()
        self.clients: list[tuple[Client, ClientConnection]] = []
        self.assigned: list[Answer] = []
        self.over = False

    async def hear(self, client: Client, socket: ClientConnection) -> None:
        while not self.over:
            await client.hear(socket)

    async def assign(self) -> None:
        async with ClusterClient(self._cluster) as asking:
            while not self.over:
                for account in self._cluster.accounts.values():
                    self.assigned.append(await asking.assign(account))
                await asyncio.sleep(STEP_S)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Watch on until it is so."""
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(STEP_S)

    async def trade(self) -> None:
        """Open a position of each account, and watch on until everybody has been told."""
        for account in self._cluster.accounts.values():
            before = await asyncio.to_thread(self._cluster.tickets, account)
            await asyncio.to_thread(trade, self._cluster, account)
            mine = [client for client, _ in self.clients if client.account is account]
            await self.until(lambda: all(each.mirror.positions.keys() > before for each in mine))  # noqa: B023 - awaited here
        marks = [(client, client.mirror.seq + SOME) for client, _ in self.clients]
        await self.until(lambda: all(client.mirror.seq >= seq for client, seq in marks))

    def epochs(self) -> list[int]:
        return [client.mirror.epoch for client, _ in self.clients]


@contextlib.asynccontextmanager
async def watching(cluster: Cluster) -> AsyncIterator[Crowd]:
    crowd = Crowd(cluster)
    async with contextlib.AsyncExitStack() as stack:
        for account in cluster.accounts.values():
            for replica in cluster.ws_replicas.values():
                client = Client(cluster, account, crowd.ledger)
                socket = await stack.enter_async_context(client.at(replica))
                crowd.clients.append((client, socket))
        epochs = crowd.epochs()
        async with asyncio.TaskGroup() as group:
            for client, socket in crowd.clients:
                group.create_task(crowd.hear(client, socket))
            group.create_task(crowd.assign())
            try:
                await crowd.trade()
                yield crowd
                await crowd.trade()
            finally:
                crowd.over = True
    assert crowd.epochs() == epochs
    assert not [answer.body for answer in crowd.assigned if not answer.ok]
    assert not crowd.ledger.counts["conflated"]
    assert not crowd.ledger.wrong, "\n".join(crowd.ledger.wrong)


def occupied(cluster: Cluster) -> Container:
    """The container that streams account-1."""
    terminal = cluster.redis.client.get(Keys().stream_of("account-1"))
    assert isinstance(terminal, bytes)
    return cluster.containers[terminal.decode().rpartition("-")[0]]


async def test_accounts_leave_a_container_that_is_stopped_and_no_socket_feels_it(
    cluster: Cluster,
) -> None:
    async with watching(cluster) as crowd:
        leaving = occupied(cluster)
        leaving.terminate()
        await crowd.until(lambda: left_by_all(leaving))
        assert not terminals(cluster) & {*leaving.contained.terminal_ids}
        assert not leased(cluster, leaving)


@pytest.mark.long
async def test_a_container_that_comes_back_is_used_again(cluster: Cluster) -> None:
    for container in cluster.containers.values():
        container.start()
    await asyncio.to_thread(cluster.wait_leased)
    async with watching(cluster) as crowd:
        first = occupied(cluster)
        [second] = {*cluster.containers.values()} - {first, cluster.containers["t-1"]}
        for leaving, other in ((first, second), (second, first)):
            leaving.terminate()
            await crowd.until(partial(left_by_all, leaving))
            assert terminals(cluster) == {*other.contained.terminal_ids}
            await crowd.trade()
            await asyncio.to_thread(leaving.start)
            await crowd.until(partial(whole, cluster, leaving))
