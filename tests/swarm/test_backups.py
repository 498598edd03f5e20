"""Backups of real servers, and what comes back from them."""

import asyncio
import datetime as dt
import itertools
import json
import re
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from tests.swarm.bases import Base, ensure_base
from tests.swarm.docker_cli import Docker
from tests.swarm.images import build_image
from tests.swarm.stores import PATIENCE_S, Stores, stores, until

from mt5kit.state.redis.users import POOLS
from ops.migrating import upgrade

pytestmark = pytest.mark.timeout(600)

DATA = {"postgres": "/var/lib/postgresql"}
LISTING = ("restore", "--list")
HEALTH = ("python3", "-m", "backup", "health")
STATUS = "/tmp/backup/status.json"
LAST_END = """
import os, sys
from pathlib import Path
from backup.wal import ReceivedLog
end = ReceivedLog(Path("/backups"), os.environ).last_end(int(sys.argv[1]))
print(end.at.isoformat() if end else "")
"""
SEALED = "repeat('s', 60)::bytea"
S3 = Base(
    "mt5-swarm-test/s3:1",
    "forky",
    (
        *("python3-moto", "python3-flask", "python3-flask-cors", "python3-responses"),
        *("python3-xmltodict", "python3-jsonpickle"),
    ),
)
"""Storage of the outside world, as moto pretends it."""


def ring(*ids: str) -> str:
    return json.dumps({"active": ids[0], "keys": dict.fromkeys(ids, "bm90IGEga2V5")})


class Site:
    """Postgres, Redis and their backup, with accounts to lose."""

    def __init__(self, made: Stores, postgres_image: str, backup_image: str) -> None:
        self.made = made
        self.images = (postgres_image, backup_image)
        made.secret("key_ring", ring("first", "spare"))
        self.postgres = self.backup = ""
        self.logins = itertools.count(1)

    def start_postgres(self, volume: str = "postgres") -> None:
        self.postgres = self.made.postgres(self.images[0], volume=volume)
        self.made.healthy(self.postgres)

    def stop_postgres(self) -> None:
        self.made.docker("stop", "--time", "60", self.postgres)
        self.made.remove(self.postgres)

    def start_backup(self, *options: str) -> None:
        self.backup = self.made.backup(self.images[1], *options)

    def add(self, name: str, key_id: str = "first") -> dt.datetime:
        """Store an account; a moment at which it is there, and no later one is."""
        columns = "account_id, user_id, login, server, encrypted_password, wrapped_key"
        values = f"'{name}', '{uuid4()}', {next(self.logins)}, 'Demo', {SEALED}, {SEALED}"
        self.before: dt.datetime = self.made.sql("SELECT clock_timestamp()")
        self.made.inside(
            f"INSERT INTO accounts ({columns}, encryption_key_id) VALUES ({values}, '{key_id}')"  # noqa: S608 - of this file
        )
        moment: dt.datetime = self.made.sql("SELECT clock_timestamp()")
        return moment

    def accounts(self) -> list[str]:
        return self.made.inside("SELECT account_id FROM accounts ORDER BY id").splitlines()

    def received(self) -> None:
        """Wait until the backup has what was added last."""
        timeline = str(self.timeline())

        def last() -> str:
            return self.made.docker("exec", self.backup, "python3", "-c", LAST_END, timeline)

        until("received", lambda: last() > self.before.isoformat())

    def timeline(self) -> int:
        return int(self.made.inside("SELECT timeline_id FROM pg_control_checkpoint()"))

    def latest(self) -> dt.datetime:
        """The last time that can be restored, as it is listed."""
        return dt.datetime.fromisoformat(self.listed().split(" can be")[0].split()[-1])

    def job(self, *command: str, **volumes: str) -> tuple[int, str]:
        return self.made.one_off(self.images[1], *command, volumes=volumes or DATA)

    def restore(self, to: dt.datetime) -> str:
        code, said = self.job("restore", "--to", to.isoformat())
        assert code == 0, said
        return said

    def refused(self, *command: str) -> str:
        code, said = self.job("restore", *command)
        assert code == 1, said
        assert "Traceback" not in said
        return said

    def listed(self) -> str:
        code, said = self.job(*LISTING)
        assert code == 0, said
        return said

    def timelines(self) -> list[int]:
        """Of the full backups, as they are listed."""
        rows = re.findall(r"^\d{8}T\d{6}\s+\S+Z\s+(\d+)", self.listed(), re.MULTILINE)
        return [int(row) for row in rows]

    def begins(self) -> None:
        """From nothing to a healthy backup of a database with its schema."""
        self.start_postgres()
        asyncio.run(upgrade(self.made.dsn(), lambda _: None))
        self.made.redis()
        self.start_backup()
        self.well()

    def says(self) -> str:
        return self.made.docker("exec", self.backup, *HEALTH, check=False)

    def scraped(self) -> str:
        place = f"http://{self.made.address(self.backup)}:9188/metrics"
        return httpx.get(place, trust_env=False, timeout=PATIENCE_S).text

    def well(self) -> None:
        """Wait until nothing is missed, and the check agrees."""
        until("all is well", lambda: self.says() == "all is well")
        self.made.healthy(self.backup)

    def again(self) -> None:
        """Start Postgres after a restore, until there is a full backup of where it is now."""
        before = self.fulls()
        self.start_postgres()
        until("a new full backup", lambda: self.fulls() > before)

    def given_up(self) -> int:
        """Directories that restores have put aside; and none has left another."""
        left = self.made.docker("exec", self.postgres, "ls", "/var/lib/postgresql/18").split()
        aside = [name for name in left if name.startswith("docker.before-")]
        assert sorted(left) == sorted(["docker", *aside])
        return len(aside)

    def fulls(self) -> int:
        return self.made.log(self.backup).count("full backup: done")


