"""What a cluster under test consists of: its size, its accounts, the broker's scenario."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import msgspec

from mt5kit.state.keys import Role

SERVER, CLOCK = "Cluster-Server", "EET-US"
KEY, ADMIN_KEY, INTERNAL_KEY, CONTROL_KEY = "cluster-key", "cluster-admin", "inside", "control"
FIRST_LOGIN = 700_001
SYMBOLS = ("EURUSD", "XAUUSD", "GBPUSD", "USDJPY", "BTCUSD")


@dataclass(frozen=True)
class Contained:
    """A container of terminals.

    Args:
        name: Its own, and that of its terminal where it has one.
        role: Of its terminals.
        count: How many it has.
    """

    name: str
    role: Role
    count: int = 1

    @property
    def terminal_ids(self) -> list[str]:
        """The names of its terminals."""
        return (
            [f"{self.name}-{n}" for n in range(1, self.count + 1)]
            if self.count > 1
            else [self.name]
        )


@dataclass(frozen=True)
class ClusterPlan:
    """What a cluster consists of.

    Args:
        terminals: API terminals, `t-1` …
        accounts: At the simulated broker, `account-1` …; each of a user of its own.
        replicas: API replicas, `api-1` …
        login_seconds: What a login takes.
        positions: Open positions of each account.
        positions_of: Of those that have another number of them, by account id.
        environment: Settings of every replica, over those of `cluster_settings`; JSON where not
            plain.
        stream_terminals: Terminals to stream from, `s-1` …; one account each.
        ws_replicas: WebSocket replicas, `ws-1` …
        ws_environment: Settings of those alone, over `environment`.
        containers: Instead of `terminals` and `stream_terminals`: terminals in containers.
        as_tasks: Whether replicas are named as a Swarm names its tasks.
    """

    terminals: int = 2
    accounts: int = 4
    replicas: int = 2
    login_seconds: float = 0.0
    positions: int = 2
    positions_of: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    stream_terminals: int = 0
    ws_replicas: int = 0
    ws_environment: Mapping[str, str] = field(default_factory=dict)
    containers: tuple[Contained, ...] = ()
    as_tasks: bool = False

    @property
    def terminal_names(self) -> list[tuple[str, Role]]:
        """Id and role of every terminal, in the order of the simulator's numbers."""
        api: list[tuple[str, Role]] = [(f"t-{n}", "api") for n in range(1, self.terminals + 1)]
        return api + [(f"s-{n}", "stream") for n in range(1, self.stream_terminals + 1)]


def task_name(service: str, slot: int) -> str:
    """What a Swarm calls a new task of a service."""
    return f"mt5_{service}.{slot}.{uuid4().hex[:25]}"


@dataclass(frozen=True)
class ClusterAccount:
    """An account at the simulated broker; no two have the same balance."""

    account_id: str
    user_id: UUID
    login: int
    balance: float
    password: str = field(repr=False)
    server: str = SERVER

    def headers(self) -> dict[str, str]:
        """Of a request for it."""
        return {"X-API-Key": KEY, "X-User-ID": str(self.user_id)}

    def connect_body(self) -> dict[str, object]:
        """Of `POST /api/mt5/connect`."""
        return {
            "user_id": str(self.user_id),
            "account_id": self.account_id,
            "login": self.login,
            "password": self.password,
            "server": self.server,
        }


def account_at(index: int) -> ClusterAccount:
    login = FIRST_LOGIN + index
    return ClusterAccount(
        account_id=f"account-{index + 1}",
        user_id=uuid4(),
        login=login,
        balance=10_000.0 + index,
        password=f"pass-{login}",
    )


def scenario_of(accounts: Mapping[str, ClusterAccount], plan: ClusterPlan) -> bytes:
    people = [
        {
            "login": account.login,
            "password": account.password,
            "server": account.server,
            "balance": account.balance,
            "registered_at": "2026-01-01T00:00:00Z",
            "positions": [
                {
                    "symbol": SYMBOLS[(account.login + number) % len(SYMBOLS)],
                    "type": "buy" if number % 2 else "sell",
                    "volume": 0.01,
                    "opened_at": f"2026-01-05T10:{number // 60:02d}:{number % 60:02d}Z",
                }
                for number in range(plan.positions_of.get(account.account_id, plan.positions))
            ],
        }
        for account in accounts.values()
    ]
    return msgspec.json.encode({"servers": [{"name": SERVER, "clock": CLOCK}], "accounts": people})
