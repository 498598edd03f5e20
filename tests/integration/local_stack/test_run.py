"""`make run` from the outside: what it prints and writes, how it ends, what stays."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from local_stack.embedded_process import EmbeddedServerError
from local_stack.stack import bind

LOOKS = 5
START_S = 90


def command(data: Path, port: int = 0) -> list[str]:
    options = ["--port", str(port), "--data-dir", str(data)]
    return [sys.executable, "-m", "local_stack", "run", *options]


class Run:
    """One run of the stack as a child process."""

    def __init__(self, data: Path) -> None:
        self.data = data
        (data / "credentials.json").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            command(data), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        deadline = time.monotonic() + START_S
        while not (data / "credentials.json").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(self.process.communicate()[0])
            time.sleep(0.05)
        self.credentials: dict[str, Any] = json.loads((data / "credentials.json").read_text())

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def post(self, path: str, body: Any) -> Any:
        return self._ask("POST", path, json=body)

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        first = self.credentials["accounts"][0]
        headers = {"X-API-Key": self.credentials["api_key"], "X-User-ID": first["user_id"]}
        url = self.credentials["base_url"] + path
        answer = httpx.request(method, url, headers=headers, timeout=30, **options)
        return answer.raise_for_status().json()

    def end(self, number: signal.Signals) -> str:
        family = self.family()
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=60)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
        return output


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack") / "local"


@pytest.fixture(scope="module")
def first(data: Path) -> Iterator[Run]:
    run = Run(data)
    yield run
    if run.process.poll() is None:
        run.end(signal.SIGTERM)


def test_credentials_are_those_of_the_contract_and_private(first: Run) -> None:
    credentials = first.credentials
    assert {"base_url", "ws_url", "api_key", "admin_api_key", "accounts", "simulator"} == set(
        credentials
    )
    assert credentials["ws_url"].startswith("ws://127.0.0.1:")
    assert [one["connected"] for one in credentials["accounts"]] == [True] * 3
    for account in credentials["accounts"]:
        assert {
            "account_id",
            "user_id",
            "login",
            "password",
            "investor_password",
            "server",
            "connected",
        } == set(account)
    roles = [one["role"] for one in credentials["simulator"]["terminals"]]
    assert {role: roles.count(role) for role in roles} == {"api": 2, "stream": 5, "market": 15}
    names = ("credentials.json", "console.json", "demo.json", "key-ring.json", "services.log")
    for name in (*names, "keys-database-url.secret"):
        assert stat.S_IMODE((first.data / name).stat().st_mode) == 0o600
    log = (first.data / "services.log").read_text()
    assert credentials["api_key"] not in log
    assert not [one for one in credentials["accounts"] if one["password"] in log]


def test_the_demo_accounts_are_connected(first: Run) -> None:
    listed = first.get("/api/mt5/accounts")["accounts"]
    assert [one["state"] for one in listed] == ["connected"] * 3
    for account in first.credentials["accounts"]:
        info = first.get(f"/api/mt5/account/{account['account_id']}/info")
        assert info["account"]["login"] == account["login"]


def test_every_part_is_reached_on_one_port(first: Run) -> None:
    base = first.credentials["base_url"]
    assert httpx.get(f"{base}/api/health").json()["status"] == "ok"
    assert httpx.get(base).headers["location"] == "/console"
    page = httpx.get(f"{base}/console", follow_redirects=True)
    assert page.status_code == 401
    assert "sign in" in page.text.lower()
    for service in ("api-pool", "websocket-pool"):
        assert httpx.get(f"{base}/services/{service}/health/live").json() == {"status": "ok"}
        assert "mt5_terminal_up" in httpx.get(f"{base}/services/{service}/metrics").text


def _agrees(read: dict[str, Any]) -> bool:
    """Whether account and positions of a read are of one moment; it comes from the stream."""
    assert read["meta"]["source"] == "stream"
    assert read["meta"]["terminal_id"].startswith("mt5-stream-")
    # Past the broker's midnight positions carry a swap, too.
    floating = sum(position["profit"] + position["swap"] for position in read["positions"])
    return bool(read["account"]["equity"] == pytest.approx(read["account"]["balance"] + floating))


def test_a_plain_client_streams_and_rest_answers_from_the_stream(first: Run) -> None:
    account = first.credentials["accounts"][0]
    state_types = {"position_update", "account_update", "order_update", "status"}
    assigned = first.post("/api/ws/assign", {"account_id": account["account_id"]})
    with connect(assigned["websocket_url"]) as stream:
        greeting = json.loads(stream.recv(timeout=30))
        assert greeting["type"] == "connected"
        snapshot = json.loads(stream.recv(timeout=30))
        assert snapshot["type"] == "snapshot"
        assert snapshot["data"]["account"]["login"] == account["login"]
        seq = snapshot["seq"]
        equity: set[float] = set()
        while len(equity) < 5:
            message = json.loads(stream.recv(timeout=30))
            assert message["epoch"] == snapshot["epoch"]
            if message["type"] in state_types:
                seq += 1
            assert message["seq"] == seq
            if message["type"] == "account_update":
                equity.add(message["data"]["account"].get("equity"))
        # A look that a tick has overtaken three times is given as it is (see the agent).
        reads = (
            first.get(f"/api/mt5/account/{account['account_id']}/snapshot?fresh=1")
            for _ in range(LOOKS)
        )
        assert any(_agrees(read) for read in reads)
    with pytest.raises(ConnectionClosed) as refused, connect(assigned["websocket_url"]) as stream:
        stream.recv(timeout=30)
    assert refused.value.rcvd is not None
    assert refused.value.rcvd.code == 4401
    ticket = assigned["ticket"]
    assert ticket not in (first.data / "services.log").read_text()


@pytest.mark.long
def test_keys_are_rotated_beside_it(first: Run) -> None:
    def ring() -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads((first.data / "key-ring.json").read_text())
        return parsed

    before = ring()["active"]
    rotated = subprocess.run(
        [sys.executable, "-m", "ops", "rotate-keys", "--data-dir", str(first.data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert rotated.returncode == 0, rotated.stdout
    assert "3 rows moved to it" in rotated.stdout
    after = ring()
    assert after["active"] != before
    # Without the old key: what is opened now is under the new one, and the run has seen it.
    del after["keys"][before]
    fresh = first.data / "key-ring.fresh"
    fresh.write_text(json.dumps(after))
    fresh.rename(first.data / "key-ring.json")
    account = first.credentials["accounts"][1]
    names = ("user_id", "account_id", "login", "password", "server")
    first.post("/api/mt5/disconnect", {"account_id": account["account_id"]})
    first.post("/api/mt5/connect", {name: account[name] for name in names})
    read = first.get(f"/api/mt5/account/{account['account_id']}/info?fresh=1")
    assert read["account"]["login"] == account["login"]


def test_a_second_run_on_the_same_data_is_one_line(first: Run) -> None:
    refused = subprocess.run(
        command(first.data), capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode == 1
    assert "already runs" in refused.stdout
    assert refused.stdout.strip().count("\n") == 0
    assert refused.stderr == ""


def test_a_port_is_claimed_before_anything_starts() -> None:
    with bind(0) as first, pytest.raises(EmbeddedServerError, match="is in use"):
        bind(first.getsockname()[1])


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = subprocess.run(
            command(tmp_path / "data", port),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert refused.returncode == 1
    assert f"port {port} is in use" in refused.stdout
    assert refused.stdout.strip().count("\n") == 0
    assert refused.stderr == ""


@pytest.mark.long
def test_a_database_that_dies_is_started_again(first: Run) -> None:
    for name in ("redis", "postgres"):
        pid = int((first.data / name / "server.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([p for p in first.family() if p.pid == pid], timeout=10)
    deadline = time.monotonic() + 60
    while not healthy(first):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert first.get("/api/mt5/account/demo-1/info?fresh=1")["success"] is True


def healthy(run: Run) -> bool:
    ready = httpx.get(run.credentials["base_url"] + "/health/ready", timeout=30).json()
    return set(ready["dependencies"].values()) == {"ok"}


def test_a_link_checker_neither_uses_the_link_nor_logs_it(first: Run) -> None:
    url = json.loads((first.data / "console.json").read_text())["url"]
    assert httpx.head(url).status_code == 200
    httpx.put(url)
    token = url.rpartition("=")[2]
    assert token not in (first.data / "services.log").read_text()
    assert httpx.get(url).status_code == 200


@pytest.mark.long
def test_ctrl_c_ends_every_process_and_a_second_start_finds_the_data(first: Run) -> None:
    assert len(first.family()) > 22
    before = first.get("/api/mt5/account/demo-1/history/deals?limit=1000")["deals"]
    output = first.end(signal.SIGINT)
    assert first.process.returncode == 0
    assert "mt5-swarm is up" in output
    assert "Traceback" not in output
    second = Run(first.data)
    try:
        for name in ("api_key", "admin_api_key", "accounts"):
            assert second.credentials[name] == first.credentials[name]
        after = second.get("/api/mt5/account/demo-1/history/deals?limit=1000")["deals"]
        kept = {deal["ticket"] for deal in before}
        # A page holds the newest thousand: what is left of it after new deals is unchanged.
        assert len(kept & {deal["ticket"] for deal in after}) > 0
    finally:
        stopped = subprocess.run(
            [sys.executable, "-m", "local_stack", "stop", "--data-dir", str(first.data)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert stopped.stdout.strip() == "stopped"
    second.process.communicate(timeout=30)


@pytest.mark.long
def test_a_stack_that_was_killed_leaves_nothing_in_the_way(first: Run) -> None:
    if first.process.poll() is None:
        first.end(signal.SIGTERM)
    run = Run(first.data)
    family = run.family()
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.communicate(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    again = Run(first.data)
    assert [one["state"] for one in again.get("/api/mt5/accounts")["accounts"]] == ["connected"] * 3
    again.end(signal.SIGTERM)
