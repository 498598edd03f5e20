"""A storm over the WebSocket pool, and what must hold in it whatever happens.

Replicas are killed, paused and stopped, Redis is restarted, killed, frozen and wiped, terminals
are restarted, frozen, cut off and taken by others, at random from a seed, while people trade and
watchers watch. Every message is judged when it comes.
"""

import asyncio
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tests.chaos import (
    SEED_VARIABLE,
    SETTLE_S,
    Storm,
    Strike,
    _say,
    _shuffled,
    strikes_at_redis,
    strikes_at_replicas,
)
from tests.cluster import Cluster, ClusterAccount, ClusterPlan, running_cluster
from tests.judge import Judge
from tests.watch_habits import Habits
from tests.watch_ledger import Ledger
from tests.watch_trader import Trader
from tests.watchers import Watcher
from tests.witness import Testimony, evidence, install

from local_stack.embedded import RoleDsns

# Short, so that a lease runs out within a test.
LEASE_TTL_S = 1.5
# So long that a reader who stalls is soon behind by more than it may be.
CROWDED, MANY = "account-1", 250
PLAN = ClusterPlan(
    terminals=1,
    accounts=3,
    replicas=1,
    login_seconds=0.02,
    positions_of={CROWDED: MANY},
    environment={"LEASE_TTL_MS": str(round(LEASE_TTL_S * 1000))},
    # One more than accounts, so that an account can be placed anew.
    stream_terminals=4,
    ws_replicas=2,
)
STEP_S = 0.05


def strikes_at_terminals(seed: int, rounds: int, names: Sequence[str]) -> list[Strike]:
    """`rounds` times every kind of trouble for a stream terminal, in random order."""
    chance = random.Random(f"{seed}-terminals")
    spans = {
        "terminal restart": (0.0, 0.0),
        "terminal freeze": (0.1, 1.0),
        "terminal without broker": (0.1, 0.8),
        "terminal taken": (0.0, 0.0),
    }
    return _shuffled(chance, rounds, spans, names)


@dataclass
class Weather:
    """What a storm brought.

    Attributes:
        ledger: What the watchers saw.
        testimonies: Of the stream terminals, each from one start to the next.
        trades: How many were made.
    """

    ledger: Ledger = field(default_factory=Ledger)
    testimonies: list[Testimony] = field(default_factory=list)
    trades: int = 0


