"""Replicas of both pools are replaced one after another, the new one first, under load."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import asyncpg
import httpx
import pytest
from tests.cluster import Cluster, ClusterAccount, ClusterPlan, running_cluster
from tests.cluster_client import Answer, ClusterClient
from tests.cluster_plan import task_name
from tests.judge import Judge
from tests.replica import Replica
from tests.watch_ledger import Ledger
from tests.watch_trader import Trader
from tests.watchers import Watcher

SLOTS = 2
# Even shares: a slot that may hold one more could take what another gives back, and return it.
TERMINALS = 4
FRESH = {"fresh": 1}
THINK_S = 0.03
STEP_S = 0.05
PLAN = ClusterPlan(
    terminals=TERMINALS,
    stream_terminals=TERMINALS,
    accounts=TERMINALS,
    replicas=SLOTS,
    ws_replicas=SLOTS,
    login_seconds=0.1,
    as_tasks=True,
)


class Load:
    """Whoever reads, trades and watches."""

    def __init__(self, cluster: Cluster, client: ClusterClient, tickets: httpx.AsyncClient) -> None:
        self._cluster = cluster
        self._client = client
        self._judge = Judge(cluster)
        self.ledger = Ledger()
        self.answers: list[Answer] = []
        self.over = False
        accounts = list(cluster.accounts.values())
        self.watchers = [
            Watcher(
                cluster,
                account,
                self.ledger,
                name=f"{account.account_id}/{number}",
                chance=random.Random(f"{account.account_id}/{number}"),
                client=tickets,
            )
            for account in accounts
            for number in range(2)
        ]
        self.trader = Trader(cluster, accounts[:1], random.Random("trader"))

    async def read(self, account: ClusterAccount) -> None:
        while not self.over:
            self.answers.append(await self._client.read(account, params=FRESH))
            self.answers.append(await self._client.assign(account))
            await asyncio.sleep(THINK_S)

    async def well(self) -> None:
        """Until every watcher is told that all is well."""
        async with asyncio.timeout(60):
            while any(each.unwell() for each in self.watchers):
                await asyncio.sleep(STEP_S)

    def stop(self) -> None:
        self.over = True
        self.trader.stop()
        for watcher in self.watchers:
            watcher.stop()

    def epochs(self) -> set[tuple[str, int]]:
        return {(each.account.account_id, each.mirror.epoch) for each in self.watchers}


async def update(cluster: Cluster, load: Load) -> None:
    """As `order: start-first` does, both pools at once, slot by slot."""
    old, old_ws = list(cluster.replicas.values()), list(cluster.ws_replicas.values())
    for slot, pair in enumerate(zip(old, old_ws, strict=True), 1):
        new = (
            cluster.add(task_name("api-pool", slot)),
            cluster.add_ws(task_name("websocket-pool", slot)),
        )
        await asyncio.gather(*(asyncio.to_thread(each.start) for each in new))
        await load.well()
        await asyncio.gather(*(asyncio.to_thread(each.stop) for each in pair))
        del cluster.replicas[pair[0].name], cluster.ws_replicas[pair[1].name]
        await asyncio.to_thread(cluster.wait_leased)
        await load.well()


def started(replicas: Iterable[Replica]) -> Counter[str]:
    """How often each account's poll has been begun."""
    lines = (json.loads(line) for each in replicas for line in each.logs().splitlines())
    return Counter(line["account_id"] for line in lines if line.get("event") == "stream_started")


async def leases(cluster: Cluster) -> Counter[str]:
    """How often each API terminal has been leased."""
    connection = await asyncpg.connect(cluster.dsns.owner)
    try:
        rows = await connection.fetch(
            "SELECT terminal_id, count(*) AS times FROM terminal_events"
            " WHERE event = 'leased' GROUP BY 1"
        )
    finally:
        await connection.close()
    return Counter({row["terminal_id"]: row["times"] for row in rows})


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_an_update_that_starts_first_fails_no_request_and_moves_each_terminal_once(
    tmp_path: Path,
) -> None:
    with running_cluster(PLAN, tmp_path / "cluster") as cluster:
        await asyncio.to_thread(cluster.connect_all)
        async with ClusterClient(cluster) as client, httpx.AsyncClient(timeout=30) as tickets:
            load = Load(cluster, client, tickets)
            async with asyncio.TaskGroup() as group:
                for watcher in load.watchers:
                    group.create_task(watcher.run())
                try:
                    await load.well()
                    for account in cluster.accounts.values():
                        group.create_task(load.read(account))
                    group.create_task(load.trader.run())
                    epochs = load.epochs()
                    replicas = {**cluster.ws_replicas}
                    before = started(replicas.values()), await leases(cluster)
                    await update(cluster, load)
                    replicas |= cluster.ws_replicas
                    after = started(replicas.values()), await leases(cluster)
                finally:
                    load.stop()
    assert not [(each.code, each.body) for each in load.answers if not each.ok]
    assert not load.ledger.wrong, "\n".join(load.ledger.wrong[:10])
    assert not load.ledger.overlaps()
    assert load.epochs() == epochs
    assert set(load.ledger.closed) <= {1012}
    print(f"{len(load.answers)} answers, closed {dict(load.ledger.closed)}")  # noqa: T201
    print(f"polls begun {after[0] - before[0]}, leases {after[1] - before[1]}")  # noqa: T201
    assert set((after[0] - before[0]).values()) == {1}, "hand-overs of a stream"
    assert set((after[1] - before[1]).values()) == {1}, "hand-overs of a terminal"
