"""The stack on a real swarm: deployed, loaded, scaled, updated, broken, restarted and restored.

One deployment for all of them, in this order. Load comes from this process through nginx's
published port. Nothing here asserts how long something takes, but for what the requirements bound.
"""

import asyncio
import datetime as dt
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from tests.swarm.deployed import NEVER, STACK, Deployed
from tests.swarm.docker_cli import Docker
from tests.swarm.figures import Figures
from tests.swarm.outside import Outside
from tests.swarm.own_engine import OwnEngine
from tests.swarm.searching import needles, search
from tests.swarm.traffic import Notes, Traffic, Writer
from tests.waiting import wait_for

from mt5kit.key_ring import KeyRing

pytestmark = pytest.mark.timeout(600)

STREAMED = 10
# What the requirements allow a killed container.
RECOVERY_S = 30.0
JOBS = ("api-pool", "websocket-pool", "console", "backup", "redis", "postgres", "nginx", "node",
        "prometheus", "alertmanager")  # fmt: skip
SERVICES = ("nginx", "api-pool", "websocket-pool", "console", "mt5-api", "mt5-stream", "redis",
            "postgres", "backup", "prometheus", "alertmanager", "node-exporter", "redis-exporter",
            "postgres-exporter", "nginx-exporter", "sim-broker")  # fmt: skip
# Names of metrics in queries, as ours and the exporters' are.
METRIC = re.compile(r"\b(?:up|(?:mt5|api|ws|redis|pg|node)_\w+)\b")
FORBIDDEN_PORTS = (8001, 8100, 5432, 6379, 9090)


@pytest.fixture(scope="module")
def api_key(stack: Deployed) -> str:
    """The key of a caller, as the operator gets it."""
    return stack.secret("api_key")


@pytest.fixture(scope="module")
def connected(stack: Deployed, api_key: str, figures: Figures) -> None:
    """Accounts are connected; where that fails, nothing that needs them is tried."""
    first_s = stack.connect_all(api_key, STREAMED)
    figures.seconds("first connect through nginx, answered", first_s)


@pytest.fixture
def traffic(stack: Deployed, api_key: str, connected: None) -> Traffic:
    """Clients of the connected accounts."""
    return Traffic(stack, api_key, list(stack.accounts.values())[:STREAMED])


@pytest.mark.usefixtures("connected")
def test_from_nothing_to_a_good_answer(stack: Deployed, api_key: str) -> None:
    with stack.client(api_key) as client:
        account = stack.accounts["account-1"]
        headers = stack.headers(account, api_key)
        answer = client.get("/api/mt5/account/account-1/info", headers=headers)
        assert answer.status_code == httpx.codes.OK
        assert answer.json()["account"]["login"] == account.login
        assert answer.http_version == "HTTP/1.1"
        assert client.get("/health").status_code == httpx.codes.OK


async def test_ten_accounts_are_read_and_streamed(traffic: Traffic, figures: Figures) -> None:
    async with traffic.flowing(pause_s=0.1) as flowing:
        seen = [watch.mirror.seq for watch in flowing.watches]
        await _until(lambda: len(flowing.notes.reads) > 500, "five hundred reads")
        await _until(
            lambda: all(
                watch.mirror.seq > before
                for watch, before in zip(flowing.watches, seen, strict=True)
            ),
            "every stream goes on",
        )
    assert not traffic.notes.failures
    assert not traffic.notes.breaches()
    figures.quantiles("reads through nginx, at ease", [read.ms for read in traffic.notes.reads])


