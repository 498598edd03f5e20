"""The settings of a cluster's replicas, as environment variables."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tests.cluster_plan import ADMIN_KEY, CLOCK, INTERNAL_KEY, KEY, SERVER

from local_stack.embedded import RoleDsns
from local_stack.simulator import PlacedTerminal

# Limits are out of the way unless a plan brings them in.
NO_LIMIT = "100000"


@dataclass(frozen=True)
class Surroundings:
    """What all replicas are told of.

    Args:
        dsns: Of the database.
        redis_url: Of Redis.
        ring: The vault's key ring.
        terminals: Those of the API.
        stream_terminals: Those to stream from.
    """

    dsns: RoleDsns
    redis_url: str
    ring: Path
    terminals: Iterable[PlacedTerminal]
    stream_terminals: Iterable[PlacedTerminal]

    def of_api(self) -> dict[str, str]:
        """Settings of an API replica, without its own address."""
        values = {
            "api_keys": {"cluster": digest(KEY)},
            "admin_api_keys": {"cluster": digest(ADMIN_KEY)},
            "api_terminals": [terminal.address for terminal in self.terminals],
            "stream_terminals": [terminal.terminal_id for terminal in self.stream_terminals],
        }
        return (
            self._common()
            | _encoded(values)
            | {
                "DATABASE_URL": self.dsns.app,
                "WS_BASE_URL": "wss://stream.example",
                "INTERNAL_KEY": INTERNAL_KEY,
                "LOGIN_BUDGET_PER_MINUTE": NO_LIMIT,
                "KEY_RATE": NO_LIMIT,
                "ACCOUNT_RATE": NO_LIMIT,
            }
        )

    def of_streams(self) -> dict[str, str]:
        """Settings of a WebSocket replica, without its own address."""
        addresses = [terminal.address for terminal in self.stream_terminals]
        return (
            self._common()
            | _encoded({"stream_terminals": addresses})
            | {
                "MAX_CONNECTIONS": NO_LIMIT,
                "MAX_CONNECTIONS_PER_USER": NO_LIMIT,
                "MAX_CONNECTIONS_PER_ADDRESS": NO_LIMIT,
            }
        )

    def _common(self) -> dict[str, str]:
        values = {
            "terminals_networks": ["127.0.0.0/8"],
            "broker_servers": {SERVER: CLOCK},
        }
        return _encoded(values) | {
            "REDIS_URL": self.redis_url,
            "WORKER_DATABASE_URL": self.dsns.worker,
            "KEY_RING_FILE": str(self.ring),
            # Nothing of ours goes on sending to a replica that has been told to stop.
            "DRAIN_S": "0.5",
        }


def _encoded(values: Mapping[str, object]) -> dict[str, str]:
    return {name.upper(): msgspec.json.encode(value).decode() for name, value in values.items()}


def digest(key: str) -> str:
    """What settings keep of a key."""
    return hashlib.sha256(key.encode()).hexdigest()
