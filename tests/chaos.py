"""A storm over a cluster, and what must hold in it whatever happens.

Replicas are killed, paused and stopped and Redis is restarted, killed, frozen and wiped, at
random from a seed, while readers read through all replicas. Every answer is judged when it comes.
"""

import asyncio
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import Cluster, ClusterAccount, ClusterPlan, running_cluster
from tests.cluster_client import ClusterClient
from tests.judge import Judge, Verdict
from tests.replica import Replica
from tests.witness import Testimony, evidence, install

from local_stack.embedded import RoleDsns

# Short, so that a lease runs out within a test; everything else follows from it.
LEASE_TTL_S = 1.5
PLAN = ClusterPlan(
    terminals=4,
    accounts=10,
    login_seconds=0.02,
    environment={"LEASE_TTL_MS": str(round(LEASE_TTL_S * 1000))},
)
READERS = 8
# Longer than anybody waits for Redis: who returns to a silent one goes on without it.
BLIND_S = 2.6
# After the last strike; a crashed owner's lease and a link's longest pause fit into it.
SETTLE_S = 30.0
SEED_VARIABLE = "MT5_CHAOS_SEED"
ROUTES = ("info", "positions", "snapshot")
# Default, a short and no age at all; as often as real callers would ask, roughly.
AGES: Sequence[Mapping[str, int]] = ({}, {}, {"max_age_ms": 300}, {"fresh": 1})
# Between two reads of a reader: the readers together leave the processors room for the replicas.
THINK_S = 0.03


@dataclass(frozen=True)
class Strike:
    """Something bad that is done after `gap_s`, and undone after `lasts_s`."""

    kind: str
    target: str
    gap_s: float
    lasts_s: float

    def __str__(self) -> str:
        return f"+{self.gap_s:.2f}s {self.kind} {self.target} for {self.lasts_s:.2f}s"


def strikes_at_replicas(
    seed: int, rounds: int, lease_ttl_s: float, names: Sequence[str]
) -> list[Strike]:
    """`rounds` times every kind of trouble for a replica, in random order."""
    chance = random.Random(f"{seed}-replicas")
    spans = {
        "kill": (0.0, 1.2 * lease_ttl_s),
        "stop": (0.0, 0.3 * lease_ttl_s),
        "pause": (0.1 * lease_ttl_s, 0.6 * lease_ttl_s),
        # The others have its terminals by then.
        "long pause": (1.2 * lease_ttl_s, 1.6 * lease_ttl_s),
        # And it cannot be told, so that only the terminal can refuse it.
        "blind return": (1.4 * lease_ttl_s, 1.7 * lease_ttl_s),
    }
    return _shuffled(chance, rounds, spans, names)


def strikes_at_redis(seed: int, rounds: int, lease_ttl_s: float) -> list[Strike]:
    """`rounds` times every kind of trouble for Redis, in random order."""
    chance = random.Random(f"{seed}-redis")
    spans = {
        "restart": (0.0, 0.0),
        "wipe": (0.0, 0.0),
        "kill": (0.0, 1.5 * lease_ttl_s),
        "freeze": (0.0, 0.8 * lease_ttl_s),
    }
    return _shuffled(chance, rounds, spans, ["redis"])


def _shuffled(
    chance: random.Random,
    rounds: int,
    spans: Mapping[str, tuple[float, float]],
    targets: Sequence[str],
) -> list[Strike]:
    strikes = []
    for _ in range(rounds):
        kinds = list(spans)
        chance.shuffle(kinds)
        strikes += [
            Strike(
                kind=kind,
                target=chance.choice(targets),
                gap_s=chance.uniform(0.1, 0.5),
                lasts_s=chance.uniform(*spans[kind]),
            )
            for kind in kinds
        ]
    return strikes