async def test_scaling_up_and_down_under_load(
    stack: Deployed, traffic: Traffic, figures: Figures
) -> None:
    async with traffic.flowing() as flowing, _writing(flowing, stack) as writer:
        before = await flowing.owners()
        with figures.timed("scale up: 3 -> 4 api, 2 -> 3 websocket, with their terminals"):
            stack.scale(mt5_api=4, api_pool=4, mt5_stream=3, websocket_pool=3)
            for service, count in (("mt5-api", 4), ("api-pool", 4), ("mt5-stream", 3),
                                   ("websocket-pool", 3)):  # fmt: skip
                await asyncio.to_thread(stack.wait_healthy, service, count)
        await flowing.until_good(time.monotonic())
        larger = await flowing.owners()
        moved = _moved(before, larger)
        figures.note(
            "accounts that another replica serves after the step, 3 -> 4 api",
            f"{moved} of {len(before)}",
        )
        # A fourth of them and a terminal's, at most: who has too many gives them up, nobody else.
        assert moved <= STREAMED // 2
        # Sockets stay where they are; those that come anew are spread over all slots.
        for watch in flowing.watches:
            watch.cut()
        await flowing.until_good(time.monotonic())
        with figures.timed("scale down: 4 -> 3 api, 3 -> 2 websocket, terminals first"):
            stack.scale(mt5_api=3, mt5_stream=2)
            await asyncio.to_thread(stack.wait_healthy, "mt5-api", 3)
            await asyncio.to_thread(stack.wait_healthy, "mt5-stream", 2)
            stack.scale(api_pool=3, websocket_pool=2)
            await asyncio.to_thread(stack.wait_healthy, "api-pool", 3)
            await asyncio.to_thread(stack.wait_healthy, "websocket-pool", 2)
        await flowing.until_good(time.monotonic())
    _assert_nothing_lost(traffic.notes)
    assert not writer.refused
    _note_returns(figures, "scaling", traffic.notes)
    figures.note("scaling: connects and disconnects, all good", writer.count)


@pytest.mark.parametrize("pool", ["api-pool", "websocket-pool"])
async def test_a_rolling_update_under_load(
    stack: Deployed, docker: Docker, traffic: Traffic, figures: Figures, pool: str
) -> None:
    old = set(stack.containers(pool))
    async with traffic.flowing() as flowing, _writing(flowing, stack) as writer:
        with figures.timed(f"rolling update of {pool}"):
            docker("service", "update", "--force", "--detach", f"{STACK}_{pool}")
            await asyncio.to_thread(stack.wait_updated, pool, old)
        await flowing.until_good(time.monotonic())
    _assert_nothing_lost(traffic.notes)
    assert not writer.refused
    _note_returns(figures, f"update of {pool}", traffic.notes)
    figures.note(f"update of {pool}: connects and disconnects, all good", writer.count)


@pytest.mark.parametrize(
    "service",
    ["api-pool", "websocket-pool", "mt5-api", "mt5-stream", "redis", "postgres", "nginx"],
)
async def test_a_container_is_killed(
    stack: Deployed, traffic: Traffic, api_key: str, figures: Figures, service: str
) -> None:
    count = len(stack.containers(service))
    async with traffic.flowing() as flowing, _writing(flowing, stack) as writer:
        killed = time.monotonic()
        stack.kill(min(stack.containers(service)))
        good_s = await flowing.until_good(killed)
        await asyncio.to_thread(stack.wait_healthy, service, count)
    figures.seconds(f"kill -9 of {service}, until all is good", good_s)
    failed = len(traffic.notes.failures)
    lost = f"{failed} of {len(traffic.notes.reads)}"
    figures.note(f"kill -9 of {service}, reads without a good answer", lost)
    figures.note(f"kill -9 of {service}, streams that began anew", traffic.notes.new_epochs)
    assert not traffic.notes.breaches()
    assert good_s < RECOVERY_S
    await _assert_acknowledged(stack, api_key, writer)


async def test_the_engine_is_restarted(
    engine: OwnEngine, stack: Deployed, traffic: Traffic, api_key: str, figures: Figures
) -> None:
    counts = {service: len(stack.containers(service)) for service in SERVICES}
    async with traffic.flowing() as flowing, _writing(flowing, stack) as writer:
        stopped = time.monotonic()
        await asyncio.to_thread(engine.restart)
        restarted = time.monotonic()
        good_s = await flowing.until_good(restarted, patience_s=240)
        for service, count in counts.items():
            await asyncio.to_thread(stack.wait_healthy, service, count)
    figures.seconds("restart of the engine: from stop to good again", good_s + restarted - stopped)
    figures.seconds("restart of the engine: from its start to good again", good_s)
    assert not traffic.notes.breaches()
    await _assert_acknowledged(stack, api_key, writer)


