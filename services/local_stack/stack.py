"""The local stack: what it starts, in which order, and how it ends."""

import asyncio
import hashlib
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from pydantic import SecretStr

import api_pool.app
import api_pool.context
import console.app
import websocket_pool.app
import websocket_pool.context
from api_pool.settings import ApiSettings
from console.settings import ConsoleSettings
from local_stack.demo import (
    CLOCK,
    CONNECTED,
    SERVER,
    Demo,
    DemoAccount,
    load_demo,
    scenario_of,
    write_private,
)
from local_stack.dispatcher import Dispatcher
from local_stack.embedded import EmbeddedPostgres, EmbeddedRedis, RoleDsns, apply_schema
from local_stack.embedded_process import EmbeddedServer, EmbeddedServerError
from local_stack.simulator import PlacedTerminal, Simulator
from mt5kit.service.server import KEEP_ALIVE_S
from mt5kit.telemetry.http_protocol import ShapedHttpProtocol
from mt5kit.vault import KeyRing
from websocket_pool.settings import StreamSettings
from websocket_pool.transport import AbortableProtocol

HOST: Final = "127.0.0.1"
# uvicorn's own.
BACKLOG: Final = 2048
DATABASE: Final = "postgres"
# The first connect waits for leases and links, which take their first moment after the start.
CONNECT_PATIENCE_S: Final = 30.0
START_STEP_S: Final = 0.01

Report = Callable[[str], None]
"""Told what is being started, for the progress display."""


@dataclass(frozen=True, slots=True)
class RunningStack:
    """What a person or a script needs to use it."""

    base_url: str
    ws_url: str
    demo: Demo
    console_token: str
    connected: frozenset[str]
    control_url: str
    terminals: tuple[PlacedTerminal, ...]
    servers: "Servers"


class PortTaken(EmbeddedServerError):
    """The port to listen on is another program's."""


class _Server(uvicorn.Server):
    """Leaves signals to us: we stop the apps first and the databases after them."""

    @contextmanager
    def capture_signals(self) -> Any:  # noqa: ANN401 - uvicorn's own signature
        yield


def bind(port: int) -> socket.socket:
    """A listening socket on the loopback; port 0 takes a free one.

    Raises:
        PortTaken: Somebody else listens there.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        # Only listening claims the port for good.
        listener.listen(BACKLOG)
    except OSError as taken:
        listener.close()
        raise PortTaken(
            f"port {port} is in use ({taken.strerror}); choose another: make run PORT={port + 1}"
        ) from None
    return listener


@asynccontextmanager
async def running_stack(
    data_dir: Path, listener: socket.socket, accounts: int, report: Report
) -> AsyncIterator[RunningStack]:
    """Everything started and the first accounts connected; all of it ends when it is left.

    Args:
        data_dir: Where all data lives, absolute; kept.
        listener: Bound, from `bind`.
        accounts: How many exist at the simulated broker.
        report: Told of each step.

    Raises:
        EmbeddedServerError: A server did not start; the message says what to do.
    """
    demo = load_demo(data_dir / "demo.json", accounts)
    base_url = f"http://{HOST}:{listener.getsockname()[1]}"
    async with AsyncExitStack() as stack:
        servers = _servers(data_dir, demo)
        report("PostgreSQL, Redis and the simulated terminals")
        await _start(stack, servers)
        report("the database schema")
        dsns = await apply_schema(servers.postgres.dsn(DATABASE))
        # For `make rotate-keys` beside this run.
        write_private(data_dir / "keys-database-url.secret", dsns.keys.encode())
        terminals = servers.simulator.terminals()
        token = secrets.token_urlsafe(24)
        parts = Parts(data_dir, demo, base_url, dsns, servers.redis.url, terminals, token)
        report("the API, the streams and the console")
        dispatcher = await _dispatcher(parts)
        await stack.enter_async_context(dispatcher.running())
        await stack.enter_async_context(_served(dispatcher, listener))
        report("the demo accounts")
        connected = await connect_accounts(base_url, demo)
        yield RunningStack(
            base_url=base_url,
            ws_url=_ws(base_url),
            demo=demo,
            console_token=token,
            connected=connected,
            control_url=servers.simulator.ready().control_url,
            terminals=terminals,
            servers=servers,
        )
        report("stopping")


@dataclass(frozen=True, slots=True)
class Servers:
    """The processes beside us."""

    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    simulator: Simulator


@dataclass(frozen=True, slots=True)
class Parts:
    """What the applications' settings are made from."""

    data_dir: Path
    demo: Demo
    base_url: str
    dsns: RoleDsns
    redis_url: str
    terminals: tuple[PlacedTerminal, ...]
    console_token: str

    def of_role(self, role: str) -> tuple[PlacedTerminal, ...]:
        """The terminals of a role."""
        return tuple(terminal for terminal in self.terminals if terminal.role == role)


def _servers(data_dir: Path, demo: Demo) -> Servers:
    return Servers(
        EmbeddedPostgres(data_dir / "postgres"),
        EmbeddedRedis(data_dir / "redis"),
        Simulator(data_dir / "simulator", scenario_of(demo), demo.supervisor_key),
    )


