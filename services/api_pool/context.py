"""The process context: every long-lived part of an API replica, wired from its settings."""

import asyncio
import hashlib
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from api_pool.budget import ServerBudget
from api_pool.capacity import Capacity
from api_pool.connecting import Connector
from api_pool.demand import ReadCounter
from api_pool.directory import AccountDirectory
from api_pool.draining import Drainer
from api_pool.fleet import Fleet, FleetParts
from api_pool.forwarding import KEY_HEADER, Forwarder
from api_pool.gate import GateRules
from api_pool.history_pages import HistoryPages
from api_pool.housekeeping import Housekeeping
from api_pool.invalidation import Invalidation
from api_pool.journal import TerminalJournal
from api_pool.keys import ApiKeys
from api_pool.leasing import Leasing
from api_pool.limits import RateLimiter
from api_pool.local_turns import LocalTurns
from api_pool.looks import Looks
from api_pool.places import Board, Places
from api_pool.pulse import MOVES_S, PULSE_S, Pulse, PulseStores
from api_pool.reading import Reader
from api_pool.request_log import RequestLogWriter
from api_pool.routing import TurnRouter
from api_pool.sessions import SessionAccounts
from api_pool.settings import ApiSettings
from api_pool.store_watch import StoreWatch
from api_pool.streams import StreamAssigner, StreamBoard
from api_pool.syncing import SyncParts, SyncRunner
from mt5kit.domain.brokers import Brokers
from mt5kit.secret import Secret
from mt5kit.service.background import Background
from mt5kit.service.departures import LOOK_S
from mt5kit.service.registration import Registration
from mt5kit.state.keys import Keys
from mt5kit.state.postgres import AccountStore, Database, InstanceReport, WorkerStore
from mt5kit.state.redis import (
    BoardStore,
    ControlChannel,
    DemandStore,
    HistoryCache,
    LeaseStore,
    LiveStore,
    LoginBudgetStore,
    PlacementStore,
    Redis,
    RedisProbe,
    ShareStore,
    SnapshotCache,
    StreamPlacementStore,
    SyncStore,
    TicketStore,
    open_redis,
)
from mt5kit.telemetry.http_metrics import HttpMetrics
from mt5kit.telemetry.request_log_metrics import RequestLogMetrics
from mt5kit.telemetry.session_metrics import SessionMetrics
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard
from mt5kit.terminal.scheduling import RefusalMemory
from mt5kit.vault import Vault


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """Lives as long as the process; use cases are made from it, requests read it."""

    settings: ApiSettings
    registry: CollectorRegistry
    http_metrics: HttpMetrics
    gate: GateRules
    account_limiter: RateLimiter
    brokers: Brokers
    redis: Redis
    redis_probe: RedisProbe
    database: Database
    worker_database: Database
    background: Background
    forwarder: Forwarder
    board: Board
    places: Places
    leasing: Leasing
    local_turns: LocalTurns
    directory: AccountDirectory
    reader: Reader
    connector: Connector
    syncs: SyncStore
    sync_runner: SyncRunner
    assigner: StreamAssigner
    capacity: Capacity
    pulse: Pulse
    drainer: Drainer
    invalidation: Invalidation
    request_log: RequestLogWriter
    housekeeping: Housekeeping
    registration: Registration
    draining: asyncio.Event = field(default_factory=asyncio.Event)

    @staticmethod
    async def from_settings(settings: ApiSettings) -> "ProcessContext":
        """Wire everything; nothing is connected before it is used.

        Raises:
            KeyRingInvalid: The vault's key ring cannot be used.
            ValueError: A clock rule, network or address is malformed.
        """
        vault = await asyncio.to_thread(Vault.from_file, settings.key_ring_file)
        database = await Database.open(
            settings.database_url.get_secret_value(),
            application_name=settings.instance_id,
            networks=settings.networks,
        )
        worker_database = await Database.open(
            settings.worker_database_url.get_secret_value(),
            application_name=f"{settings.instance_id}-worker",
            networks=settings.networks,
        )
        return _Wiring(settings, vault, database, worker_database).context()

    @property
    def default_max_age_ms(self) -> int:
        """The age that callers take who do not say."""
        return self.board.default_age_ms

    @property
    def fleet(self) -> Fleet:
        """The terminals of this replica."""
        return self.leasing.fleet

    def start(self) -> None:
        """Take leases, exchange with the other replicas, write what is logged."""
        self.request_log.start()
        self.leasing.start()
        self.background.every("pulse", PULSE_S, self.pulse.beat)
        self.background.every("drain", LOOK_S, self.drainer.look)
        self.background.every("even-out", MOVES_S, self.pulse.even_out)
        self.background.every("sync-jobs", PULSE_S, self.sync_runner.look)
        self.background.every("invalidation", PULSE_S, self.invalidation.listen)
        self.housekeeping.start()
        self.registration.start()

    async def drain(self) -> None:
        """Give the terminals to the other replicas, and answer through them for a while yet."""
        self.draining.set()
        lag = asyncio.create_task(asyncio.sleep(self.settings.drain_s))
        await self.fleet.hand_over()
        await lag

    async def aclose(self) -> None:
        """End what `from_settings` made and `start` began, terminals first, whatever fails."""
        async with AsyncExitStack() as last_first:
            last_first.push_async_callback(self.redis.aclose)
            last_first.push_async_callback(self.database.aclose)
            last_first.push_async_callback(self.worker_database.aclose)
            last_first.push_async_callback(self.request_log.aclose)
            last_first.push_async_callback(self.housekeeping.aclose)
            last_first.push_async_callback(self.registration.aclose)
            last_first.push_async_callback(self.forwarder.aclose)
            last_first.push_async_callback(self.background.aclose)
            last_first.push_async_callback(self.leasing.aclose)