async def test_a_bad_image_is_rolled_back_by_itself(
    stack: Deployed, docker: Docker, traffic: Traffic, figures: Figures
) -> None:
    good = docker.json("service", "inspect", "--format", "{{json .Spec}}", f"{STACK}_api-pool")
    image = good["TaskTemplate"]["ContainerSpec"]["Image"].partition("@")[0]
    recipe = f'FROM {image}\nCMD ["python", "-c", "raise SystemExit(\'broken on purpose\')"]\n'
    docker("build", "--tag", "mt5-broken:1", "-", stdin=recipe.encode())
    bad = stack.directory / "bad.yml"
    bad.write_text('version: "3.8"\nservices: { api-pool: { image: "mt5-broken:1" } }\n')
    async with traffic.flowing() as flowing:
        with figures.timed("bad image: deploy, until it is rolled back and told"):
            said = await asyncio.to_thread(stack.deploy, fails=True, more=f"--extra {bad}")
        await flowing.until_good(time.monotonic())
    assert "rolled back" in said
    assert "api-pool" in said
    assert "broken on purpose" in said
    after = docker.json("service", "inspect", "--format", "{{json .Spec}}", f"{STACK}_api-pool")
    assert after["TaskTemplate"]["ContainerSpec"] == good["TaskTemplate"]["ContainerSpec"]
    _assert_nothing_lost(traffic.notes)


def test_deploying_again_changes_nothing_and_keeps_counts(
    stack: Deployed, figures: Figures
) -> None:
    stack.make("scale", "SERVICE=api-pool", "N=4")
    running = {service: set(stack.containers(service)) for service in SERVICES}
    with figures.timed("deploy again, nothing changed"):
        stack.deploy()
    assert {service: set(stack.containers(service)) for service in SERVICES} == running
    said = stack.make("status")
    assert "api-pool" in said
    assert "4/4" in said
    stack.make("scale", "SERVICE=api-pool", "N=3")
    assert len(stack.containers("mt5-api")) == 3
    assert "exactly one replica" in stack.make("scale", "SERVICE=redis", "N=2", fails=True)
    assert "request" in stack.make("logs", "SERVICE=api-pool")


def test_a_key_ring_that_would_lock_accounts_out_is_not_deployed(stack: Deployed) -> None:
    assert "0 rows moved to it" in stack.make("rewrap-keys")
    before = {service: set(stack.containers(service)) for service in SERVICES}
    wrong = stack.directory / "wrong"
    wrong.mkdir()
    (wrong / "key_ring").write_bytes(KeyRing.generate("another").dump())
    copy = stack.directory / "wrong.enc"
    stack.make("secrets", f"FROM={wrong}", arguments=f"--copy {copy}")
    assert "does not have the newest key ring" in stack.make("rewrap-keys", fails=True)
    said = stack.deploy(fails=True)
    assert "keys that the key ring lacks" in said
    assert "none was changed" in said
    stack.docker("secret", "rm", f"{STACK}_key_ring_v2")
    assert {service: set(stack.containers(service)) for service in SERVICES} == before


def test_the_database_is_restored_to_a_time_after_the_last_full_backup(
    stack: Deployed, api_key: str, figures: Figures
) -> None:
    wait_for(lambda: stack.restorable_to() > NEVER, "there is no full backup", 120)
    kept, later = stack.accounts["account-11"], stack.accounts["account-12"]
    with stack.client(api_key) as client:
        for account in (kept, later):
            headers = stack.headers(account, api_key)
            client.delete(f"/api/mt5/account/{account.account_id}", headers=headers)
        answer = client.post("/api/mt5/connect", json=kept.connect_body())
        assert answer.status_code == httpx.codes.OK, answer.text
        at = dt.datetime.now(dt.UTC)
        answer = client.post("/api/mt5/connect", json=later.connect_body())
        assert answer.status_code == httpx.codes.OK, answer.text
    wait_for(lambda: stack.restorable_to() > at, "the log of that time has not been received", 120)
    with figures.timed("restore of the database, until everything runs again"):
        stack.make("restore", f"TO={at.isoformat(timespec='milliseconds')}")
    with stack.client(api_key) as client:
        for account, expected in ((kept, 200), (later, 404)):
            headers = stack.headers(account, api_key)
            url = f"/api/mt5/account/{account.account_id}"
            assert client.get(url, headers=headers).status_code == expected
        read = client.get(
            f"/api/mt5/account/{kept.account_id}/info",
            params={"fresh": "1"},
            headers=stack.headers(kept, api_key),
        )
        assert read.status_code == httpx.codes.OK, read.text
        assert read.json()["account"]["login"] == kept.login


