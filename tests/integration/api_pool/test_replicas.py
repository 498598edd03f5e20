"""Two replicas: turns are forwarded once, terminals handed over, limits shared."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.cluster import Cluster, ClusterAccount, ClusterPlan, running_cluster, wait_for
from tests.cluster_client import Answer, ClusterClient, now_ms
from tests.judge import as_of_ms
from tests.replica import Replica
from tests.witness import evidence, install

from local_stack.embedded import RoleDsns
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.errors import WrongAccount
from mt5kit.state.keys import Keys
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard
from mt5kit.terminal.link import TerminalLink

FRESH = {"fresh": 1}
# Longer than a replica waits for a terminal that changes hands, so that a hand-over that only
# comes with the end of the lease fails requests.
LEASE_TTL_MS = 3000
ACCOUNT_RATE = 40
LIMITED = "account-4"
READERS = 4
# So many that the longest wait among them is nearly the whole time between two requests.
REFUSALS = 200
# Each replica for itself would admit the whole rate: twice the account's.
TOGETHER = 1.5 * ACCOUNT_RATE
ROUNDS = 20
STEP_S = 0.01
# Keeps reads of one account below its rate.
THINK_S = 2 / ACCOUNT_RATE


@pytest.fixture(scope="module")
def cluster(postgres: RoleDsns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    plan = ClusterPlan(
        environment={"LEASE_TTL_MS": str(LEASE_TTL_MS), "ACCOUNT_RATE": str(ACCOUNT_RATE)}
    )
    with running_cluster(plan, Path(tmp_path_factory.mktemp("cluster")), dsns=postgres) as running:
        running.connect_all()
        yield running


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> None:
    """Each test begins with both replicas, a terminal each."""
    cluster.start()
    cluster.wait_leased()


async def read_all(cluster: Cluster, replica: Replica) -> list[Answer]:
    async with ClusterClient(cluster) as client:
        return [
            await client.read(account, "snapshot", replica=replica, params=FRESH)
            for account in cluster.accounts.values()
        ]


def until_all_read(cluster: Cluster, replica: Replica) -> None:
    wait_for(
        lambda: all(answer.ok for answer in asyncio.run(read_all(cluster, replica))),
        f"not every account reads fresh through {replica.name}",
    )


def lines_of(replica: Replica, request_id: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in replica.logs().splitlines() if request_id in line)
    return [line for line in lines if line.get("request_id") == request_id]


async def test_the_owner_takes_the_turn_whoever_is_asked(cluster: Cluster) -> None:
    answered_elsewhere = 0
    for replica in cluster.replicas.values():
        for answer in await read_all(cluster, replica):
            assert answer.ok, answer.body
            meta = answer.body["meta"]
            assert answer.body["account"]["login"] == answer.account.login
            assert meta["source"] == "terminal"
            assert meta["instance_id"] == cluster.owner_of(meta["terminal_id"])
            answered_elsewhere += meta["instance_id"] != replica.name
    assert answered_elsewhere == len(cluster.accounts), "each is another's for one of the two"


async def test_a_turn_is_forwarded_once_under_the_same_request_id(cluster: Cluster) -> None:
    account = next(iter(cluster.accounts.values()))
    asked, owner = await asked_and_owner(cluster, account)
    async with ClusterClient(cluster) as client:
        answer = await client.read(
            account, replica=asked, request_id="across-replicas-1", params=FRESH
        )
    assert answer.ok
    assert answer.headers["x-request-id"] == "across-replicas-1"

    def routes(replica: Replica) -> list[str]:
        return [
            line["route"]
            for line in lines_of(replica, "across-replicas-1")
            if line["event"] == "request"
        ]

    wait_for(lambda: routes(asked) and routes(owner), "not both have logged it")
    assert routes(asked) == ["/api/mt5/account/{account_id}/info"]
    assert routes(owner) == ["/internal/turns"]


async def asked_and_owner(cluster: Cluster, account: ClusterAccount) -> tuple[Replica, Replica]:
    """A replica that does not hold the account's terminal, and the one that does."""
    async with ClusterClient(cluster) as client:
        answer = await client.read(account, params=FRESH)
    owner = cluster.replicas[answer.body["meta"]["instance_id"]]
    asked = next(each for each in cluster.replicas.values() if each is not owner)
    return asked, owner


async def test_a_clean_stop_fails_no_request(cluster: Cluster) -> None:
    leaving, staying = cluster.replicas.values()
    answers: list[Answer] = []
    over = False

    async def read_on(client: ClusterClient, account: ClusterAccount) -> None:
        while not over:
            replica = leaving if leaving.listed and len(answers) % 2 else staying
            answers.append(await client.read(account, replica=replica, params=FRESH))
            await asyncio.sleep(THINK_S)

    async with ClusterClient(cluster) as client, asyncio.TaskGroup() as group:
        for account in list(cluster.accounts.values())[:READERS]:
            group.create_task(read_on(client, account))
        await asyncio.to_thread(leaving.stop)
        before = len(answers)
        while len(answers) < before + len(cluster.accounts):
            await asyncio.sleep(0)
        over = True
    assert not [(answer.replica, answer.body) for answer in answers if not answer.ok]
    owners = {cluster.owner_of(terminal_id) for terminal_id in cluster.terminals}
    assert owners == {staying.name}


