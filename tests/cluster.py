"""A whole cluster under test: databases, simulated terminals, API replicas as processes.

    with running_cluster(ClusterPlan(terminals=4, accounts=10), directory) as cluster:
        cluster.connect_all()
        cluster.replicas["api-1"].kill()
        cluster.wait_leased()

What it does blocks; from an event loop, call it in a thread. Requests are sent by
`tests.cluster_client`.
"""

import asyncio
import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain, cycle
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
from tests.cluster_plan import (
    ADMIN_KEY,
    CLOCK,
    CONTROL_KEY,
    INTERNAL_KEY,
    KEY,
    SERVER,
    ClusterAccount,
    ClusterPlan,
    account_at,
    scenario_of,
)
from tests.redis_server import RedisServer
from tests.replica import Replica

from local_stack.demo import write_private
from local_stack.embedded import EmbeddedPostgres, RoleDsns, apply_schema
from local_stack.simulator import PlacedTerminal, Simulator
from mt5kit.state.keys import Keys
from mt5kit.vault import KeyRing

# A bound for what comes within moments unless something is wrong.
PATIENCE_S = 60.0
STEP_S = 0.02
# Logins of several terminals at a time, and no more than a small machine bears.
CONNECTING = 16

__all__ = [
    "ADMIN_KEY",
    "KEY",
    "SERVER",
    "Cluster",
    "ClusterAccount",
    "ClusterPlan",
    "running_cluster",
    "wait_for",
]

T = TypeVar("T")


class Cluster:
    """What runs, and what can be done to it.

    Args:
        plan: What there is.
        directory: For keys and logs.
        dsns: Of a database with the schema in it.
        redis_server: Started.
        simulator: Started.
        accounts: That the simulator's broker has.
    """

    def __init__(
        self,
        plan: ClusterPlan,
        directory: Path,
        dsns: RoleDsns,
        redis_server: RedisServer,
        simulator: Simulator,
        accounts: Mapping[str, ClusterAccount],
    ) -> None:
        self.plan = plan
        self.accounts = accounts
        self.redis = redis_server
        self.simulator = simulator
        self.dsns = dsns
        self.terminals: dict[str, PlacedTerminal] = {
            terminal.terminal_id: terminal for terminal in simulator.terminals()
        }
        ring = directory / "key-ring.json"
        write_private(ring, KeyRing.generate().dump())
        environment = self._environment(ring) | dict(plan.environment)
        names = [f"api-{number}" for number in range(1, plan.replicas + 1)]
        self.replicas = {name: Replica(name, directory / name, environment) for name in names}

    # -- replicas -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start every replica that does not run, at once, and wait until all answer."""
        with ThreadPoolExecutor(len(self.replicas)) as pool:
            for started in [pool.submit(each.start) for each in self.replicas.values()]:
                started.result()

    def stop(self) -> None:
        """End every replica, at once."""
        with ThreadPoolExecutor(len(self.replicas)) as pool:
            for stopped in [pool.submit(each.stop) for each in self.replicas.values()]:
                stopped.result()

    @property
    def listed(self) -> list[Replica]:
        """Whom a proxy would send to: a paused one too, but none that starts or stops."""
        return [each for each in self.replicas.values() if each.running and each.listed]

    @property
    def serving(self) -> list[Replica]:
        """Those of them that are not paused."""
        return [each for each in self.listed if not each.paused]

    def owner_of(self, terminal_id: str) -> str | None:
        """The replica that holds the lease of a terminal, as Redis has it."""
        owner = self.redis.client.hget(Keys().lease(terminal_id), "owner")
        return owner.decode() if isinstance(owner, bytes) else None

    def wait_ready(self) -> None:
        """Until every replica that serves reports its dependencies well."""

        def ready() -> bool:
            answers = [each.ready() for each in self.serving]
            return all(one and set(one["dependencies"].values()) == {"ok"} for one in answers)

        wait_for(ready, "not every replica is ready")

    def wait_leased(self) -> None:
        """Until each terminal is leased by one serving replica, connected, in fair shares."""

        def leased() -> bool:
            answers = [one for each in self.serving if (one := each.ready())]
            held = [
                [
                    terminal_id
                    for terminal_id, terminal in one["terminals"].items()
                    if terminal["leased"] and terminal["connected"]
                ]
                for one in answers
            ]
            return sorted(chain(*held)) == sorted(self.terminals) and all(
                len(share) <= math.ceil(len(self.terminals) / len(held)) for share in held
            )

        wait_for(leased, "not every terminal is leased and connected")

    # -- accounts -------------------------------------------------------------------------------

    def connect_all(self) -> None:
        """Connect every account through the API, waiting as answers ask for.

        Raises:
            RuntimeError: One cannot be connected.
        """
        # Each try goes to the next replica, as a proxy would have it.
        replicas = cycle(self.serving)
        with httpx.Client(timeout=PATIENCE_S) as client, ThreadPoolExecutor(CONNECTING) as pool:
            for _ in pool.map(lambda one: _connect(client, one, replicas), self.accounts.values()):
                pass

    def tickets(self, account: ClusterAccount) -> frozenset[int]:
        """The tickets of an account's positions, as its broker has them."""
        answer = self.control.get(f"/accounts/{account.server}/{account.login}")
        positions = answer.raise_for_status().json()["account"]["positions"]
        return frozenset(position["ticket"] for position in positions)

    # -- terminals and brokers ------------------------------------------------------------------

    @cached_property
    def control(self) -> httpx.Client:
        """The simulator's control API."""
        return httpx.Client(
            base_url=self.simulator.ready().control_url,
            headers={"X-Supervisor-Key": CONTROL_KEY},
            timeout=PATIENCE_S,
        )

    def number_of(self, terminal_id: str) -> int:
        """What the simulator calls a terminal."""
        return list(self.terminals).index(terminal_id) + 1

    def fault(self, name: str, terminal_id: str | None = None, **parameters: object) -> list[int]:
        """Begin a fault at a terminal, or at the broker; the ids under which it can be mended."""
        where: dict[str, object] = {"server": SERVER}
        if terminal_id is not None:
            where = {"terminal": self.number_of(terminal_id)}
        answer = self.control.post("/faults", json={"name": name, **where, **parameters})
        return [fault["id"] for fault in answer.raise_for_status().json()["faults"]]

    def mend(self, fault_id: int) -> None:
        """End a fault; one that is over already is no error."""
        answer = self.control.delete(f"/faults/{fault_id}")
        if answer.status_code != httpx.codes.NOT_FOUND:
            answer.raise_for_status()

    def active_faults(self) -> list[dict[str, Any]]:
        """The faults that are on."""
        return list(self.control.get("/faults").raise_for_status().json()["active"])

    def restart_terminal(self, terminal_id: str) -> None:
        """Have the supervisor start a terminal again, a frozen one too."""
        number = self.number_of(terminal_id)
        self.control.post(f"/terminals/{number}/restart").raise_for_status()

    def terminal_state(self, terminal_id: str) -> dict[str, Any]:
        """What the supervisor says of a terminal."""
        states = self.control.get("/terminals").raise_for_status().json()["terminals"]
        return next(dict(one) for one in states if one["n"] == self.number_of(terminal_id))

    def _environment(self, ring: Path) -> dict[str, str]:
        addresses = [terminal.address for terminal in self.terminals.values()]
        values: dict[str, object] = {
            "api_keys": {"cluster": digest(KEY)},
            "admin_api_keys": {"cluster": digest(ADMIN_KEY)},
            "api_terminals": addresses,
            "terminals_networks": ["127.0.0.0/8"],
            "broker_servers": {SERVER: CLOCK},
        }
        # Limits are out of the way unless a plan brings them in.
        return {
            name.upper(): msgspec.json.encode(value).decode() for name, value in values.items()
        } | {
            "REDIS_URL": self.redis.url,
            "DATABASE_URL": self.dsns.app,
            "WORKER_DATABASE_URL": self.dsns.worker,
            "KEY_RING_FILE": str(ring),
            "WS_BASE_URL": "wss://stream.example",
            "INTERNAL_KEY": INTERNAL_KEY,
            "LOGIN_BUDGET_PER_MINUTE": "100000",
            "KEY_RATE": "100000",
            "ACCOUNT_RATE": "100000",
            # Nothing of ours goes on sending to a replica that has been told to stop.
            "DRAIN_S": "0.5",
        }


