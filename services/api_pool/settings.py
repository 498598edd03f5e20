"""What an API replica needs to know; every NAME may be NAME_FILE."""

import socket
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from mt5kit.domain.broker_time import DEFAULT_RULE
from mt5kit.networks import Networks
from mt5kit.settings import ServiceSettings
from mt5kit.state.redis import LEASE_TTL_MS
from mt5kit.terminal.address import TerminalAddress


class ApiSettings(ServiceSettings):
    """Settings of the API pool.

    Args:
        instance_id: This replica; in Swarm its slot hostname.
        host: Where it listens.
        port: Where it listens.
        internal_url: Where the other replicas reach it; by default by its address inside
            `services_networks`, and without those `http://<instance_id>:<port>`.
        internal_key: Shared by the replicas; opens `/internal/`, which nginx does not route.
        services_networks: CIDR blocks outside which neither stores nor replicas are connected to.
        redis_url: With the password, if any.
        database_url: As role `mt5_app`.
        worker_database_url: As role `mt5_worker`.
        key_ring_file: The vault's key ring.
        api_keys: JSON `{name: SHA-256 hex of the key}`.
        admin_api_keys: The same for `/api/admin/`.
        api_terminals: JSON list of `{terminal_id, host, port}`, the same on every replica.
        own_terminals: Those of this replica's slot.
        stream_terminals: JSON list of the stream terminals' ids.
        terminals_networks: CIDR blocks outside which no terminal is spoken to.
        supervisor_port: Where the supervisors of terminals listen; 0 where there are none.
        supervisor_key: What opens them.
        broker_servers: JSON `{server: clock rule}`; when empty, any server is tried.
        default_clock: Clock rule of a server that is not listed.
        ws_base_url: Where browsers reach `/ws/`, e.g. `wss://mt5.example.com`.
        login_timeout_s: What an unproven login may take.
        turn_deadline_s: How long a request may wait for its turn on a terminal.
        key_rate: Requests per second and key, of all replicas together.
        account_rate: Requests per second and account, likewise.
        connects_per_minute: Connects per minute and user.
        mt5_connection_pool_size: Accounts a terminal serves by turns, at most.
        login_budget_per_minute: Logins per minute and broker server, of all replicas together:
            what the broker puts up with.
        session_idle_s: A session unread for so long gives way to a new one when there is no room.
        lease_ttl_ms: After which a dead replica's terminals are others'.
        drain_s: How long a replica that stops still answers, until nobody sends it requests.
    """

    instance_id: str = Field(default_factory=socket.gethostname)
    host: str = "0.0.0.0"  # noqa: S104 - inside its container
    port: int = 8000
    internal_url: str = ""
    internal_key: SecretStr
    services_networks: tuple[str, ...] = ()
    redis_url: SecretStr
    database_url: SecretStr
    worker_database_url: SecretStr
    key_ring_file: Path
    api_keys: dict[str, str]
    admin_api_keys: dict[str, str] = Field(default_factory=dict)
    api_terminals: tuple[TerminalAddress, ...]
    own_terminals: frozenset[str] = frozenset()
    stream_terminals: tuple[str, ...] = ()
    terminals_networks: tuple[str, ...]
    supervisor_port: int = Field(default=0, ge=0, le=65535)
    supervisor_key: SecretStr | None = None
    broker_servers: dict[str, str] = Field(default_factory=dict)
    default_clock: str = DEFAULT_RULE
    ws_base_url: str
    login_timeout_s: float = Field(default=15.0, gt=0, le=60)
    turn_deadline_s: float = Field(default=15.0, gt=0, le=60)
    key_rate: float = Field(default=200.0, gt=0)
    account_rate: float = Field(default=20.0, gt=0)
    connects_per_minute: float = Field(default=30.0, gt=0)
    mt5_connection_pool_size: int = Field(default=20, ge=1, le=1000)
    login_budget_per_minute: float = Field(default=600.0, gt=0)
    session_idle_s: float = Field(default=300.0, gt=0)
    lease_ttl_ms: int = Field(default=LEASE_TTL_MS, ge=500, le=60_000)
    drain_s: float = Field(default=3.0, ge=0, le=30)

    @property
    def networks(self) -> Networks | None:
        """`services_networks`; None without."""
        return Networks.of(self.services_networks)

    @property
    def reached_at(self) -> str:
        """The base URL under which other replicas reach this one.

        Raises:
            ValueError: This host has no address inside `services_networks`.
        """
        if self.internal_url:
            return self.internal_url
        host = self.instance_id if self.networks is None else self.networks.own_address()
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        host = urlsplit(self.internal_url).hostname
        if self.internal_url and self.networks and not self.networks.permits(host or ""):
            raise ValueError("INTERNAL_URL has to name an address inside SERVICES_NETWORKS")
        if self.supervisor_port and self.supervisor_key is None:
            raise ValueError("SUPERVISOR_PORT wants SUPERVISOR_KEY")
        return self