class WatchStorm(Storm):
    """Strikes at a cluster while watchers watch.

    Args:
        cluster: With every account connected.
        seed: Of what watchers and traders do; the strikes bring their own.
        habits: One watcher of each account for each of these.
    """

    def __init__(self, cluster: Cluster, seed: int, habits: Sequence[Habits]) -> None:
        super().__init__(cluster, seed, Judge(cluster))
        self.weather = Weather()
        self._habits = habits
        self._watchers: list[Watcher] = []
        self._chance = random.Random(f"{seed}-accounts")

    async def weather_all(self, *sequences: Sequence[Strike]) -> None:
        """Strike until all is over, mend everything, and compare what everybody believes.

        Raises:
            AssertionError: Somebody does not come to the truth.
        """
        accounts = list(self._cluster.accounts.values())
        trader = Trader(self._cluster, accounts, random.Random(f"{self._seed}-trader"))
        async with httpx.AsyncClient(timeout=SETTLE_S) as client:
            self._watchers = [
                self._watcher(account, number, client)
                for account in accounts
                for number in range(len(self._habits))
            ]
            async with asyncio.TaskGroup() as group:
                trading = group.create_task(trader.run())
                for watcher in self._watchers:
                    group.create_task(watcher.run())
                try:
                    await self.settle_watchers()
                    await self.rage(*sequences, readers=0)
                    await asyncio.to_thread(self._cluster.wait_ready)
                    await asyncio.to_thread(self._cluster.wait_leased)
                    await self.settle_watchers()
                    trader.stop()
                    await trading
                    await self.compare()
                finally:
                    trader.stop()
                    for watcher in self._watchers:
                        watcher.stop()
        self.weather.trades = trader.done

    async def settle_watchers(self) -> None:
        """Until every watcher has a snapshot and is told that all is well.

        Raises:
            AssertionError: One has not, in time.
        """
        deadline = time.monotonic() + SETTLE_S
        while doubts := [doubt for each in self._watchers if (doubt := each.unwell())]:
            self._assert_time(deadline, doubts)
            await asyncio.sleep(STEP_S)

    async def compare(self) -> None:
        """Until every watcher believes what its broker does; nobody misbehaves any more.

        Raises:
            AssertionError: One does not, in time.
        """
        for watcher in self._watchers:
            watcher.quiet = True
        deadline = time.monotonic() + SETTLE_S
        while doubts := await self._differences():
            self._assert_time(deadline, doubts)
            await asyncio.sleep(STEP_S)

    async def _differences(self) -> list[str]:
        doubts: list[str] = []
        for account in self._cluster.accounts.values():
            truth = await asyncio.to_thread(self._cluster.seen_by_broker, account)
            mine = [each for each in self._watchers if each.account is account]
            doubts += [doubt for each in mine if (doubt := each.differs(truth))]
            epochs = {each.mirror.epoch for each in mine}
            if len(epochs) > 1:
                doubts.append(f"{account.account_id} is told in epochs {epochs}: by two pollers?")
        return doubts

    def _assert_time(self, deadline: float, doubts: Sequence[str]) -> None:
        evidence_of_all = "\n".join([*doubts, *self.weather.ledger.wrong[:5]])
        assert time.monotonic() < deadline, evidence_of_all

    def _watcher(self, account: ClusterAccount, number: int, client: httpx.AsyncClient) -> Watcher:
        name = f"{account.account_id}/{number}"
        return Watcher(
            self._cluster,
            account,
            self.weather.ledger,
            name=name,
            chance=random.Random(f"{self._seed}-{name}"),
            client=client,
            habits=self._habits[number],
        )

    # -- strikes --------------------------------------------------------------------------------

    async def _strike_all(self, strikes: Sequence[Strike]) -> None:
        for strike in strikes:
            await asyncio.sleep(strike.gap_s)
            if strike.target in self._cluster.ws_replicas:
                await self._strike_replica(strike, self._cluster.ws_replicas[strike.target])
            elif strike.target == "redis":
                async with self._redis_free:
                    await self._strike_redis(strike)
            else:
                await self._strike_terminal(strike, strike.target)

    async def _strike_terminal(self, strike: Strike, terminal_id: str) -> None:
        cluster = self._cluster
        match strike.kind:
            case "terminal restart":
                terminal = cluster.stream_terminals[terminal_id]
                self.weather.testimonies.append(await asyncio.to_thread(evidence, terminal))
                await asyncio.to_thread(cluster.restart_terminal, terminal_id)
                await asyncio.to_thread(install, terminal)
            case "terminal freeze":
                await self._fault("freeze", terminal_id, hold_s=strike.lasts_s)
                await asyncio.sleep(strike.lasts_s)
            case "terminal without broker":
                await self._fault("broker_disconnected", terminal_id, seconds=strike.lasts_s)
                await asyncio.sleep(strike.lasts_s)
            case _:
                await self._take(terminal_id)

    async def _take(self, terminal_id: str) -> None:
        """Somebody logs another account in, behind our backs, best where one is streamed."""
        accounts = {each.login: each for each in self._cluster.accounts.values()}
        logins = {
            name: (await asyncio.to_thread(self._cluster.terminal_state, name))["logged_in"]
            for name in self._cluster.stream_terminals
        }
        used = [name for name, login in logins.items() if login is not None]
        taken = terminal_id if terminal_id in used or not used else self._chance.choice(used)
        other = accounts[self._chance.choice([one for one in accounts if one != logins[taken]])]
        who = {"login": other.login, "server": other.server, "password": other.password}
        await self._fault("account_switched", taken, **who)

    async def _fault(self, name: str, terminal_id: str, **parameters: object) -> None:
        await asyncio.to_thread(self._cluster.fault, name, terminal_id, **parameters)


def weather_a_watched_storm(
    directory: Path, rounds: int, habits: Sequence[Habits], dsns: RoleDsns | None = None
) -> Weather:
    """Let a storm loose on a cluster of its own and assert what must hold.

    The seed is random and printed; the variable MT5_CHAOS_SEED gives one.

    Args:
        directory: For data and logs.
        rounds: How often each kind of strike comes.
        habits: Of the watchers of each account.
        dsns: Of a database to use; without, a PostgreSQL is started.

    Raises:
        AssertionError: A promise was broken.
    """
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().getrandbits(32))
    with running_cluster(PLAN, directory, dsns=dsns) as cluster:
        sequences = (
            strikes_at_replicas(seed, rounds, LEASE_TTL_S, list(cluster.ws_replicas)),
            strikes_at_redis(seed, rounds, LEASE_TTL_S),
            strikes_at_terminals(seed, rounds, list(cluster.stream_terminals)),
        )
        _say(f"{SEED_VARIABLE}={seed}", *(strike for strikes in sequences for strike in strikes))
        cluster.connect_all()
        for terminal in cluster.stream_terminals.values():
            install(terminal)
        storm = WatchStorm(cluster, seed, habits)
        asyncio.run(storm.weather_all(*sequences))
        for terminal in cluster.stream_terminals.values():
            storm.weather.testimonies.append(evidence(terminal))
    _assert_weathered(storm.weather)
    return storm.weather


def _assert_weathered(weather: Weather) -> None:
    ledger = weather.ledger
    _say(
        f"{weather.trades} trades, closed {dict(ledger.closed)}",
        *(f"{count} {what}" for what, count in ledger.counts.most_common()),
        *(f"{each.calls} calls under {len(each.tokens)} tokens" for each in weather.testimonies),
    )
    assert not ledger.wrong, f"{len(ledger.wrong)} breaches\n" + "\n".join(ledger.wrong[:10])
    assert not ledger.overlaps(), "\n".join(ledger.overlaps())
    stale = [each.stale[:5] for each in weather.testimonies if each.stale]
    assert not stale, f"(function, token, newer token before it): {stale}"
    assert any(len(each.tokens) > 1 for each in weather.testimonies), "no terminal changed hands"
    assert ledger.counts["resumed"]
    assert weather.trades
