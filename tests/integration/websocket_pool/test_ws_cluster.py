"""Replicas as processes: any serves any account, and a line outlives who polls it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import Cluster, ClusterPlan, running_cluster
from tests.integration.websocket_pool.clients import SOME, Client, owner_and_other
from tests.watch_ledger import Ledger

from local_stack.embedded import RoleDsns

# So long that an end of a lease is not taken for a hand-over.
LEASE_TTL_MS = 2000
RESTART = 1012


@pytest.fixture(scope="module")
def cluster(postgres: RoleDsns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    plan = ClusterPlan(
        terminals=1,
        accounts=2,
        replicas=1,
        stream_terminals=2,
        ws_replicas=2,
        environment={"LEASE_TTL_MS": str(LEASE_TTL_MS), "DRAIN_S": "0.1"},
    )
    with running_cluster(plan, Path(tmp_path_factory.mktemp("cluster")), dsns=postgres) as running:
        running.connect_all()
        yield running


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> None:
    """Each test begins with both replicas, a terminal each."""
    cluster.start()
    cluster.wait_leased()


@pytest.mark.long
async def test_a_socket_on_any_replica_is_told_the_same_numbers(cluster: Cluster) -> None:
    ledger = Ledger()
    for account in cluster.accounts.values():
        owner, other = await asyncio.to_thread(owner_and_other, cluster, account)
        near, far = Client(cluster, account, ledger), Client(cluster, account, ledger)
        async with near.at(owner) as one, far.at(other) as two:
            began = max(near.mirror.seq, far.mirror.seq)
            for client, socket in ((near, one), (far, two)):
                await client.hear_trade(socket)
                await client.hear_some(socket)
        # The ledger has compared each message that both were told, and each state.
        assert min(near.mirror.seq, far.mirror.seq) >= began + SOME
        assert near.mirror.epoch == far.mirror.epoch
    assert not ledger.wrong, "\n".join(ledger.wrong)


async def test_a_stopped_owner_hands_its_line_over_and_its_sockets_resume(
    cluster: Cluster,
) -> None:
    ledger, account = Ledger(), cluster.accounts["account-1"]
    owner, other = await asyncio.to_thread(owner_and_other, cluster, account)
    near, far = Client(cluster, account, ledger), Client(cluster, account, ledger)
    async with far.at(other) as standing:
        async with near.at(owner) as closed:
            await near.hear_some(closed)
            epoch = near.mirror.epoch
            stopping = asyncio.create_task(asyncio.to_thread(owner.stop))
            assert await near.hear_to_the_end(closed) == RESTART
            last = near.mirror.seq
            await stopping
        async with near.at(other, resume=True) as resumed:
            await near.hear_trade(resumed)
            await near.hear_some(resumed)
        # Who was connected elsewhere has noticed nothing.
        await far.hear_until(standing, lambda: far.mirror.seq >= near.mirror.seq)
    assert near.mirror.resumed == 1
    assert near.mirror.seq > last
    assert near.mirror.epoch == far.mirror.epoch == epoch
    assert not ledger.counts["conflated"]
    assert not ledger.wrong, "\n".join(ledger.wrong)


async def test_a_killed_owner_is_followed_by_a_new_epoch_on_the_same_socket(
    cluster: Cluster,
) -> None:
    ledger, account = Ledger(), cluster.accounts["account-2"]
    owner, other = await asyncio.to_thread(owner_and_other, cluster, account)
    near, far = Client(cluster, account, ledger), Client(cluster, account, ledger)
    async with far.at(other) as standing:
        async with near.at(owner) as broken:
            await near.hear_some(broken)
            epoch = near.mirror.epoch
            await asyncio.to_thread(owner.kill)
            await near.hear_to_the_end(broken)
        await far.hear_until(standing, lambda: far.mirror.epoch > epoch)
        await far.hear_trade(standing)
        async with near.at(other, resume=True) as again:
            await near.hear_some(again)
    assert near.mirror.resumed == 0
    assert near.mirror.epoch == far.mirror.epoch
    assert not ledger.wrong, "\n".join(ledger.wrong)


@pytest.mark.long
async def test_a_replica_that_joins_takes_its_share_and_no_socket_feels_it(
    cluster: Cluster,
) -> None:
    ledger, stays, joins = Ledger(), cluster.ws_replicas["ws-1"], cluster.ws_replicas["ws-2"]
    await asyncio.to_thread(joins.stop)
    await asyncio.to_thread(cluster.wait_leased)
    clients = [Client(cluster, account, ledger) for account in cluster.accounts.values()]
    async with clients[0].at(stays) as one, clients[1].at(stays) as two:
        sockets = list(zip(clients, (one, two), strict=True))
        for client, socket in sockets:
            await client.hear_some(socket)
        epochs = [client.mirror.epoch for client in clients]
        await asyncio.to_thread(cluster.start)
        await asyncio.to_thread(cluster.wait_leased)
        owners = {cluster.streamer_of(client.account) for client in clients}
        for client, socket in sockets:
            await client.hear_trade(socket)
            await client.hear_some(socket)
    assert owners == {stays.name, joins.name}, "no account has moved"
    assert [client.mirror.epoch for client in clients] == epochs
    assert not ledger.wrong, "\n".join(ledger.wrong)
