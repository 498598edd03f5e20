"""One API replica, served by a real uvicorn on real Postgres, Redis and simulated terminals."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import redis
import uvicorn
from pydantic import SecretStr

from api_pool.app import create_app
from api_pool.context import ProcessContext
from api_pool.settings import ApiSettings
from local_stack.embedded import EmbeddedRedis, RoleDsns
from mt5kit.telemetry.http_protocol import ShapedHttpProtocol
from mt5kit.vault import KeyRing

KEY = "a-service-key-of-this-test"
ADMIN_KEY = "an-admin-key-of-this-test"
SERVER = "Test-Server"
PASSWORDS = {1001: "alpha-pass-1001", 1002: "beta-pass-1002", 1003: "gamma-pass-1003"}


class ServedApp:
    """An application on a port of its own, in a thread of its own."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._started = threading.Event()
        self._server: uvicorn.Server | None = None
        self.context: ProcessContext | None = None
        self.port = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="api")

    def start(self) -> None:
        self._thread.start()
        if not self._started.wait(30):
            raise RuntimeError("the API did not start")

    def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(30)

    async def _serve(self) -> None:
        self.context = await ProcessContext.from_settings(self._settings)
        config = uvicorn.Config(
            create_app(self.context),
            host="127.0.0.1",
            port=0,
            http=ShapedHttpProtocol,
            log_config=None,
            access_log=False,
        )
        self._server = server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            if serving.done():
                await serving
            await asyncio.sleep(0.01)
        self.port = server.servers[0].sockets[0].getsockname()[1]
        self._started.set()
        await serving


@dataclass
class Api:
    """The replica, and a client with a key for a user of its own."""

    client: httpx.Client
    simulated: Any
    redis: Any
    served: ServedApp
    user: UUID = field(default_factory=uuid4)

    def headers(self, user: UUID | None = None) -> dict[str, str]:
        return {"X-API-Key": KEY, "X-User-ID": str(user or self.user)}

    def get(self, path: str, user: UUID | None = None, **params: Any) -> httpx.Response:
        return self.client.get(path, headers=self.headers(user), params=params)

    def post(self, path: str, body: Any, user: UUID | None = None) -> httpx.Response:
        return self.client.post(path, json=body, headers=self.headers(user))

    def connect(
        self, account_id: str, login: int, *, user: UUID | None = None, **changes: Any
    ) -> httpx.Response:
        body = {
            "user_id": str(user or self.user),
            "account_id": account_id,
            "login": login,
            "password": PASSWORDS.get(login, "none"),
            "server": SERVER,
        }
        return self.post("/api/mt5/connect", body | changes, user)


@pytest.fixture(scope="module")
def api(
    simulate: Any,
    postgres: RoleDsns,
    redis_server: EmbeddedRedis,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Api]:
    redis_server.start()
    state = redis.Redis.from_url(redis_server.admin_url)
    state.flushall()
    simulated = simulate(["a-1", "a-2"])
    ring = Path(tmp_path_factory.mktemp("ring")) / "ring.json"
    ring.write_bytes(KeyRing.generate().dump())
    served = ServedApp(
        ApiSettings(
            instance_id="api-1",
            redis_url=SecretStr(redis_server.url),
            internal_url="http://127.0.0.1:1",
            internal_key=SecretStr("an-internal-key-of-this-test"),
            database_url=SecretStr(postgres.app),
            worker_database_url=SecretStr(postgres.worker),
            key_ring_file=ring,
            api_keys={"test": hashlib.sha256(KEY.encode()).hexdigest()},
            admin_api_keys={"test": hashlib.sha256(ADMIN_KEY.encode()).hexdigest()},
            api_terminals=tuple(one.address for one in simulated.terminals.values()),
            stream_terminals=("s-1", "s-2"),
            terminals_networks=("127.0.0.0/8",),
            broker_servers={SERVER: "EET-US", "Silent-Server": "EET-US"},
            ws_base_url="wss://stream.example",
            login_timeout_s=2,
            key_rate=10_000,
            account_rate=10_000,
            connects_per_minute=10_000,
            login_budget_per_minute=6_000,
        )
    )
    served.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=30) as client:
        one = Api(client, simulated, state, served)
        wait_for_leases(one)
        yield one
    served.stop()
    state.close()


def wait_for_leases(api: Api) -> None:
    for _ in range(500):
        terminals = api.client.get("/health/ready").json()["terminals"].values()
        if all(terminal["leased"] and terminal["up"] for terminal in terminals):
            return
        threading.Event().wait(0.02)
    raise AssertionError("no leases")
