"""What an API replica needs to know; every NAME may be NAME_FILE."""

import socket
from pathlib import Path

from pydantic import Field, SecretStr

from mt5kit.domain.broker_time import DEFAULT_RULE
from mt5kit.settings import ServiceSettings
from mt5kit.terminal.address import TerminalAddress


class ApiSettings(ServiceSettings):
    """Settings of the API pool.

    Args:
        instance_id: This replica; in Swarm its slot hostname.
        redis_url: With the password, if any.
        database_url: As role `mt5_app`.
        key_ring_file: The vault's key ring.
        api_keys: JSON `{name: SHA-256 hex of the key}`.
        admin_api_keys: The same for `/api/admin/`.
        api_terminals: JSON list of `{terminal_id, host, port}`, the same on every replica.
        own_terminals: Those of this replica's slot.
        stream_terminals: JSON list of the stream terminals' ids.
        terminals_networks: CIDR blocks outside which no terminal is spoken to.
        broker_servers: JSON `{server: clock rule}`; when empty, any server is tried.
        default_clock: Clock rule of a server that is not listed.
        ws_base_url: Where browsers reach `/ws/`, e.g. `wss://mt5.example.com`.
        login_timeout_s: What an unproven login may take.
        key_rate: Requests per second and key.
        account_rate: Requests per second and account.
    """

    instance_id: str = Field(default_factory=socket.gethostname)
    redis_url: SecretStr
    database_url: SecretStr
    key_ring_file: Path
    api_keys: dict[str, str]
    admin_api_keys: dict[str, str] = Field(default_factory=dict)
    api_terminals: tuple[TerminalAddress, ...]
    own_terminals: frozenset[str] = frozenset()
    stream_terminals: tuple[str, ...] = ()
    terminals_networks: tuple[str, ...]
    broker_servers: dict[str, str] = Field(default_factory=dict)
    default_clock: str = DEFAULT_RULE
    ws_base_url: str
    login_timeout_s: float = Field(default=15.0, gt=0, le=60)
    key_rate: float = Field(default=200.0, gt=0)
    account_rate: float = Field(default=20.0, gt=0)
