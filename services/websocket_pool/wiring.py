"""What a replica is built from."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from mt5kit.domain.brokers import Brokers
from mt5kit.state.redis import LEASE_TTL_MS, Redis
from mt5kit.terminal.names import Names
from mt5kit.terminal.supervisor import Supervisors
from websocket_pool.credentials import CredentialSource
from websocket_pool.entrance import Verifier
from websocket_pool.owner import IDLE_S, MOVE_AFTER_S
from websocket_pool.session import SessionRules
from websocket_pool.terminals import Terminals

SETTLE_S = 2.0
"""An owner writes every half second, and comes again after half a second if it could not."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sockets there may be.

    Args:
        sockets: On this replica.
        per_user: Of one user, on all replicas.
        per_address: Of one address, on this replica.
    """

    sockets: int = 2000
    per_user: int = 20
    per_address: int = 100


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a replica is built from; a test gives its own terminals and credentials.

    Args:
        redis: The state store.
        registry: The metrics of this app.
        terminals: The stream terminals.
        credentials: Of the accounts.
        brokers: Their clocks.
        rules: Times of sessions, and this replica's id.
        verifier: Of tokens.
        own: The terminals of this replica's slot.
        names: Which terminals have an address; all, unless given.
        supervisors: Say which of them are about to end.
        origins: Pages that may open sockets.
        limits: How many sockets there may be.
        lease_ttl_ms: A dead replica's terminals are free after this.
        lease_interval_s: Between renewals; a quarter of a lease unless given.
        idle_s: Seconds a stream goes on without watchers.
        move_after_s: Seconds after which an account leaves a terminal that does not answer.
        drain_s: Seconds new sockets are served while the replica stops.
        settle_s: See `StreamParts`.
    """

    redis: Redis
    registry: CollectorRegistry
    terminals: Terminals
    credentials: CredentialSource
    brokers: Brokers
    rules: SessionRules
    verifier: Verifier
    own: frozenset[str] = frozenset()
    names: Names | None = None
    supervisors: Supervisors = field(default_factory=lambda: Supervisors(0, None))
    origins: frozenset[str] = frozenset()
    limits: Limits = Limits()
    lease_ttl_ms: int = LEASE_TTL_MS
    lease_interval_s: float | None = None
    idle_s: float = IDLE_S
    move_after_s: float = MOVE_AFTER_S
    drain_s: float = 0.0
    settle_s: float = SETTLE_S
