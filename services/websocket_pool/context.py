"""The process context: every long-lived part of a replica, wired from its settings."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

import httpx
import structlog
from prometheus_client import CollectorRegistry

from mt5kit.domain.brokers import Brokers
from mt5kit.secret import Secret
from mt5kit.service.background import Background
from mt5kit.service.departures import LOOK_S
from mt5kit.service.registration import Registration
from mt5kit.service.supervision import keep_running
from mt5kit.state.keys import Keys
from mt5kit.state.postgres import Database, InstanceReport, SubscriptionStore, WorkerStore
from mt5kit.state.redis import (
    BoardStore,
    ControlChannel,
    LeaseKeeper,
    LeaseStore,
    LiveStore,
    RedisProbe,
    SocketCounts,
    StreamPlacementStore,
    TicketStore,
    open_redis,
)
from mt5kit.telemetry.http_metrics import HttpMetrics
from mt5kit.telemetry.readiness import Probe
from mt5kit.telemetry.stream_metrics import StreamMetrics
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard
from mt5kit.terminal.names import Names
from mt5kit.terminal.supervisor import Supervisors
from mt5kit.vault import Vault
from websocket_pool.admission import Admission
from websocket_pool.board import BEAT_S, StreamBoard
from websocket_pool.close_codes import CloseCode
from websocket_pool.credentials import StoredCredentials
from websocket_pool.door import Door
from websocket_pool.draining import Drainer
from websocket_pool.entrance import Entrance
from websocket_pool.feed import FeedParts
from websocket_pool.hub import Hub
from websocket_pool.leasing import Leasing
from websocket_pool.owner import OwnerParts
from websocket_pool.poll_marks import MARK_S, PollMarks
from websocket_pool.resume import RENEW_S, ResumeTickets
from websocket_pool.session import SessionRules
from websocket_pool.settings import StreamSettings
from websocket_pool.source import Watcher
from websocket_pool.stream_parts import StreamParts
from websocket_pool.subscriptions import SubscriptionBook
from websocket_pool.terminals import LinkedTerminals
from websocket_pool.tokens import TokenVerifier
from websocket_pool.user_sockets import UserSockets
from websocket_pool.wiring import Limits, Wiring

log = structlog.get_logger(__name__)

PARTING_S = 1.0
"""The sockets of a replica that stops are closed over so long, and each is told to come back
after a moment of its own, so that they do not all come at once."""


@dataclass(frozen=True, slots=True)
class Records:
    """What is written of a replica to Postgres."""

    database: Database
    book: SubscriptionBook
    marks: PollMarks
    registration: Registration


@dataclass(slots=True)
class StreamContext:
    """Lives as long as the process. Start it in the lifespan, close it at its end."""

    wiring: Wiring
    http_metrics: HttpMetrics
    leasing: Leasing
    hub: Hub
    board: StreamBoard
    drainer: Drainer
    control: ControlChannel
    door: Door
    database: Database | None = None
    client: httpx.AsyncClient | None = None
    draining: bool = False
    _records: Records | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _background: Background = field(default_factory=Background)

    @classmethod
    async def from_settings(cls, settings: StreamSettings) -> Self:
        """Wire everything; nothing is connected before `start`.

        Raises:
            KeyRingInvalid: The vault's key ring cannot be used.
            ValueError: A clock rule, network, address or secret is malformed.
        """
        vault = await asyncio.to_thread(Vault.from_file, settings.key_ring_file)
        registry = CollectorRegistry()
        database = await Database.open(
            settings.worker_database_url.get_secret_value(),
            application_name=settings.instance_id,
            networks=settings.networks,
        )
        guard, key = AddressGuard(settings.terminals_networks), settings.supervisor_key
        terminals = LinkedTerminals.of(settings.stream_terminals, guard, TerminalMetrics(registry))
        client = httpx.AsyncClient()
        wiring = Wiring(
            redis=open_redis(settings.redis_url.get_secret_value(), settings.networks),
            registry=registry,
            terminals=terminals,
            credentials=StoredCredentials(WorkerStore(database), vault),
            brokers=Brokers(settings.broker_servers, settings.default_clock),
            rules=SessionRules(settings.instance_id),
            verifier=TokenVerifier.of(
                secret=settings.jwt_secret,
                jwks_url=settings.jwt_jwks_url,
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                client=client,
            ),
            own=settings.own_terminals,
            names=Names(settings.stream_terminals, guard),
            supervisors=Supervisors(
                settings.supervisor_port, None if key is None else Secret(key.get_secret_value())
            ),
            origins=settings.allowed_origins,
            limits=Limits(
                settings.max_connections,
                settings.max_connections_per_user,
                settings.max_connections_per_address,
            ),
            lease_ttl_ms=settings.lease_ttl_ms,
            idle_s=settings.idle_s,
            drain_s=settings.drain_s,
        )
        context = cls.wired(wiring, database)
        context.client = client
        return context

    @classmethod
    def wired(cls, wiring: Wiring, database: Database | None = None) -> Self:
        """The parts, built; `database` is closed with them. Needs a running event loop."""
        redis, keys, metrics = wiring.redis, Keys(), StreamMetrics(wiring.registry)
        me, terminals = wiring.rules.instance_id, wiring.terminals
        leases, live = LeaseStore(redis, keys), LiveStore(redis, keys)
        # The hub is made below: it needs the keeper.
        hub: Hub
        leasing = Leasing.of(wiring, leases, lambda: hub)
        keeper, drains = leasing.keeper, leasing.departures.drain
        board = StreamBoard(
            BoardStore(redis, keys, "stream"),
            me,
            lambda: keeper.held,
            lambda terminal_id: terminals.up(terminal_id) and hub.well(terminal_id),
            drains,
            leasing.roster,
        )
        marks = PollMarks(WorkerStore(database)) if database else None
        owner = OwnerParts(
            instance_id=me,
            placement=StreamPlacementStore(redis, keys),
            live=live,
            feed=FeedParts(wiring.credentials, wiring.brokers),
            metrics=metrics,
            others=board.others,
            drains=drains,
            looked=marks.looked if marks else _unmarked,
            idle_s=wiring.idle_s,
            move_after_s=wiring.move_after_s,
        )

        def candidates() -> list[str]:
            # A Redis that has lost its data may not know yet that they are taken.
            taken = hub.polled() | parts.leaving
            return [one for one in board.candidates() if one not in taken]

        parts = StreamParts(
            me, keeper, leases, terminals, owner, candidates, set(), wiring.settle_s
        )
        hub = Hub(parts)
        door = _door(wiring, hub, metrics, keys)
        context = cls(
            wiring=wiring,
            http_metrics=HttpMetrics(wiring.registry),
            leasing=leasing,
            hub=hub,
            board=board,
            drainer=Drainer(leasing, terminals, hub, owner),
            control=ControlChannel(redis, keys),
            door=door,
            database=database,
        )
        if database is not None and marks is not None:
            context.record(database, marks)
        return context

    @property
    def keeper(self) -> LeaseKeeper:
        """The leases of this replica."""
        return self.leasing.keeper

    def record(self, database: Database, marks: PollMarks) -> None:
        """Write to a database what happens here."""
        book = SubscriptionBook(SubscriptionStore(database), self.wiring.rules.instance_id)
        registration = Registration(WorkerStore(database), self.report)
        self._records = Records(database, book, marks, registration)
        self.door.book = book

    def report(self) -> InstanceReport:
        """What the registry says of this replica."""
        polled = [stream.row_id for stream in self.hub.streams if stream.owner is not None]
        return InstanceReport(
            self.wiring.rules.instance_id,
            "websocket",
            assigned_accounts=tuple(sorted(row for row in polled if row is not None)),
            active_connections=self.door.admission.count,
            health_status="draining" if self.draining else "healthy",
        )

    def describe(self) -> dict[str, object]:
        """For `/health/ready`."""
        held, terminals = self.keeper.held, self.wiring.terminals
        return {
            "instance_id": self.wiring.rules.instance_id,
            "draining": self.draining,
            "terminals": {
                one: {
                    "leased": one in held,
                    "connected": one in held and terminals.up(one),
                    "draining": one in held and self.leasing.departures.drain(one),
                }
                for one in terminals.ids
            },
        }

    def probes(self) -> dict[str, Probe]:
        """Of the parts this replica depends on."""
        probes: dict[str, Probe] = {"redis": RedisProbe(self.wiring.redis, Keys()).ping}
        if self.database is not None:
            probes["postgres"] = self.database.ping
        return probes

    def start(self) -> None:
        """Take leases, listen to the others and to orders, renew and record."""
        self.leasing.start()
        for name, work in (
            ("control", lambda: self.hub.obey(self.control)),
            ("relay", self.hub.hear),
            ("reservations", self.hub.watch_reservations),
        ):
            self._tasks.append(asyncio.create_task(keep_running(name, work), name=name))
        self._background.every("board", BEAT_S, self.board.beat)
        self._background.every("drain", LOOK_S, self.drainer.look)
        self._background.every("resume-tickets", RENEW_S, self.door.resume.renew_all)
        self._background.every("user-sockets", RENEW_S, self.door.users.renew)
        if self._records is not None:
            self._records.registration.start()
            self._records.book.start()
            self._background.every("poll-marks", MARK_S, self._records.marks.flush)

    async def drain(self) -> None:
        """Give the terminals away, and send the sockets to other replicas.

        The lines are handed over first, so that what a socket misses while it moves can be told.
        New sockets are served meanwhile: whoever sends them has yet to learn that we stop.
        """
        self.draining = True
        began_s = asyncio.get_running_loop().time()
        await self.keeper.close()
        left_s = self.wiring.drain_s - (asyncio.get_running_loop().time() - began_s)
        await asyncio.sleep(max(0.0, left_s))
        self.hub.refuse()
        await self._part_with(self.hub.watchers())

    async def aclose(self) -> None:
        """End the streams, give the leases back, hang up, in this order, whatever fails of it."""
        async with AsyncExitStack() as last_first:
            last_first.push_async_callback(self.wiring.redis.aclose)
            if self.client is not None:
                last_first.push_async_callback(self.client.aclose)
            if self._records is not None:
                last_first.push_async_callback(self._records.database.aclose)
                last_first.push_async_callback(self._records.registration.aclose)
                last_first.push_async_callback(self._records.book.close)
            last_first.push_async_callback(self.wiring.terminals.aclose)
            last_first.push_async_callback(self._background.aclose)
            last_first.push_async_callback(self._end_tasks)
            last_first.push_async_callback(self.hub.aclose)
            last_first.push_async_callback(self.leasing.aclose)

    async def _part_with(self, watchers: Sequence[Watcher]) -> None:
        chance = random.Random()  # noqa: S311 - spreads readers out, keeps no secret
        for watcher in watchers:
            after_ms = round(chance.uniform(0, PARTING_S) * 1000)
            watcher.end(CloseCode.RESTART, f"this replica restarts; reconnect after {after_ms} ms")
            await asyncio.sleep(PARTING_S / len(watchers))

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _door(wiring: Wiring, hub: Hub, metrics: StreamMetrics, keys: Keys) -> Door:
    tickets = TicketStore(wiring.redis, keys)
    limits, rules = wiring.limits, wiring.rules
    return Door(
        origins=frozenset(origin.lower() for origin in wiring.origins),
        entrance=Entrance(tickets, wiring.verifier, wiring.credentials, rules.lifetime_s),
        resume=ResumeTickets(tickets),
        admission=Admission(limits.sockets, limits.per_address, metrics),
        users=UserSockets(SocketCounts(wiring.redis, keys), limits.per_user),
        hub=hub,
        rules=rules,
        metrics=metrics,
    )


def _unmarked(_: str) -> None:
    """Without a database nothing is written."""
