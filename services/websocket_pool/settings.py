"""What a WebSocket replica needs to know; every NAME may be NAME_FILE."""

import socket
from pathlib import Path

from pydantic import Field, SecretStr

from mt5kit.domain.broker_time import DEFAULT_RULE
from mt5kit.settings import ServiceSettings
from mt5kit.terminal.address import TerminalAddress


class StreamSettings(ServiceSettings):
    """Settings of the WebSocket pool.

    Args:
        instance_id: This replica; in Swarm its slot hostname.
        redis_url: With the password, if any.
        worker_database_url: As role `mt5_worker`.
        key_ring_file: The vault's key ring.
        stream_terminals: JSON list of `{terminal_id, host, port}`, the same on every replica.
        own_terminals: Those of this replica's slot.
        terminals_networks: CIDR blocks outside which no terminal is spoken to.
        broker_servers: JSON `{server: clock rule}`.
        default_clock: Clock rule of a server that is not listed.
        allowed_origins: JSON list of pages that may open sockets, `["*"]` for all.
        max_connections: Sockets this replica serves.
        max_connections_per_user: Of them, how many one user may have.
    """

    instance_id: str = Field(default_factory=socket.gethostname)
    redis_url: SecretStr
    worker_database_url: SecretStr
    key_ring_file: Path
    stream_terminals: tuple[TerminalAddress, ...]
    own_terminals: frozenset[str] = frozenset()
    terminals_networks: tuple[str, ...]
    broker_servers: dict[str, str] = Field(default_factory=dict)
    default_clock: str = DEFAULT_RULE
    allowed_origins: frozenset[str] = frozenset()
    max_connections: int = Field(default=2000, gt=0)
    max_connections_per_user: int = Field(default=20, gt=0)