class _Wiring:
    """Makes the parts of a context, each once."""

    def __init__(
        self, settings: ApiSettings, vault: Vault, database: Database, worker_database: Database
    ) -> None:
        self.settings = settings
        self.vault = vault
        self.database = database
        self.worker_database = worker_database
        self.redis = open_redis(settings.redis_url.get_secret_value(), settings.networks)
        self.names = Keys()
        self.registry = CollectorRegistry()
        self.session_metrics = SessionMetrics(self.registry)
        self.background = Background()
        self.watch = StoreWatch()
        self.brokers = Brokers(settings.broker_servers, settings.default_clock)
        self.worker = WorkerStore(worker_database)
        self.directory = AccountDirectory(AccountStore(database), vault)
        self.leases = LeaseStore(self.redis, self.names)
        self.board_store = BoardStore(self.redis, self.names)
        self.placements = PlacementStore(self.redis, self.names)
        self.streams = StreamPlacementStore(self.redis, self.names)
        self.stream_board = StreamBoard(
            settings.stream_terminals, BoardStore(self.redis, self.names, "stream"), self.leases
        )
        self.control = ControlChannel(self.redis, self.names)
        self.pages = HistoryPages(HistoryCache(self.redis, self.names), self.background, self.watch)
        self.syncs = SyncStore(self.redis, self.names)
        self.board = Board(
            (one.terminal_id for one in settings.api_terminals), settings.mt5_connection_pool_size
        )
        self.places = Places(self.placements, self.board, settings.session_idle_s, self.watch)
        self.counter = ReadCounter()
        self.sessions = SessionAccounts(self.worker, vault, self.background)
        self.login_budget = LoginBudgetStore(self.redis, self.names)
        self.budget = ServerBudget(self.login_budget, settings.login_budget_per_minute, self.watch)
        self.looks = Looks(
            instance_id=settings.instance_id,
            live=LiveStore(self.redis, self.names),
            cache=SnapshotCache(self.redis, self.names),
            brokers=self.brokers,
            background=self.background,
            watch=self.watch,
        )
        self.key_limiter = RateLimiter("key", settings.key_rate)
        self.account_limiter = RateLimiter("account", settings.account_rate)

    def context(self) -> ProcessContext:
        """All of it."""
        settings = self.settings
        leasing = self._leasing()
        fleet = leasing.fleet
        local = LocalTurns(
            fleet=fleet,
            sessions=self.sessions,
            looks=self.looks,
            brokers=self.brokers,
            vault=self.vault,
            login_timeout_s=settings.login_timeout_s,
            metrics=self.session_metrics,
        )
        forwarder = Forwarder(
            Secret(settings.internal_key.get_secret_value()),
            settings.lease_ttl_ms / 1000,
            networks=settings.networks,
        )
        router = TurnRouter(fleet, local, self.places, self.leases, forwarder, self.watch)
        http_metrics = HttpMetrics(self.registry)
        self.board.attach(fleet.entries)
        sync_runner = SyncRunner(
            SyncParts(
                store=self.syncs,
                placements=self.placements,
                places=self.places,
                fleet=fleet,
                sessions=self.sessions,
                pages=self.pages,
                brokers=self.brokers,
                background=self.background,
            )
        )
        return ProcessContext(
            settings=settings,
            registry=self.registry,
            http_metrics=http_metrics,
            gate=self._gate(),
            account_limiter=self.account_limiter,
            brokers=self.brokers,
            redis=self.redis,
            redis_probe=RedisProbe(self.redis, self.names),
            database=self.database,
            worker_database=self.worker_database,
            background=self.background,
            forwarder=forwarder,
            board=self.board,
            places=self.places,
            leasing=leasing,
            local_turns=local,
            directory=self.directory,
            reader=self._reader(router),
            connector=self._connector(router),
            syncs=self.syncs,
            sync_runner=sync_runner,
            assigner=self._assigner(),
            capacity=Capacity(
                board=self.board,
                placements=self.placements,
                streams=self.streams,
                leases=self.leases,
                stream_board=self.stream_board,
            ),
            pulse=self._pulse(leasing),
            drainer=Drainer(
                fleet,
                leasing.departures,
                self.board,
                self.board_store,
                self.places,
                self.placements,
            ),
            invalidation=Invalidation(self.control, self.directory, self.looks, fleet),
            request_log=RequestLogWriter(self.worker, RequestLogMetrics(self.registry)),
            housekeeping=Housekeeping(self.worker),
            registration=Registration(self.worker, self._report(fleet, http_metrics)),
        )

    def _leasing(self) -> Leasing:
        settings = self.settings
        parts = FleetParts(
            instance_id=settings.instance_id,
            addresses={one.terminal_id: one for one in settings.api_terminals},
            guard=AddressGuard(settings.terminals_networks),
            sessions=self.sessions,
            looks=self.looks,
            budget=self.budget,
            metrics=TerminalMetrics(self.registry),
            session_metrics=self.session_metrics,
            refusals=RefusalMemory(),
            journal=TerminalJournal(self.worker, settings.instance_id, self.background),
        )
        return Leasing.of(settings, self.leases, parts)

    def _pulse(self, leasing: Leasing) -> Pulse:
        return Pulse(
            stores=PulseStores(
                board=self.board_store,
                demand=DemandStore(self.redis, self.names),
                placements=self.placements,
                shares=ShareStore(self.redis, self.names),
                leases=self.leases,
            ),
            fleet=leasing.fleet,
            board=self.board,
            roster=leasing.roster,
            places=self.places,
            counter=self.counter,
            sessions=self.sessions,
            keys=self.key_limiter,
            accounts=self.account_limiter,
            budget=self.budget,
            metrics=self.session_metrics,
        )

    def _gate(self) -> GateRules:
        settings = self.settings
        internal = hashlib.sha256(settings.internal_key.get_secret_value().encode()).hexdigest()
        return GateRules(
            keys=ApiKeys("X-API-Key", settings.api_keys),
            admin_keys=ApiKeys("X-Admin-API-Key", settings.admin_api_keys),
            internal_keys=ApiKeys(KEY_HEADER, {"replicas": internal}),
            limiter=self.key_limiter,
        )

    def _reader(self, router: TurnRouter) -> Reader:
        return Reader(
            directory=self.directory,
            looks=self.looks,
            pages=self.pages,
            router=router,
            counter=self.counter,
            metrics=self.session_metrics,
            turn_deadline_s=self.settings.turn_deadline_s,
        )

    def _connector(self, router: TurnRouter) -> Connector:
        return Connector(
            directory=self.directory,
            router=router,
            places=self.places,
            looks=self.looks,
            pages=self.pages.cache,
            syncs=self.syncs,
            control=self.control,
            brokers=self.brokers,
            vault=self.vault,
            background=self.background,
            worker=self.worker,
            budget=self.login_budget,
            connects_per_minute=self.settings.connects_per_minute,
            turn_deadline_s=self.settings.turn_deadline_s,
        )

    def _assigner(self) -> StreamAssigner:
        return StreamAssigner(
            self.stream_board,
            self.streams,
            TicketStore(self.redis, self.names),
            self.settings.ws_base_url,
        )

    def _report(self, fleet: Fleet, http: HttpMetrics) -> Callable[[], InstanceReport]:
        def report() -> InstanceReport:
            owned = fleet.owned.values()
            well = all(terminal.up for terminal in owned)
            return InstanceReport(
                instance_id=self.settings.instance_id,
                instance_type="api",
                assigned_accounts=self.sessions.rows(),
                active_connections=http.running,
                health_status="healthy" if well else "degraded",
                hostname=socket.gethostname(),
            )

        return report