@contextlib.contextmanager
def running_cluster(
    plan: ClusterPlan, directory: Path, *, dsns: RoleDsns | None = None
) -> Iterator[Cluster]:
    """A cluster with every terminal leased; no account is connected yet. All of it ends again.

    Args:
        plan: What there is.
        directory: Empty, or not there yet; data and logs stay in it.
        dsns: Of a database to use; without, a PostgreSQL is started.

    Raises:
        EmbeddedServerError: A process did not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    accounts = {account.account_id: account for account in map(account_at, range(plan.accounts))}
    names = [(f"t-{number}", "api") for number in range(1, plan.terminals + 1)]
    scenario = scenario_of(accounts, plan)
    with contextlib.ExitStack() as stack:
        if dsns is None:
            postgres = EmbeddedPostgres(directory / "postgres", durable=False)
            stack.enter_context(postgres)
            # In a thread of its own, so that it may be called with a loop running.
            with ThreadPoolExecutor(1) as thread:
                dsns = thread.submit(asyncio.run, apply_schema(postgres.dsn())).result()
        redis_server = stack.enter_context(RedisServer(directory / "redis"))
        simulator = stack.enter_context(
            Simulator(
                directory / "simulator",
                scenario,
                CONTROL_KEY,
                names=names,
                login_seconds=plan.login_seconds,
            )
        )
        cluster = Cluster(plan, directory, dsns, redis_server, simulator, accounts)
        stack.callback(cluster.control.close)
        stack.callback(cluster.stop)
        cluster.start()
        cluster.wait_leased()
        yield cluster


def wait_for(condition: Callable[[], T], otherwise: str, patience_s: float = PATIENCE_S) -> T:
    """What the condition gives, once that is true.

    Raises:
        AssertionError: It does not become true; says `otherwise`.
    """
    deadline = time.monotonic() + patience_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{otherwise} after {patience_s:.0f} s")
        time.sleep(STEP_S)
    return result


def digest(key: str) -> str:
    """What settings keep of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _connect(client: httpx.Client, account: ClusterAccount, replicas: Iterator[Replica]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = client.post(
            f"{next(replicas).url}/api/mt5/connect",
            json=account.connect_body(),
            headers=account.headers(),
        )
        if answer.is_success:
            return
        failure = answer.json()
        if failure["retry_after_s"] is None or time.monotonic() > deadline:
            raise RuntimeError(f"{account.account_id}: {failure['code']}, {failure['error']}")
        time.sleep(min(failure["retry_after_s"], 1.0))