class Storm:
    """Strikes at a cluster while readers read.

    Args:
        cluster: With every account connected.
        seed: Of what is read; the strikes bring their own.
        judge: Of the answers.
    """

    def __init__(self, cluster: Cluster, seed: int, judge: Judge) -> None:
        self._cluster = cluster
        self._seed = seed
        self._judge = judge
        self._over = False
        # A frozen Redis cannot be stopped, nor a stopped one frozen.
        self._redis_free = asyncio.Lock()

    async def rage(self, *sequences: Sequence[Strike], readers: int) -> None:
        """Strike, each sequence one after another, until all are over and undone."""
        async with ClusterClient(self._cluster) as client:
            reading = [asyncio.create_task(self._read(client, each)) for each in range(readers)]
            try:
                async with asyncio.TaskGroup() as group:
                    for strikes in sequences:
                        group.create_task(self._strike_all(strikes))
            finally:
                self._over = True
                await asyncio.gather(*reading)

    async def settle(self, patience_s: float) -> None:
        """Until every account reads fresh through every replica.

        Raises:
            AssertionError: One does not.
        """
        deadline = time.monotonic() + patience_s
        async with ClusterClient(self._cluster) as client:
            for account in self._cluster.accounts.values():
                for replica in self._cluster.replicas.values():
                    while True:
                        answer = await client.read(account, replica=replica, params={"fresh": 1})
                        self._judge.hear(answer, {"fresh": 1})
                        if answer.ok:
                            break
                        assert time.monotonic() < deadline, (
                            f"{account.account_id} through {replica.name}: {answer.body}"
                        )
                        await asyncio.sleep(THINK_S)

    async def _read(self, client: ClusterClient, number: int) -> None:
        """Read through one replica while it is listed, as a kept connection does.

        Were all to take turns, a paused replica would soon hold them all.
        """
        chance = random.Random(f"{self._seed}-reader-{number}")
        accounts: list[ClusterAccount] = list(self._cluster.accounts.values())
        replicas = list(self._cluster.replicas.values())
        mine = replicas[number % len(replicas)]
        while not self._over:
            age = chance.choice(AGES)
            replica = mine if mine in self._cluster.listed else None
            route = chance.choice(ROUTES)
            answer = await client.read(chance.choice(accounts), route, replica=replica, params=age)
            self._judge.hear(answer, age)
            await asyncio.sleep(THINK_S)

    async def _strike_all(self, strikes: Sequence[Strike]) -> None:
        for strike in strikes:
            await asyncio.sleep(strike.gap_s)
            if strike.target == "redis":
                async with self._redis_free:
                    await self._strike_redis(strike)
            else:
                await self._strike_replica(strike, self._cluster.replicas[strike.target])

    async def _strike_replica(self, strike: Strike, replica: Replica) -> None:
        match strike.kind:
            case "stop":
                # A clean stop breaks no connection: who was told is not sent to, who asked is
                # answered.
                await asyncio.to_thread(replica.stop)
                await asyncio.sleep(strike.lasts_s)
                await asyncio.to_thread(replica.start)
            case "kill":
                with self._judge.breaking(replica.name):
                    await asyncio.to_thread(replica.kill)
                await asyncio.sleep(strike.lasts_s)
                await asyncio.to_thread(replica.start)
            case "blind return":
                replica.pause()
                await asyncio.sleep(strike.lasts_s)
                async with self._redis_free:
                    with self._cluster.redis.frozen():
                        replica.resume()
                        await asyncio.sleep(BLIND_S)
            case _:
                replica.pause()
                await asyncio.sleep(strike.lasts_s)
                replica.resume()

    async def _strike_redis(self, strike: Strike) -> None:
        cluster = self._cluster
        match strike.kind:
            case "restart":
                await asyncio.to_thread(cluster.redis.restart)
            case "wipe":
                await asyncio.to_thread(cluster.redis.wipe)
            case "kill":
                await asyncio.to_thread(cluster.redis.kill)
                await asyncio.sleep(strike.lasts_s)
                await asyncio.to_thread(cluster.redis.start)
            case _:
                with cluster.redis.frozen():
                    await asyncio.sleep(strike.lasts_s)


def weather_a_storm(directory: Path, rounds: int, dsns: RoleDsns | None = None) -> Verdict:
    """Let a storm loose on a cluster of its own and assert what must hold.

    The seed is random and printed; the variable MT5_CHAOS_SEED gives one.

    Args:
        directory: For data and logs.
        rounds: How often each kind of strike comes.
        dsns: Of a database to use; without, a PostgreSQL is started.

    Raises:
        AssertionError: A promise was broken.
    """
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().getrandbits(32))
    with running_cluster(PLAN, directory, dsns=dsns) as cluster:
        at_replicas = strikes_at_replicas(seed, rounds, LEASE_TTL_S, list(cluster.replicas))
        at_redis = strikes_at_redis(seed, rounds, LEASE_TTL_S)
        _say(f"{SEED_VARIABLE}={seed}", *at_replicas, *at_redis)
        cluster.connect_all()
        for terminal in cluster.terminals.values():
            install(terminal)
        judge = Judge(cluster)
        storm = Storm(cluster, seed, judge)
        asyncio.run(storm.rage(at_replicas, at_redis, readers=READERS))
        cluster.wait_ready()
        cluster.wait_leased()
        asyncio.run(storm.settle(SETTLE_S))
        testimonies = [evidence(terminal) for terminal in cluster.terminals.values()]
    _assert_weathered(judge.verdict, testimonies)
    return judge.verdict


def _assert_weathered(verdict: Verdict, testimonies: Sequence[Testimony]) -> None:
    _say(
        f"answers {dict(verdict.codes)}, sources {dict(verdict.by_source)}",
        *(f"{count} {sentence}" for sentence, count in verdict.sentences.most_common()),
        *(f"{each.calls} calls under {len(each.tokens)} tokens" for each in testimonies),
    )
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    stale = [each.stale[:5] for each in testimonies if each.stale]
    assert not stale, f"(function, token, newer token before it): {stale}"
    assert all(each.calls for each in testimonies), "a terminal was never used"
    assert any(len(each.tokens) > 1 for each in testimonies), "no terminal changed hands"
    assert verdict.codes["ok"]


def _say(*lines: object) -> None:
    """To where pytest shows it when the test fails, or with `-s`."""
    sys.stdout.write("\n  ".join(map(str, lines)) + "\n")