@pytest.fixture(scope="module")
def site(docker: Docker) -> Iterator[Site]:
    """One for all: they stand in the order in which they are run, and each leaves it healthy."""
    with stores(docker) as made:
        postgres, backup = (
            build_image(docker, f"services/{kind}/Dockerfile", f"mt5-{kind}:test")
            for kind in ("postgres", "backup")
        )
        site = Site(made, postgres, backup)
        site.begins()
        yield site


def test_what_was_written_after_the_last_full_backup_comes_back(site: Site) -> None:
    assert site.timelines() == [1]
    first = site.add("first")
    site.add("mistake")
    site.received()
    assert "Postgres is running" in site.refused("--to", first.isoformat())
    site.stop_postgres()
    site.restore(first)
    site.again()
    assert site.accounts() == ["first"]
    assert site.timelines() == [1, 2]
    # The owner is let in with the password of now, whatever it was then.
    assert site.made.sql("SELECT current_user") == "mt5_owner"
    assert site.made.inside("SHOW restore_command") == ""

    second = site.add("second")
    site.add("another-mistake")
    site.received()
    site.stop_postgres()
    site.restore(second)
    site.start_postgres()
    assert site.accounts() == ["first", "second"]


def test_what_a_restore_gave_up_can_be_restored_still(site: Site) -> None:
    before, timeline = site.accounts(), site.timeline()
    first = site.add("third")
    mistake = site.add("no-mistake")
    site.add("a-mistake")
    site.received()
    site.stop_postgres()
    # The backup may be away meanwhile, and hears nothing of one restore, nor of the next.
    site.made.docker("stop", site.backup)
    assert f"timeline {timeline + 1}" in site.restore(first)
    site.start_postgres()
    assert site.accounts() == [*before, "third"]
    lost = site.add("given-up-as-well")
    site.stop_postgres()
    assert "nothing was received" in site.refused("--to", lost.isoformat())
    assert f"timeline {timeline + 2}" in site.restore(mistake)
    site.start_postgres()
    assert site.accounts() == [*before, "third", "no-mistake"]
    early = site.add("before-the-next-full-backup")
    site.add("one-more-mistake")
    site.made.docker("start", site.backup)
    site.received()
    site.stop_postgres()
    site.restore(early)
    site.start_postgres()
    assert site.accounts() == [*before, "third", "no-mistake", "before-the-next-full-backup"]
    assert site.given_up() >= 3


def test_a_restore_that_would_lose_something_is_refused(site: Site) -> None:
    keys = "cat /backups/keys/*.json"
    site.add("of-another-key", "second")
    since = site.add("before-keys-are-noted")
    until("noted", lambda: "second" in site.made.docker("exec", site.backup, "sh", "-c", keys))
    noted = site.add("after-keys-were-noted")
    site.add("last")
    site.received()
    everything, given_up = site.accounts(), site.given_up()
    site.stop_postgres()
    latest = site.latest()

    future = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert "is in the future. Times from 20" in site.refused("--to", future.isoformat())
    early = since - dt.timedelta(days=1)
    assert "there is no full backup before" in site.refused("--to", early.isoformat())
    late = latest + dt.timedelta(microseconds=1)
    assert "only what was until 20" in site.refused("--to", late.isoformat())
    lacks = "the key ring lacks second, which passwords"
    assert f"{lacks} of 20" in site.refused("--to", noted.isoformat())
    assert "No such file" in site.refused("--to", noted.isoformat(), "--check-ring", "/nowhere")
    code, said = site.job("restore", "--to", "2026-11-29T12:00:00")
    assert (code, "has no zone" in said) == (2, True)

    # Without a list it is found when all is recovered, and nothing has taken its place yet.
    site.made.docker("exec", site.backup, "sh", "-c", "rm /backups/keys/*.json")
    assert f"{lacks} in it" in site.refused("--to", noted.isoformat())

    # With the ring all is well, to the very last that was written.
    site.made.secret("key_ring", ring("first", "second"))
    said = site.restore(latest)
    assert "docker.before-" in said
    site.start_postgres()
    assert site.accounts() == everything
    assert site.given_up() == given_up + 1