async def _start(stack: AsyncExitStack, servers: Servers) -> None:
    async def start(server: EmbeddedServer) -> None:
        stack.push_async_callback(asyncio.to_thread, server.stop)
        await asyncio.to_thread(server.start)

    # All are awaited, even after a failure: a stop must not overtake a start.
    starts = [start(server) for server in (servers.postgres, servers.redis, servers.simulator)]
    for outcome in await asyncio.gather(*starts, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _dispatcher(parts: Parts) -> Dispatcher:
    apps = {
        # First: NiceGUI looks at every object of the process when it starts, and the remote
        # objects of the pools' links belong to other threads.
        "console": console.app.create_app(_console_settings(parts)),
        "api-pool": api_pool.app.create_app(
            await api_pool.context.ProcessContext.from_settings(_api_settings(parts))
        ),
        "websocket-pool": websocket_pool.app.create_app(
            await websocket_pool.context.StreamContext.from_settings(_stream_settings(parts))
        ),
    }
    prefixes = {"/ws": "websocket-pool", "/console": "console"}
    return Dispatcher(apps, prefixes, fallback="api-pool")


def _api_settings(parts: Parts) -> ApiSettings:
    return ApiSettings(
        instance_id="api-1",
        redis_url=SecretStr(parts.redis_url),
        database_url=SecretStr(parts.dsns.app),
        worker_database_url=SecretStr(parts.dsns.worker),
        internal_url=f"{parts.base_url}/services/api-pool",
        internal_key=SecretStr(secrets.token_urlsafe(24)),
        key_ring_file=_key_ring(parts.data_dir),
        api_keys={"local": _digest(parts.demo.api_key)},
        admin_api_keys={"local": _digest(parts.demo.admin_api_key)},
        api_terminals=tuple(terminal.address for terminal in parts.of_role("api")),
        stream_terminals=tuple(terminal.terminal_id for terminal in parts.of_role("stream")),
        terminals_networks=("127.0.0.0/8",),
        broker_servers={SERVER: CLOCK},
        ws_base_url=_ws(parts.base_url),
    )


def _stream_settings(parts: Parts) -> StreamSettings:
    return StreamSettings(
        instance_id="ws-1",
        redis_url=SecretStr(parts.redis_url),
        worker_database_url=SecretStr(parts.dsns.worker),
        key_ring_file=_key_ring(parts.data_dir),
        stream_terminals=tuple(terminal.address for terminal in parts.of_role("stream")),
        terminals_networks=("127.0.0.0/8",),
        broker_servers={SERVER: CLOCK},
        allowed_origins=frozenset({parts.base_url, parts.base_url.replace(HOST, "localhost")}),
    )


def _console_settings(parts: Parts) -> ConsoleSettings:
    return ConsoleSettings(
        api_url=parts.base_url,
        api_key=SecretStr(parts.demo.api_key),
        user_id=parts.demo.accounts[0].user_id,
        operator_password=None,
        one_time_token=SecretStr(parts.console_token),
        session_secret=SecretStr(parts.demo.session_secret),
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _key_ring(data_dir: Path) -> Path:
    path = data_dir / "key-ring.json"
    if not path.exists():
        write_private(path, KeyRing.generate().dump())
    return path


@asynccontextmanager
async def _served(dispatcher: Dispatcher, listener: socket.socket) -> AsyncIterator[None]:
    # The dispatcher runs the lifespans itself; access logs would show tickets.
    config = uvicorn.Config(
        dispatcher,
        lifespan="off",
        http=ShapedHttpProtocol,
        ws=AbortableProtocol,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=3,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="uvicorn")
    try:
        while not server.started:
            if serving.done():
                raise EmbeddedServerError(f"the web server ended: {serving.exception()}")
            await asyncio.sleep(START_STEP_S)
        yield
    finally:
        server.should_exit = True
        await serving


async def connect_accounts(base_url: str, demo: Demo) -> frozenset[str]:
    """Connect the first accounts through the public API; the ids of all that are connected.

    Raises:
        EmbeddedServerError: One cannot be connected.
    """
    async with httpx.AsyncClient(
        base_url=base_url, headers={"X-API-Key": demo.api_key}, timeout=CONNECT_PATIENCE_S
    ) as client:
        first = demo.accounts[:CONNECTED]
        await asyncio.gather(*(_connect(client, account) for account in first))
        states = [await _state(client, account) for account in demo.accounts]
    return frozenset(
        account.account_id
        for account, state in zip(demo.accounts, states, strict=True)
        if state == "connected"
    )


async def _state(client: httpx.AsyncClient, account: DemoAccount) -> str | None:
    """The state of an account, None while the API does not know it."""
    path = f"/api/mt5/account/{account.account_id}"
    answer = await client.get(path, headers={"X-User-ID": str(account.user_id)})
    return answer.json()["account"]["state"] if answer.is_success else None


async def _connect(client: httpx.AsyncClient, account: DemoAccount) -> None:
    body = {
        "user_id": str(account.user_id),
        "account_id": account.account_id,
        "login": account.login,
        "password": account.password,
        "server": account.server,
    }
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CONNECT_PATIENCE_S
    while True:
        answer = await client.post("/api/mt5/connect", json=body)
        if answer.is_success:
            return
        failure = answer.json()
        retry_after_s = failure["retry_after_s"]
        if retry_after_s is None or loop.time() > deadline:
            raise EmbeddedServerError(
                f"{account.account_id} could not be connected: {failure['error']}"
                f" ({failure['code']})"
            )
        # A lease or a link that is not there yet comes within moments, not seconds.
        await asyncio.sleep(min(retry_after_s, 0.2))


def _ws(base_url: str) -> str:
    return base_url.replace("http", "ws", 1)
