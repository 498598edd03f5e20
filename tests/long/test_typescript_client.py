"""The TypeScript client against real replicas that are killed and stopped.

Needs Node 20 or newer, and npm.
"""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cluster import Cluster, ClusterAccount, ClusterPlan, running_cluster, wait_for
from tests.replica import StreamReplica

Json = dict[str, Any]

CLIENT = Path(__file__).parents[2] / "supabase" / "client"
NUMBERED = frozenset({"position_update", "account_update", "order_update", "status"})
# What a person or the broker decides; the rest of a position moves with the market.
TERMS = ("ticket", "symbol", "type", "volume", "price_open", "sl", "tp", "comment")
PLAN = ClusterPlan(terminals=1, accounts=1, replicas=1, stream_terminals=2, ws_replicas=2)
END_S = 30.0
BUILD_S = 240.0


class Client:
    """The client in a process of its own.

    Args:
        process: Of `test/follow.js`.
        log: Where it says what it does not tell as JSON.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.told: list[tuple[str, Any]] = []
        self._process = process
        self._log = log
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def begin(self, orders: Json) -> None:
        """Have it follow."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(orders) + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """End its input; it has to leave by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            assert self._process.wait(END_S) == 0, self._log.read_text()
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def of(self, what: str) -> list[Any]:
        """Everything it has told of one kind, oldest first."""
        return [told for kind, told in list(self.told) if kind == what]

    @property
    def state(self) -> Json:
        """The state it has now; empty before the first."""
        states = self.of("state")
        return dict(states[-1]) if states else {}

    @property
    def live(self) -> bool:
        """Whether it vouches for what it shows."""
        state = self.state
        return bool(state) and state["phase"] == "live" and not state["stale"]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            one = json.loads(line)
            self.told.append((one["what"], one["told"]))


@pytest.fixture(scope="module")
def program() -> Path:
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("this test needs Node 20 or newer: apt-get install nodejs npm")
    if not (CLIENT / "node_modules" / "typescript").exists():
        subprocess.run([npm, "ci", "--silent"], cwd=CLIENT, check=True, timeout=BUILD_S)
    subprocess.run([npm, "run", "--silent", "pretest"], cwd=CLIENT, check=True, timeout=BUILD_S)
    return CLIENT / "build" / "test" / "follow.js"


@contextmanager
def following(program: Path, log: Path, orders: Json) -> Iterator[Client]:
    # Node 20 has a WebSocket, but shows it only when asked to.
    command = ["node", "--experimental-websocket", str(program)]
    with log.open("w") as complaints:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
    client = Client(process, log)
    try:
        client.begin(orders)
        yield client
    finally:
        client.end()


def open_position(cluster: Cluster, account: ClusterAccount) -> int:
    """A new position at the broker; its ticket."""
    before = cluster.tickets(account)
    order = {"symbol": "EURUSD", "type": "buy", "volume": 0.02}
    path = f"/accounts/{account.server}/{account.login}/positions"
    cluster.control.post(path, json=order).raise_for_status()
    (ticket,) = cluster.tickets(account) - before
    return ticket


def tickets(state: Json) -> set[int]:
    return {position["ticket"] for position in state.get("positions", ())}


def decided(told: Json) -> Json:
    """What of a state, or of a snapshot of REST, does not move by itself."""
    return {
        "login": told["account"]["login"],
        "balance": told["account"]["balance"],
        "positions": [{term: row[term] for term in TERMS} for row in told["positions"]],
        "orders": [row["ticket"] for row in told["orders"]],
    }


def read(cluster: Cluster, account: ClusterAccount) -> Json:
    url = f"{cluster.serving[0].url}/api/mt5/account/{account.account_id}/snapshot"
    answer = httpx.get(url, headers=account.headers(), timeout=30.0)
    return dict(answer.raise_for_status().json())


def agree(cluster: Cluster, account: ClusterAccount, client: Client) -> bool:
    return client.live and decided(client.state) == decided(read(cluster, account))


def check_line(messages: list[Json]) -> None:
    """Within an epoch no number is repeated or left out; only a snapshot may jump, and forward."""
    place = (0, 0)
    for message in messages:
        here = (message["epoch"], message["seq"])
        if message["type"] == "snapshot":
            assert here[0] != place[0] or here >= place, f"back from {place} to {message}"
            place = here
        elif message["type"] in NUMBERED and here != place:
            assert here == (place[0], place[1] + 1), f"after {place} came {message}"
            place = here
        elif message["type"] in NUMBERED:
            assert message["type"] == "status", f"{message} has a number that was told before"


def serving(cluster: Cluster, client: Client) -> StreamReplica:
    """The replica that the client went to last."""
    url = client.of("assigned")[-1]
    return next(one for one in cluster.ws_replicas.values() if one.ws_url == url)


@pytest.mark.timeout(600)
def test_it_stays_with_its_account_whatever_happens_to_replicas(
    program: Path, tmp_path: Path
) -> None:
    with running_cluster(PLAN, tmp_path / "cluster") as cluster:
        cluster.connect_all()
        (account,) = cluster.accounts.values()
        orders = {
            "assign": f"{cluster.serving[0].url}/api/ws/assign",
            "headers": account.headers(),
            "body": {"account_id": account.account_id, "user_id": str(account.user_id)},
            "replicas": [replica.ws_url for replica in cluster.ws_replicas.values()],
        }
        with following(program, tmp_path / "client.log", orders) as client:
            wait_for(lambda: client.live, lambda: f"not live, but {client.told[-3:]}")
            first = open_position(cluster, account)
            wait_for(lambda: first in client.of("opened"), "the position was not told")

            killed = serving(cluster, client)
            killed.kill()
            second = open_position(cluster, account)
            wait_for(
                lambda: client.live and second in tickets(client.state),
                "it did not come back after a kill",
            )
            assert serving(cluster, client) is not killed
            wait_for(lambda: agree(cluster, account, client), "it differs from REST after a kill")

            killed.start()
            cluster.wait_leased()
            epoch = client.state["epoch"]
            seen = len(client.of("message"))
            serving(cluster, client).stop()
            third = open_position(cluster, account)
            wait_for(
                lambda: client.live and third in tickets(client.state),
                "it did not come back after a restart",
            )
            wait_for(lambda: agree(cluster, account, client), "it differs from REST after a stop")
            assert client.state["epoch"] == epoch, "a clean hand-over began a new epoch"
            after = [message["type"] for message in client.of("message")[seen:]]
            assert "snapshot" not in after, f"it was not resumed: {after}"

        check_line(client.of("message"))
        assert client.of("opened").count(first) == 1