def test_redis_begins_with_a_snapshot(site: Site) -> None:
    with site.made.redis_client(site.made.redis_url(POOLS)) as pool:
        pool.set("mt5:kept", "yes")
    written = f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H-%M-%SZ}.rdb"

    def newest() -> str:
        return site.made.docker("exec", site.backup, "sh", "-c", "ls /backups/redis | tail -n 1")

    until("a snapshot", lambda: newest() > written)
    now = dt.datetime.now(dt.UTC).isoformat()
    fresh = {"elsewhere": "/data"}
    code, said = site.job("restore-redis", "--to", now, **fresh)
    assert (code, "Redis is running" in said) == (1, True)
    site.made.remove(f"{site.made.name}-redis")
    code, said = site.job("restore-redis", "--to", "2020-01-01T00:00:00Z", **fresh)
    assert (code, "no snapshot of Redis before" in said) == (1, True)
    code, said = site.job("restore-redis", "--to", now, **fresh)
    assert code == 0, said
    container = site.made.redis(volume="elsewhere")
    site.made.healthy(container)
    with site.made.redis_client(site.made.redis_url(POOLS)) as pool:
        assert pool.get("mt5:kept") == b"yes"


def test_the_health_check_says_what_fails(site: Site) -> None:
    site.well()
    site.made.docker("pause", f"{site.made.name}-redis")
    until("Redis is missed", lambda: "no snapshot of Redis" in site.says())
    assert "Postgres" not in site.says()
    site.made.docker("unpause", f"{site.made.name}-redis")
    site.made.docker("stop", site.postgres)
    until("Postgres is missed", lambda: "is not being received" in site.says())
    assert "mt5_backup_receiving 0.0" in site.scraped()
    site.made.docker("start", site.postgres)
    # What another start would not mend makes nobody start it anew.
    assert site.made.state(site.backup)["Health"]["Status"] == "healthy"
    site.well()
    assert "mt5_backup_receiving 1.0" in site.scraped()


def test_passwords_are_in_no_log_and_no_command(site: Site) -> None:
    seen = site.made.log(site.backup) + site.made.docker("inspect", site.backup)
    commands = "cat /proc/*/cmdline; cat /etc/barman.conf"
    seen += site.made.docker("exec", site.backup, "sh", "-c", commands)
    assert "pg_receivewal" in seen
    for secret in ("mt5_backup_password", "redis_backup_password"):
        assert (site.made.secrets_dir / secret).read_text() not in seen


def test_a_host_that_is_lost_comes_back_from_the_second_place(site: Site) -> None:
    ensure_base(site.made.docker, S3)
    storage = site.made.run("s3", S3.name, command=("moto_server", "-H", "::", "-p", "5000"))
    site.made.secret("s3_access_key_id", "who")
    site.made.secret("s3_secret_access_key", "a secret of the storage")
    place = {"S3_BUCKET": "backups", "S3_PREFIX": "mt5", "S3_ENDPOINT_URL": "http://s3:5000"}
    options = [part for name, value in place.items() for part in ("--env", f"{name}={value}")]
    until("the storage is up", lambda: "Running on" in site.made.log(storage))
    bucket = f"http://{site.made.address(storage)}:5000/backups"
    httpx.put(bucket, trust_env=False, timeout=PATIENCE_S).raise_for_status()
    site.made.remove(site.backup)
    before = site.accounts()
    kept = site.add("kept")
    site.add("kept-too")
    site.start_backup(*options, "--env", "COPY_S=5")
    site.received()
    done = dt.datetime.now(dt.UTC).isoformat()
    copied = f"import json; print(json.load(open('{STATUS}'))['copied'] or '')"
    until("copied", lambda: site.made.docker("exec", site.backup, "python3", "-c", copied) > done)
    site.well()
    assert "a secret of the storage" not in site.made.log(site.backup)
    for container in (site.backup, site.postgres):
        site.made.remove(container)

    lost = {"new-backups": "/backups", "new-postgres": "/var/lib/postgresql"}
    for command in (("fetch",), ("restore", "--to", kept.isoformat())):
        code, said = site.made.one_off(site.images[1], *command, volumes=lost, options=options)
        assert code == 0, said
    assert "docker.before-" not in said
    site.start_postgres("new-postgres")
    assert site.accounts() == [*before, "kept"]
