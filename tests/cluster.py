"""A whole cluster under test: databases, simulated terminals, replicas as processes.

    with running_cluster(ClusterPlan(terminals=4, accounts=10), directory) as cluster:
        cluster.connect_all()
        cluster.replicas["api-1"].kill()
        cluster.wait_leased()

What it does blocks; from an event loop, call it in a thread. Requests are sent by
`tests.cluster_client`.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, cycle
from pathlib import Path

import httpx
from tests.cluster_plan import (
    ADMIN_KEY,
    CONTROL_KEY,
    KEY,
    SERVER,
    ClusterAccount,
    ClusterPlan,
    account_at,
    scenario_of,
    task_name,
)
from tests.cluster_settings import Surroundings
from tests.containers import SUPERVISOR_PORT, Container, Containers
from tests.outside_world import OutsideWorld
from tests.redis_server import RedisServer
from tests.replica import Replica, StreamReplica
from tests.waiting import PATIENCE_S, wait_for

from local_stack.demo import write_private
from local_stack.embedded import EmbeddedPostgres, RoleDsns, apply_schema
from local_stack.simulator import PlacedTerminal, Simulator
from mt5kit.state.keys import Keys
from mt5kit.vault import KeyRing

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


class Cluster(OutsideWorld):
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
        super().__init__(simulator)
        self.plan = plan
        self.accounts = accounts
        self.redis = redis_server
        self.dsns = dsns
        ring = directory / "key-ring.json"
        write_private(ring, KeyRing.generate().dump())
        around = Surroundings(
            dsns, redis_server.url, ring, self.terminals.values(), self.stream_terminals.values()
        )
        common = {**_supervised(plan), **plan.environment}
        self._directory = directory
        self._api_environment = {**around.of_api(), **common}
        self._ws_environment = {**around.of_streams(), **common, **plan.ws_environment}
        self.replicas: dict[str, Replica] = {}
        self.ws_replicas: dict[str, StreamReplica] = {}
        for slot in range(1, plan.replicas + 1):
            self.add(task_name("api-pool", slot) if plan.as_tasks else f"api-{slot}")
        for slot in range(1, plan.ws_replicas + 1):
            self.add_ws(task_name("websocket-pool", slot) if plan.as_tasks else f"ws-{slot}")

    @property
    def containers(self) -> Mapping[str, Container]:
        """Of terminals, by name, where the plan has any."""
        assert isinstance(self.simulator, Containers)
        return self.simulator.containers

    # -- replicas -------------------------------------------------------------------------------

    @property
    def all_replicas(self) -> list[Replica]:
        """Of both pools."""
        return [*self.replicas.values(), *self.ws_replicas.values()]

    def add(self, name: str) -> Replica:
        """One more API replica, not yet started."""
        self.replicas[name] = Replica(name, self._directory / name, self._api_environment)
        return self.replicas[name]

    def add_ws(self, name: str) -> StreamReplica:
        """One more WebSocket replica, not yet started."""
        replica = StreamReplica(name, self._directory / name, self._ws_environment)
        self.ws_replicas[name] = replica
        return replica

    def start(self) -> None:
        """Start every replica that does not run, at once, and wait until all answer."""
        with ThreadPoolExecutor(len(self.all_replicas)) as pool:
            for started in [pool.submit(each.start) for each in self.all_replicas]:
                started.result()

    def stop(self) -> None:
        """End every replica, at once."""
        with ThreadPoolExecutor(len(self.all_replicas)) as pool:
            for stopped in [pool.submit(each.stop) for each in self.all_replicas]:
                stopped.result()

    @property
    def listed(self) -> list[Replica]:
        """Whom a proxy would send requests to: a paused one too, but none that starts or stops."""
        return [each for each in self.replicas.values() if each.running and each.listed]

    @property
    def serving(self) -> list[Replica]:
        """Those of them that are not paused."""
        return [each for each in self.listed if not each.paused]

    @property
    def ws_listed(self) -> list[StreamReplica]:
        """Whom a proxy would send sockets to: a paused one too, but none that starts or stops."""
        return [each for each in self.ws_replicas.values() if each.running and each.listed]

    @property
    def ws_serving(self) -> list[StreamReplica]:
        """Those of them that are not paused."""
        return [each for each in self.ws_listed if not each.paused]

    def owner_of(self, terminal_id: str) -> str | None:
        """The replica that holds the lease of a terminal, as Redis has it."""
        owner = self.redis.client.hget(Keys().lease(terminal_id), "owner")
        return owner.decode() if isinstance(owner, bytes) else None

    def streamer_of(self, account: ClusterAccount) -> str | None:
        """The WebSocket replica that owns an account's stream, as Redis has it."""
        terminal_id = self.redis.client.get(Keys().stream_of(account.account_id))
        return self.owner_of(terminal_id.decode()) if isinstance(terminal_id, bytes) else None

    def wait_ready(self) -> None:
        """Until every replica that serves reports its dependencies well."""

        def ready() -> bool:
            answers = [each.ready() for each in [*self.serving, *self.ws_serving]]
            return all(one and set(one["dependencies"].values()) == {"ok"} for one in answers)

        wait_for(ready, "not every replica is ready")

    def wait_leased(self) -> None:
        """Until each terminal is leased by one serving replica, connected, in fair shares."""

        def leased() -> bool:
            return _shared(self.serving, self.terminals) and (
                not self.ws_serving or _shared(self.ws_serving, self.stream_terminals)
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

    def assign(self, account: ClusterAccount, replica: Replica | None = None) -> str:
        """A ticket for a socket that watches an account, through the API.

        Args:
            account: Connected.
            replica: Which to ask; the first that serves, unless given.
        """
        asked = replica or self.serving[0]
        body = {"account_id": account.account_id, "user_id": str(account.user_id)}
        answer = httpx.post(
            f"{asked.url}/api/ws/assign", json=body, headers=account.headers(), timeout=PATIENCE_S
        )
        return str(answer.raise_for_status().json()["ticket"])


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
    scenario = scenario_of(accounts, plan)
    with contextlib.ExitStack() as stack:
        if dsns is None:
            postgres = EmbeddedPostgres(directory / "postgres", durable=False)
            stack.enter_context(postgres)
            # In a thread of its own, so that it may be called with a loop running.
            with ThreadPoolExecutor(1) as thread:
                dsns = thread.submit(asyncio.run, apply_schema(postgres.dsn())).result()
        redis_server = stack.enter_context(RedisServer(directory / "redis"))
        simulator = stack.enter_context(_simulator(plan, directory / "simulator", scenario))
        cluster = Cluster(plan, directory, dsns, redis_server, simulator, accounts)
        stack.callback(cluster.control.close)
        stack.callback(cluster.stop)
        cluster.start()
        cluster.wait_leased()
        yield cluster


def _supervised(plan: ClusterPlan) -> dict[str, str]:
    if not plan.containers:
        return {}
    return {"SUPERVISOR_PORT": str(SUPERVISOR_PORT), "SUPERVISOR_KEY": CONTROL_KEY}


def _simulator(plan: ClusterPlan, directory: Path, scenario: bytes) -> Simulator:
    if plan.containers:
        return Containers(directory, scenario, plan.containers, plan.login_seconds)
    names, login_seconds = plan.terminal_names, plan.login_seconds
    return Simulator(directory, scenario, CONTROL_KEY, names=names, login_seconds=login_seconds)


def _shared(replicas: Sequence[Replica], terminals: Mapping[str, PlacedTerminal]) -> bool:
    """Whether each terminal is leased by one of these, connected, in fair shares."""
    held = [
        [
            terminal_id
            for terminal_id, terminal in one["terminals"].items()
            # A WebSocket replica says nothing of the connection.
            if terminal["leased"] and terminal.get("connected", True)
        ]
        for each in replicas
        if (one := each.ready())
    ]
    return sorted(chain(*held)) == sorted(terminals) and all(
        len(share) <= math.ceil(len(terminals) / len(held)) for share in held
    )


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
