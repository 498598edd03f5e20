"""The process context: every long-lived part of a replica, wired from its settings."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

from prometheus_client import CollectorRegistry

from mt5kit.domain.brokers import Brokers
from mt5kit.state.keys import Keys
from mt5kit.state.postgres import Database, WorkerStore
from mt5kit.state.redis import (
    ControlChannel,
    KeeperPlan,
    LeaseKeeper,
    LeaseStore,
    LiveStore,
    Redis,
    RedisProbe,
    StreamPlacementStore,
    TicketStore,
    open_redis,
)
from mt5kit.telemetry.http_metrics import HttpMetrics
from mt5kit.telemetry.readiness import Probe
from mt5kit.telemetry.stream_metrics import StreamMetrics
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard
from mt5kit.vault import Vault
from websocket_pool.admission import Admission
from websocket_pool.credentials import CredentialSource, StoredCredentials
from websocket_pool.door import Door
from websocket_pool.feed import FeedParts
from websocket_pool.hub import Hub
from websocket_pool.local_source import IDLE_S, LocalParts, LocalSources
from websocket_pool.resume import ResumeTickets
from websocket_pool.session import SessionRules
from websocket_pool.settings import StreamSettings
from websocket_pool.supervision import keep_running
from websocket_pool.terminals import LinkedTerminals, Terminals


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a replica is built from; a test gives its own terminals and credentials.

    Args:
        redis: The state store.
        registry: The metrics of this app.
        terminals: The stream terminals.
        own: Those of this replica's slot.
        credentials: Of the accounts.
        brokers: Their clocks.
        rules: Times of sessions, and this replica's id.
        origins: Pages that may open sockets.
        most: Sockets in all, and of one user.
        lease_interval_s: Between renewals; a quarter of a lease unless given.
        idle_s: Seconds a stream goes on without watchers.
    """

    redis: Redis
    registry: CollectorRegistry
    terminals: Terminals
    credentials: CredentialSource
    brokers: Brokers
    rules: SessionRules
    own: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    most: tuple[int, int] = (2000, 20)
    lease_interval_s: float | None = None
    idle_s: float = IDLE_S


@dataclass(frozen=True, slots=True)
class StreamContext:
    """Lives as long as the process. Start it in the lifespan, close it at its end."""

    wiring: Wiring
    http_metrics: HttpMetrics
    keeper: LeaseKeeper
    hub: Hub
    resume: ResumeTickets
    control: ControlChannel
    door: Door
    database: Database | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def from_settings(cls, settings: StreamSettings) -> Self:
        """Wire everything; nothing is connected before `start`.

        Raises:
            KeyRingInvalid: The vault's key ring cannot be used.
            ValueError: A clock rule, network or address is malformed.
        """
        vault = await asyncio.to_thread(Vault.from_file, settings.key_ring_file)
        registry = CollectorRegistry()
        database = await Database.open(
            settings.worker_database_url.get_secret_value(),
            application_name=settings.instance_id,
        )
        terminals = LinkedTerminals.of(
            settings.stream_terminals,
            AddressGuard(settings.terminals_networks),
            TerminalMetrics(registry),
        )
        wiring = Wiring(
            redis=open_redis(settings.redis_url.get_secret_value()),
            registry=registry,
            terminals=terminals,
            credentials=StoredCredentials(WorkerStore(database), vault),
            brokers=Brokers(settings.broker_servers, settings.default_clock),
            rules=SessionRules(settings.instance_id),
            own=settings.own_terminals,
            origins=settings.allowed_origins,
            most=(settings.max_connections, settings.max_connections_per_user),
        )
        return cls.wired(wiring, database)

    @classmethod
    def wired(cls, wiring: Wiring, database: Database | None = None) -> Self:
        """The parts, built; `database` is closed with them."""
        redis, keys, metrics = wiring.redis, Keys(), StreamMetrics(wiring.registry)
        ids = tuple(wiring.terminals.by_id)
        plan = KeeperPlan(
            role="stream",
            owner=wiring.rules.instance_id,
            terminals=lambda: ids,
            own=wiring.own,
            interval_s=wiring.lease_interval_s,
        )
        hub: Hub
        keeper = LeaseKeeper(
            LeaseStore(redis, keys),
            plan,
            on_gained=wiring.terminals.gained,
            on_lost=lambda terminal_id: hub.lost(terminal_id),  # noqa: PLW0108 - the hub is made below: it needs the keeper
        )
        hub = Hub(LocalSources(_parts(wiring, keeper, keys, metrics)))
        tickets = TicketStore(redis, keys)
        resume = ResumeTickets(tickets)
        return cls(
            wiring=wiring,
            http_metrics=HttpMetrics(wiring.registry),
            keeper=keeper,
            hub=hub,
            resume=resume,
            control=ControlChannel(redis, keys),
            door=Door(
                origins=frozenset(origin.lower() for origin in wiring.origins),
                tickets=tickets,
                resume=resume,
                admission=Admission(*wiring.most, metrics),
                hub=hub,
                rules=wiring.rules,
                metrics=metrics,
            ),
            database=database,
        )

    def describe(self) -> dict[str, object]:
        """For `/health/ready`."""
        held = self.keeper.held
        return {
            "instance_id": self.wiring.rules.instance_id,
            "terminals": {one: {"leased": one in held} for one in self.wiring.terminals.by_id},
        }

    def probes(self) -> dict[str, Probe]:
        """Of the parts this replica depends on."""
        probes: dict[str, Probe] = {"redis": RedisProbe(self.wiring.redis, Keys()).ping}
        if self.database is not None:
            probes["postgres"] = self.database.ping
        return probes

    def start(self) -> None:
        """Take leases, listen for orders, renew tickets."""
        self.keeper.start()
        for name, work in (
            ("control", lambda: self.hub.obey(self.control)),
            ("resume-tickets", self.resume.run),
        ):
            self.tasks.append(asyncio.create_task(keep_running(name, work), name=name))

    async def aclose(self) -> None:
        """End the streams, give the leases back, hang up, in this order, whatever fails of it."""
        async with AsyncExitStack() as last_first:
            last_first.push_async_callback(self.wiring.redis.aclose)
            if self.database is not None:
                last_first.push_async_callback(self.database.aclose)
            last_first.push_async_callback(self.wiring.terminals.aclose)
            last_first.push_async_callback(self._end_tasks)
            last_first.push_async_callback(self.keeper.close)
            last_first.push_async_callback(self.hub.aclose)

    async def _end_tasks(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def _parts(wiring: Wiring, keeper: LeaseKeeper, keys: Keys, metrics: StreamMetrics) -> LocalParts:
    return LocalParts(
        instance_id=wiring.rules.instance_id,
        terminals=wiring.terminals.by_id,
        keeper=keeper,
        placement=StreamPlacementStore(wiring.redis, keys),
        live=LiveStore(wiring.redis, keys),
        feed=FeedParts(wiring.credentials, wiring.brokers),
        metrics=metrics,
        idle_s=wiring.idle_s,
    )
