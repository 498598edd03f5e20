"""The process context: every long-lived part of an API replica, wired from its settings."""

import asyncio
from dataclasses import dataclass
from typing import Self

from prometheus_client import CollectorRegistry

from api_pool.connecting import Connector
from api_pool.directory import AccountDirectory
from api_pool.fleet import Fleet
from api_pool.gate import GateRules
from api_pool.keys import ApiKeys
from api_pool.limits import RateLimiter
from api_pool.looks import Looks
from api_pool.reading import Reader
from api_pool.settings import ApiSettings
from api_pool.streams import StreamAssigner
from mt5kit.domain.brokers import Brokers
from mt5kit.state.keys import Keys
from mt5kit.state.postgres import AccountStore, Database
from mt5kit.state.redis import (
    ControlChannel,
    LeaseStore,
    LiveStore,
    PlacementStore,
    Redis,
    RedisProbe,
    SnapshotCache,
    StreamPlacementStore,
    TicketStore,
    open_redis,
)
from mt5kit.telemetry.http_metrics import HttpMetrics
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.vault import KeyRing, Vault


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
    fleet: Fleet
    directory: AccountDirectory
    reader: Reader
    connector: Connector
    assigner: StreamAssigner

    @classmethod
    async def from_settings(cls, settings: ApiSettings) -> Self:
        """Wire everything; nothing is connected before it is used.

        Raises:
            KeyRingInvalid: The vault's key ring cannot be used.
            ValueError: A clock rule, network or address is malformed.
        """
        ring = await asyncio.to_thread(KeyRing.load, settings.key_ring_file)
        registry = CollectorRegistry()
        redis, names = open_redis(settings.redis_url.get_secret_value()), Keys()
        database = await Database.open(
            settings.database_url.get_secret_value(), application_name=settings.instance_id
        )
        fleet = Fleet.of(settings, redis, names, TerminalMetrics(registry))
        directory = AccountDirectory(AccountStore(database), Vault(ring))
        looks = Looks(
            LiveStore(redis, names), SnapshotCache(redis, names), PlacementStore(redis, names)
        )
        brokers = Brokers(settings.broker_servers, settings.default_clock)
        reader = Reader(settings.instance_id, fleet, directory, looks, brokers)
        connector = Connector(
            reader=reader,
            fleet=fleet,
            directory=directory,
            looks=looks,
            control=ControlChannel(redis, names),
            brokers=brokers,
            login_timeout_s=settings.login_timeout_s,
        )
        assigner = StreamAssigner(
            settings.stream_terminals,
            StreamPlacementStore(redis, names),
            LeaseStore(redis, names),
            TicketStore(redis, names),
            settings.ws_base_url,
        )
        return cls(
            settings=settings,
            registry=registry,
            http_metrics=HttpMetrics(registry),
            gate=GateRules(
                keys=ApiKeys("X-API-Key", settings.api_keys),
                admin_keys=ApiKeys("X-Admin-API-Key", settings.admin_api_keys),
                limiter=RateLimiter("key", settings.key_rate),
            ),
            account_limiter=RateLimiter("account", settings.account_rate),
            brokers=brokers,
            redis=redis,
            redis_probe=RedisProbe(redis, names),
            database=database,
            fleet=fleet,
            directory=directory,
            reader=reader,
            connector=connector,
            assigner=assigner,
        )

    async def aclose(self) -> None:
        """End what `from_settings` made, terminals first."""
        await self.fleet.aclose()
        await self.database.aclose()
        await self.redis.aclose()
