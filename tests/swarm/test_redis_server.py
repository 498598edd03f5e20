"""Redis as a deployment runs it: its file, its users, its health check."""

import asyncio
import json
import re
from collections.abc import Iterator

import httpx
import pytest
import redis
from redis.asyncio import Redis
from tests.swarm.docker_cli import Docker
from tests.swarm.stores import REDIS_HEALTH, Stores, stores, until

from mt5kit.state.redis import Keys, LeaseStore, TicketStore, open_redis
from mt5kit.state.redis.users import BACKUP, EXPORTER, POOLS

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def made(docker: Docker) -> Iterator[Stores]:
    with stores(docker) as made:
        yield made


@pytest.fixture(scope="module")
def server(made: Stores) -> str:
    container = made.redis()
    made.healthy(container)
    return container


def client(made: Stores, user: str) -> redis.Redis:
    return made.redis_client(made.redis_url(user))


def test_it_runs_as_it_is_written(made: Stores, server: str) -> None:
    assert made.docker("exec", server, "id", "-u") == "999"
    with client(made, EXPORTER) as exporter:
        config = exporter.config_get("*")
        assert config["maxmemory"] == str(3 << 30)
        assert config["maxmemory-policy"] == "noeviction"
        assert config["appendonly"] == "yes"
        assert config["appendfsync"] == "everysec"
        assert config["save"] == "900 1"
        assert exporter.info("server")["redis_version"].startswith("8.")


def test_the_stores_work_with_the_rights_of_a_pool(made: Stores, server: str) -> None:
    async def work() -> None:
        state: Redis = open_redis(made.redis_url(POOLS))
        lease = await LeaseStore(state, Keys()).acquire("T1", "a")
        assert lease is not None
        tickets = TicketStore(state, Keys())
        redeemed = await tickets.redeem(await tickets.issue("acc", "user"))
        assert redeemed is not None
        assert await state.ping()
        await state.aclose()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("user", "command"),
    [
        (POOLS, "FLUSHALL"),
        (POOLS, "CONFIG GET *"),
        (POOLS, "KEYS *"),
        (POOLS, "ACL LIST"),
        (POOLS, "PSYNC ? -1"),
        (POOLS, "GET another:key"),
        (BACKUP, "GET mt5:key"),
        (BACKUP, "INFO"),
        (EXPORTER, "GET mt5:key"),
        (EXPORTER, "CONFIG SET maxmemory 0"),
        ("mt5_health", "INFO"),
        ("mt5_health", "GET mt5:key"),
    ],
)
def test_nobody_may_do_what_is_not_his(made: Stores, server: str, user: str, command: str) -> None:
    with client(made, user) as one, pytest.raises(redis.exceptions.NoPermissionError):
        one.execute_command(*command.split())


def test_nobody_comes_in_without_a_name(made: Stores, server: str) -> None:
    host = re.sub(r"//.*@", "//", made.redis_url(POOLS))
    with made.redis_client(host) as one, pytest.raises(redis.exceptions.AuthenticationError):
        one.ping()


def test_an_exporter_scrapes_with_its_rights(made: Stores, server: str) -> None:
    password = made.redis_passwords[EXPORTER].reveal()
    made.secret("exporter_passwords", json.dumps({f"redis://{EXPORTER}@redis:6379": password}))
    container = made.run(
        "redis-exporter",
        "oliver006/redis_exporter:v1.86.0",
        *("--entrypoint", "/redis_exporter", "--user", "65534:65534"),
        command=(
            "--redis.addr=redis://redis:6379",
            f"--redis.user={EXPORTER}",
            "--redis.password-file=/run/secrets/exporter_passwords",
        ),
    )
    address = made.address(container)

    def scraped() -> str:
        try:
            return httpx.get(f"http://{address}:9121/metrics").text
        except httpx.TransportError:
            return ""

    figures = until("it scrapes", lambda: (text := scraped()).count("redis_up 1") and text)
    assert "redis_memory_max_bytes 3.221225472e+09" in figures
    assert 'redis_exporter_last_scrape_error{err=""} 0' in figures
    assert "NOPERM" not in made.log(container)


def test_passwords_are_nowhere_to_be_seen(made: Stores, server: str) -> None:
    seen = made.log(server) + made.docker("inspect", server) + made.docker("top", server)
    with client(made, EXPORTER) as exporter:
        seen += str(exporter.config_get("*"))
    for password in made.redis_passwords.values():
        assert password.reveal() not in seen
    assert not [one for one in made.redis_passwords.values() if one.reveal() in acl(made)]


def acl(made: Stores) -> str:
    return (made.secrets_dir / "redis_acl").read_text()


def test_what_was_written_a_second_ago_outlives_a_kill(made: Stores, server: str) -> None:
    with client(made, POOLS) as pool, client(made, EXPORTER) as exporter:
        pool.set("mt5:kept", "yes")
        # What was handed to the disk; the loss of a second is the price of everysec.
        until("synced", lambda: exporter.info("persistence")["aof_pending_bio_fsync"] == 0)
    made.docker("kill", "--signal", "KILL", server)
    made.docker("start", server)
    made.healthy(server)
    with client(made, POOLS) as pool:
        assert pool.get("mt5:kept") == b"yes"


def test_it_is_not_healthy_before_it_has_read_its_file(made: Stores, server: str) -> None:
    with client(made, POOLS) as pool:
        # A script's answers do not go over the network.
        fill = "for i = 1, 50000 do redis.call('SET', 'mt5:fill:' .. i, string.rep('x', 300)) end"
        pool.eval(fill, 0)
    made.docker("kill", "--signal", "KILL", server)
    # Redis' own setting for such tests, in microseconds a key: it reads for seconds.
    written = made.redis_conf.read_text()
    made.redis_conf.write_text(f"{written}\nkey-load-delay 200\n")
    made.docker("start", server)

    def asked() -> tuple[str, bool]:
        ping = REDIS_HEALTH.partition("|")[0]
        said = made.docker.both("exec", server, "sh", "-c", f"{ping}; {REDIS_HEALTH}; echo =$?")
        return said, said.rstrip().endswith("=0")

    seen = [asked()]
    while "PONG" not in seen[-1][0]:
        seen.append(asked())
    made.redis_conf.write_text(written)
    loading = [healthy for said, healthy in seen if "LOADING" in said]
    assert loading, "it was never seen loading"
    # The one that was asked last may have ended in between.
    assert not any(loading[:-1])
    assert seen[-1][1]