def test_after_a_crash_the_other_replica_serves_everything(cluster: Cluster) -> None:
    crashed, survivor = cluster.replicas.values()
    crashed.kill()
    until_all_read(cluster, survivor)
    cluster.wait_leased()
    owners = {cluster.owner_of(terminal_id) for terminal_id in cluster.terminals}
    assert owners == {survivor.name}


@pytest.mark.long
async def test_both_replicas_together_admit_an_accounts_rate(cluster: Cluster) -> None:
    account = cluster.accounts[LIMITED]
    waits: dict[str, list[float]] = {name: [] for name in cluster.replicas}
    over = False

    async def ask(client: ClusterClient, replica: Replica) -> None:
        while not over:
            answer = await client.read(account, replica=replica)
            if not answer.ok:
                assert answer.code == "RATE_LIMITED", answer.body
                waits[replica.name].append(answer.body["retry_after_s"])

    async def admitting() -> float:
        """Requests per second: the longest wait for one more is the time between two."""
        for heard in waits.values():
            heard.clear()
        while any(len(heard) < REFUSALS for heard in waits.values()):
            await asyncio.sleep(STEP_S)
        return sum(1 / max(heard) for heard in waits.values())

    async with ClusterClient(cluster) as client, asyncio.TaskGroup() as group:
        for replica in cluster.replicas.values():
            for _ in range(READERS):
                group.create_task(ask(client, replica))
        await until_shared(cluster)
        rates = [await admitting()]
        # A replica that the machine has held up for seconds had its share given to the other.
        while len(rates) < ROUNDS and rates[-1] >= TOGETHER:
            rates.append(await admitting())
        over = True
    assert rates[-1] < TOGETHER, rates


async def until_shared(cluster: Cluster) -> None:
    """Until each replica has told that half the rate is too little, and then told it once more."""

    def told() -> dict[str, tuple[float, int]]:
        names = cluster.redis.client.keys(Keys().share("account", f"*{LIMITED}"))
        assert isinstance(names, list)
        entries = cluster.redis.client.hgetall(names[0]) if names else {}
        assert isinstance(entries, dict)
        shares: dict[str, tuple[float, int]] = {}
        for name, entry in entries.items():
            assert isinstance(name, bytes)
            asked, at = entry.split()
            shares[name.decode()] = float(asked), int(at)
        return shares

    def all_ask_too_often(after: dict[str, tuple[float, int]]) -> bool:
        now = told()
        return now.keys() == cluster.replicas.keys() and all(
            asked > ACCOUNT_RATE / 2 and at > after.get(name, (0.0, 0))[1]
            for name, (asked, at) in now.items()
        )

    before: dict[str, tuple[float, int]] = {}
    for _ in range(2):
        while not all_ask_too_often(before):
            await asyncio.sleep(STEP_S)
        before = told()


async def test_a_lost_lease_refuses_at_once(cluster: Cluster) -> None:
    account = next(iter(cluster.accounts.values()))
    asked, owner = await asked_and_owner(cluster, account)
    async with ClusterClient(cluster) as client:
        before = await client.read(account, params=FRESH)
        terminal_id = before.body["meta"]["terminal_id"]
        terminal = cluster.terminals[terminal_id]
        await asyncio.to_thread(install, terminal)
        await steal(cluster, terminal_id)
        stolen_ms = now_ms()
        for replica in (owner, asked):
            answer = await client.read(account, replica=replica, params=FRESH)
            # The account may have been given another terminal by then, and that is as well.
            if answer.ok:
                assert answer.body["meta"]["terminal_id"] != terminal_id
            else:
                assert answer.code == "TERMINAL_UNAVAILABLE"
                assert answer.body["retry_after_s"] > 0
            kept = await client.read(account, replica=replica)
            assert kept.ok, "what was seen before is still true of its time"
            assert kept.body["meta"]["terminal_id"] != terminal_id or as_of_ms(kept) <= stolen_ms
    seen = await asyncio.to_thread(evidence, terminal)
    assert seen.tokens, "the thief's own look"
    assert not seen.stale
    cluster.redis.client.delete(Keys().lease(terminal_id))
    await asyncio.to_thread(cluster.wait_leased)
    await asyncio.to_thread(until_all_read, cluster, owner)


async def steal(cluster: Cluster, terminal_id: str) -> None:
    """Take a terminal from its owner as another replica would: in Redis, then in the terminal."""
    keys = Keys()
    last = cluster.redis.client.get(keys.fence(terminal_id))
    assert isinstance(last, bytes)
    token = int(last) + 1
    cluster.redis.client.set(keys.fence(terminal_id), token)
    cluster.redis.client.hset(keys.lease(terminal_id), mapping={"owner": "thief", "token": token})
    cluster.redis.client.persist(keys.lease(terminal_id))
    link = TerminalLink(
        cluster.terminals[terminal_id].address,
        AddressGuard(["127.0.0.0/8"]),
        TerminalMetrics(CollectorRegistry()),
    )
    try:
        with pytest.raises(WrongAccount):
            await link.snapshot(token, AccountIdentity(1, "Nowhere"))
    finally:
        await link.aclose()
