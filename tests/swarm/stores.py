"""Containers of the stores and their backup, on a network of their own."""

import asyncio
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import asyncpg
from redis import Redis
from tests.swarm.docker_cli import Docker

from mt5kit.secret import Secret
from mt5kit.state.redis.users import BACKUP, RULES, acl_file

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0
PASSWORDS = ("postgres", "mt5_owner", "mt5_backup", "mt5_exporter")
REDIS = "redis:8.0.6"
REDIS_HEALTH = (
    "redis-cli --user mt5_health --pass - --no-auth-warning ping | grep -qE 'PONG|MISCONF'"
)
"""As in the stack: who loads, or is silent, is not healthy; a restart mends no full disk."""


def until(what: str, true: Callable[[], Any]) -> Any:
    """What the condition gives once it is true.

    Raises:
        TimeoutError: It is not in time.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not (found := true()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S:.0f} s: {what}")
        time.sleep(0.1)
    return found


class Stores:
    """Makes containers, volumes and secrets that go together, and removes them.

    Args:
        docker: The engine's client.
        secrets_dir: Where the secrets lie, one a file.
    """

    def __init__(self, docker: Docker, secrets_dir: Path) -> None:
        self.docker = docker
        self.secrets_dir = secrets_dir
        self.name = f"mt5-test-{uuid4().hex[:8]}"
        self.label = f"mt5-stores={self.name}"
        docker("network", "create", "--label", self.label, self.name)
        config = docker.json("network", "inspect", "--format", "{{json .IPAM.Config}}", self.name)
        self.network: str = config[0]["Subnet"]
        for role in PASSWORDS:
            self.secret(f"{role}_password", secrets.token_urlsafe(24))
        self.redis_passwords = {user: Secret(secrets.token_urlsafe(32)) for user in RULES}
        self.secret("redis_acl", acl_file(self.redis_passwords))
        self.secret("redis_backup_password", self.redis_passwords[BACKUP].reveal())

    def secret(self, name: str, text: str) -> None:
        """Give a secret to the containers that start from now on."""
        path = self.secrets_dir / name
        path.write_text(text)
        path.chmod(0o644)  # the containers' user is another than ours

    def password(self, role: str) -> str:
        """What the role's secret holds."""
        return (self.secrets_dir / f"{role}_password").read_text()

    @property
    def redis_conf(self) -> Path:
        """The file that Redis reads as it starts."""
        return self.secrets_dir / "redis.conf"

    def volume(self, name: str) -> str:
        """A volume of ours; made if it is missing."""
        volume = f"{self.name}-{name}"
        self.docker("volume", "create", "--label", self.label, volume)
        return volume

    def run(self, service: str, image: str, *options: str, command: tuple[str, ...] = ()) -> str:
        """Start a container as the stack would: read-only, known by its service; its name."""
        name = f"{self.name}-{service}"
        self.docker(
            *("run", "--detach", "--name", name, "--label", self.label, "--read-only"),
            *("--network", self.name, "--network-alias", service, "--tmpfs", "/tmp"),
            *("--volume", f"{self.secrets_dir}:/run/secrets:ro"),
            *(*options, image, *command),
        )
        return name

    def postgres(self, image: str, *options: str, volume: str = "postgres") -> str:
        """Start PostgreSQL; its container's name."""
        return self.run(
            "postgres",
            image,
            *("--tmpfs", "/var/run/postgresql"),
            *("--volume", f"{self.volume(volume)}:/var/lib/postgresql"),
            *("--env", f"SERVICES_NETWORK={self.network}", "--env", "LOCK_WAIT_S=0"),
            *("--health-interval", "1s", *options),
            command=("-c", "shared_buffers=64MB", "-c", "max_wal_size=128MB"),
        )

    def redis(self, volume: str = "redis") -> str:
        """Start Redis; its container's name."""
        self.secret(self.redis_conf.name, (ROOT / "config/redis.conf").read_text())
        return self.run(
            "redis",
            REDIS,
            *("--user", "999:999", "--entrypoint", "redis-server"),
            *("--volume", f"{self.volume(volume)}:/data"),
            *("--volume", f"{self.redis_conf}:/usr/local/etc/redis/redis.conf:ro"),
            *("--health-cmd", REDIS_HEALTH, "--health-interval", "1s"),
            command=("/usr/local/etc/redis/redis.conf",),
        )

    def backup(self, image: str, *options: str) -> str:
        """Start the backup, in a hurry; its container's name."""
        hurry = {"LOOK_S": 2, "SNAPSHOT_S": 6}
        return self.run(
            "backup",
            image,
            *("--init", "--volume", f"{self.volume('backups')}:/backups"),
            *("--health-interval", "1s", "--stop-timeout", "30"),
            *("--env", f'SERVICES_NETWORKS=["{self.network}"]'),
            *(part for name, value in hurry.items() for part in ("--env", f"{name}={value}")),
            *options,
        )

    def one_off(
        self, image: str, *command: str, volumes: Mapping[str, str], options: Sequence[str] = ()
    ) -> tuple[int, str]:
        """Run a command of the backup to its end, as a job of its own; exit code and output.

        Args:
            image: Of the backup.
            command: What it does.
            volumes: Where it has which; that of the backups goes without saying.
            options: Of the container.
        """
        mounts = {"/backups": "backups"} | {place: name for name, place in volumes.items()}
        mounted = [
            part
            for place, name in mounts.items()
            for part in ("--volume", f"{self.volume(name)}:{place}")
        ]
        container = self.run("job", image, "--init", *mounted, *options, command=command)
        try:
            return self.ended(container), self.log(container)
        finally:
            self.remove(container)

    def redis_url(self, user: str) -> str:
        """The running Redis as one of its users."""
        given = self.redis_passwords.get(user)
        password = "-" if given is None else given.reveal()
        return f"redis://{user}:{password}@{self.address(f'{self.name}-redis')}:6379"

    @staticmethod
    def redis_client(url: str) -> Redis:
        """A client as patient as all else here; its own default is 5 s."""
        return Redis.from_url(url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S)

    def state(self, container: str) -> dict[str, Any]:
        """The state that `docker inspect` gives."""
        found: dict[str, Any] = self.docker.json("inspect", "-f", "{{json .State}}", container)
        return found

    def healthy(self, container: str) -> None:
        """Wait until a container is healthy.

        Raises:
            TimeoutError: It is not in time, or has ended; with its log.
        """

        def settled() -> bool:
            state = self.state(container)
            return state["Health"]["Status"] == "healthy" or not state["Running"]

        with suppress(TimeoutError):
            until("healthy", settled)
        health = self.state(container)["Health"]
        if health["Status"] != "healthy":
            raise TimeoutError(f"not healthy:\n{self.log(container)}\n{health['Log'][-1:]}")

    def ended(self, container: str) -> int:
        """Wait until a container has ended; its exit code."""
        until("it ends", lambda: not self.state(container)["Running"])
        return int(self.state(container)["ExitCode"])

    def log(self, container: str) -> str:
        """All it wrote."""
        return self.docker.both("logs", container)

    def remove(self, container: str) -> None:
        """Kill and remove a container; its volumes stay."""
        self.docker("rm", "--force", container)

    def address(self, container: str) -> str:
        """Where a container is on our network."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.docker("inspect", "-f", form, container)

    def dsn(self, role: str = "mt5_owner", database: str = "mt5") -> str:
        """The running PostgreSQL as a role."""
        address = self.address(f"{self.name}-postgres")
        return f"postgresql://{role}:{quote(self.password(role), safe='')}@{address}/{database}"

    def sql(self, statement: str, role: str = "mt5_owner", database: str = "mt5") -> Any:
        """The first value that a statement gives."""

        async def run() -> Any:
            connection = await asyncpg.connect(self.dsn(role, database))
            try:
                return await connection.fetchval(statement)
            finally:
                await connection.close()

        return asyncio.run(run())

    def inside(self, statement: str) -> str:
        """What a statement gives the superuser, who comes by no network."""
        return self.docker(
            *("exec", f"{self.name}-postgres", "psql", "-qAt", "--dbname=mt5", "-c", statement)
        )

    def close(self) -> None:
        """Remove everything that has our label."""
        for container in self.docker.lines("ps", "-aq", "--filter", f"label={self.label}"):
            self.remove(container)
        for kind in ("network", "volume"):
            for name in self.docker.lines(kind, "ls", "-q", "--filter", f"label={self.label}"):
                self.docker(kind, "rm", name)


@contextmanager
def stores(docker: Docker) -> Iterator[Stores]:
    """Stores on an engine that has the base images."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        made = Stores(docker, Path(directory))
        try:
            yield made
        finally:
            made.close()