def test_everything_is_scraped(stack: Deployed) -> None:
    prometheus = stack.containers("prometheus")[0]

    def up() -> dict[str, set[str]]:
        # What was scraped lately: of the tasks that a restore ended, Prometheus goes on saying 0
        # until it has asked for their name again and waited for two intervals more.
        asked = ("promtool", "query", "instant", "--format", "json", "http://localhost:9090",
                 "last_over_time(up[20s])")  # fmt: skip
        found: dict[str, set[str]] = {}
        for sample in stack.docker.json("exec", prometheus, *asked):
            found.setdefault(sample["metric"]["job"], set()).add(sample["value"][1])
        return found

    every = {job: {"1"} for job in JOBS}
    wait_for(lambda: up() == every, lambda: f"not all is scraped: {up()}", 120.0)

    def asked(query: str) -> str:
        return stack.docker(
            "exec", prometheus, "promtool", "query", "instant", "http://localhost:9090", query
        )

    def is_one(metric: str) -> bool:
        return "=> 1 @" in asked(metric)

    for metric in ("redis_up", "pg_up", "nginx_up"):
        wait_for(partial(is_one, metric), f"{metric} is not 1")
    for dashboard in Path("grafana-dashboards").glob("*.json"):
        for panel in json.loads(dashboard.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                asked(target["expr"])  # fails where it is no query
                for metric in METRIC.findall(target["expr"]):
                    assert asked(f"count_over_time({metric}[1h])"), f"{panel['title']}: {metric}"


def test_from_the_edge_nothing_answers_but_nginx(stack: Deployed, docker: Docker) -> None:
    addresses = stack.addresses()
    assert addresses["nginx"]
    targets = sorted({one for found in addresses.values() for one in found})
    open_doors = stack.probe("edge", targets, (*FORBIDDEN_PORTS, 8443))
    nginx = set(addresses["nginx"])
    assert {(host, port) for host, port in open_doors if port == 8443} <= {
        (one, 8443) for one in nginx
    }
    assert any(port == 8443 for _, port in open_doors), "the probe finds nothing at all"
    assert not [door for door in open_doors if door[1] in FORBIDDEN_PORTS]
    # The same probe where these doors are, or the lines above would prove nothing.
    inside = stack.probe("services", targets, FORBIDDEN_PORTS)
    assert {port for _, port in inside} >= {5432, 6379}
    behind = stack.probe("terminals", targets, FORBIDDEN_PORTS)
    assert {port for _, port in behind} >= {8001, 8100}


def test_secrets_are_nowhere_to_be_seen(stack: Deployed, docker: Docker) -> None:
    secrets = needles(stack)
    # What is looked for is what the services use: otherwise nothing would be found, ever.
    pool = stack.containers("api-pool")[0]
    held = docker("exec", pool, "cat", "/run/secrets/redis_url").encode()
    assert secrets["redis_url"] == held
    assert not search(docker, secrets)


def test_whoever_lies_about_our_names_is_never_visited(outside: Outside) -> None:
    assert outside.lies, "nobody asked for a name without a task: nothing was proved"
    assert not outside.visits


@asynccontextmanager
async def _writing(flowing: Traffic, stack: Deployed) -> AsyncIterator[Writer]:
    """Somebody who connects and disconnects accounts that nobody else uses."""
    writer = Writer(flowing, list(stack.accounts.values())[STREAMED:])
    task = asyncio.create_task(writer.run())
    try:
        await _until(lambda: writer.count >= 2, "two changes are acknowledged")
        yield writer
        writer.finish()
        await asyncio.wait_for(task, 120)
    finally:
        task.cancel()


async def _assert_acknowledged(stack: Deployed, api_key: str, writer: Writer) -> None:
    """Whatever was acknowledged is so, and every account is there."""
    assert writer.acknowledged
    with stack.client(api_key) as client:
        for account in stack.accounts.values():
            headers = stack.headers(account, api_key)
            answer = client.get(f"/api/mt5/account/{account.account_id}", headers=headers)
            assert answer.status_code == httpx.codes.OK, answer.text
            state = answer.json()["account"]["state"]
            wanted = writer.acknowledged.get(account.account_id, "connected")
            assert state == wanted, f"{account.account_id} is {state}, acknowledged was {wanted}"


def _moved(before: dict[str, str], after: dict[str, str]) -> int:
    return sum(after[account] != owner for account, owner in before.items())


def _assert_nothing_lost(notes: Notes) -> None:
    """Every request had its answer, and every stream that ended was taken up where it ended."""
    assert not notes.failures
    assert not notes.breaches()
    assert not notes.returns["with a snapshot"], notes.returns
    assert not notes.new_epochs


def _note_returns(figures: Figures, what: str, notes: Notes) -> None:
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(notes.returns.items()))
    figures.note(f"{what}: reads, all good", len(notes.reads))
    figures.note(f"{what}: streams that came back", told or "none had to")


async def _until(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.05)
