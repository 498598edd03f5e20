"""What a WebSocket replica needs to know; every NAME may be NAME_FILE."""

import socket
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from mt5kit.domain.broker_time import DEFAULT_RULE
from mt5kit.networks import Networks
from mt5kit.settings import ServiceSettings
from mt5kit.state.redis import LEASE_TTL_MS
from mt5kit.terminal.address import TerminalAddress


class StreamSettings(ServiceSettings):
    """Settings of the WebSocket pool.

    Args:
        host: Where it listens.
        port: Where it listens.
        instance_id: This replica; in Swarm its slot hostname.
        services_networks: CIDR blocks outside which no store is connected to.
        redis_url: With the password, if any.
        worker_database_url: As role `mt5_worker`.
        key_ring_file: The vault's key ring.
        stream_terminals: JSON list of `{terminal_id, host, port}`, the same on every replica.
        own_terminals: Those of this replica's slot.
        terminals_networks: CIDR blocks outside which no terminal is spoken to.
        supervisor_port: Where the supervisors of terminals listen; 0 where there are none.
        supervisor_key: What opens them.
        broker_servers: JSON `{server: clock rule}`.
        default_clock: Clock rule of a server that is not listed.
        allowed_origins: JSON list of pages that may open sockets, `["*"]` for all.
        trusted_proxies: JSON list of the addresses or CIDR blocks of proxies whose
            `X-Forwarded-For` says who a client is.
        max_connections: Sockets this replica serves.
        max_connections_per_user: How many one user may have, on all replicas together.
        max_connections_per_address: How many one address may have on this replica.
        lease_ttl_ms: A dead replica's terminals are free again after this.
        idle_s: Seconds a stream goes on when its last watcher has gone.
        drain_s: Seconds it goes on serving new sockets after SIGTERM, until nobody sends it any.
        jwt_secret: Of Supabase's HS256 tokens.
        jwt_jwks_url: Where Supabase publishes the keys of its asymmetric tokens.
        jwt_issuer: Who must have issued a token.
        jwt_audience: Whom a token must be for.
    """

    host: str = "0.0.0.0"  # noqa: S104 - inside its container
    port: int = Field(default=8000, ge=0, le=65535)
    instance_id: str = Field(default_factory=socket.gethostname)
    services_networks: tuple[str, ...] = ()
    redis_url: SecretStr
    worker_database_url: SecretStr
    key_ring_file: Path
    stream_terminals: tuple[TerminalAddress, ...]
    own_terminals: frozenset[str] = frozenset()
    terminals_networks: tuple[str, ...]
    supervisor_port: int = Field(default=0, ge=0, le=65535)
    supervisor_key: SecretStr | None = None
    broker_servers: dict[str, str] = Field(default_factory=dict)
    default_clock: str = DEFAULT_RULE
    allowed_origins: frozenset[str] = frozenset()
    max_connections: int = Field(default=2000, gt=0)
    max_connections_per_user: int = Field(default=20, gt=0)
    max_connections_per_address: int = Field(default=100, gt=0)
    trusted_proxies: tuple[str, ...] = ()
    lease_ttl_ms: int = Field(default=LEASE_TTL_MS, ge=100)
    idle_s: float = Field(default=30.0, ge=0)
    drain_s: float = Field(default=3.0, ge=0)
    jwt_secret: SecretStr | None = None
    jwt_jwks_url: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str = "authenticated"

    @property
    def networks(self) -> Networks | None:
        """`services_networks`; None without."""
        return Networks.of(self.services_networks)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.supervisor_port and self.supervisor_key is None:
            raise ValueError("SUPERVISOR_PORT wants SUPERVISOR_KEY")
        return self
