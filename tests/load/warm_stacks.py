"""The layers of a warm read one upon another, each stack served by a process of its own.

    python -m tests.load.warm_stacks <stack> <port>

Above `gate` the routes are those of the API and what they ask is made up: an account in memory
and a look in memory. What remains to the whole replica is the way to these, and what else it does.
"""

import hashlib
import sys
from collections import deque
from typing import Any, Final
from uuid import UUID

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.responses import Response

from api_pool.context import ProcessContext
from api_pool.directory import AccountCache, KnownAccount
from api_pool.gate import GateRules, KeyGate
from api_pool.keys import ApiKeys
from api_pool.limits import RateLimiter
from api_pool.memory import Kept, LookMemory
from api_pool.reading import Read
from api_pool.routes import reads
from api_pool.seen import Seen
from mt5kit.domain.accounts import AccountIdentity, AccountInfo, AccountState
from mt5kit.domain.instants import now_ms
from mt5kit.domain.snapshots import Snapshot, TerminalStatus
from mt5kit.state.postgres import AccountRow
from mt5kit.telemetry.errors_http import install_failure_handlers
from mt5kit.telemetry.http import Answered, Envelope
from mt5kit.telemetry.http_metrics import HttpMetrics
from mt5kit.telemetry.http_protocol import ShapedHttpProtocol
from mt5kit.telemetry.logs import configure_logs

HOST: Final = "127.0.0.1"
KEY: Final = "a-key-of-the-bench"
USER: Final = UUID("5d6c2ad3-6a5b-4c05-90a5-111111111111")
ACCOUNT: Final = "account-1"
STACKS: Final = ("empty", "envelope", "hook", "gate", "read")
# Limits are on and out of the way.
RATE: Final = 1e6


class Directory:
    """Accounts in memory, as the API's directory keeps them."""

    def __init__(self) -> None:
        self._cache = AccountCache(self._row)
        self.kept = self._cache.kept

    async def find(self, user_id: UUID, account_id: str) -> KnownAccount:
        account = await self._cache.get(user_id, account_id)
        if account is None:
            raise LookupError(account_id)
        return account

    async def _row(self, user_id: UUID, account_id: str) -> AccountRow:
        identity = AccountIdentity(7, "Bench-Server")
        state = AccountState.CONNECTED
        return AccountRow(1, user_id, account_id, user_id, identity, state, 0, None, True, 0, 0)


class Reader:
    """Looks in memory."""

    def __init__(self) -> None:
        flags, texts = (7, 0, 100, 0, 0, True, True, 2, 2, False), ("B", "Bench-Server", "USD", "B")
        fields: list[Any] = [*flags, *([10_000.25] * 14), *texts]
        info = AccountInfo(*fields)
        snapshot = Snapshot(info, (), (), TerminalStatus(connected=True, trade_allowed=True), 0)
        # A clock that stands: the look is current for ever.
        self._memory = LookMemory(clock=lambda: 0.0)
        self._memory.put(ACCOUNT, Kept(Seen.of(snapshot), "t-1", "bench", "cache", now_ms()))

    async def look(self, account: KnownAccount, _age_ms: int, _on_wait: object) -> Read:
        account.require_connected()
        kept = self._memory.current(account.account_id)
        if kept is None or kept.seen.identity != account.identity:
            raise LookupError(account.account_id)
        return Read(kept.seen, kept.meta(account.account_id))


class Context(ProcessContext):
    """As much of a context as a warm read asks for."""

    account_limiter: Any = RateLimiter("account", RATE)
    directory: Any = None
    reader: Any = None
    default_max_age_ms: Any = 60_000


def empty_app() -> FastAPI:
    """What FastAPI costs by itself."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    async def nothing() -> Response:
        return Response(b"{}", media_type="application/json")

    return app


def read_app() -> FastAPI:
    """The API's routes of reads upon made-up state."""
    app = FastAPI(docs_url=None, redoc_url=None, redirect_slashes=False)
    context = object.__new__(Context)
    Context.directory, Context.reader = Directory(), Reader()
    app.state.context = context
    reads.install_reads(app)
    install_failure_handlers(app)
    return app


def app_of(stack: str) -> FastAPI:
    """The app of a stack and of all below it."""
    height = STACKS.index(stack)
    app = read_app() if stack == "read" else empty_app()
    if height >= STACKS.index("gate"):
        keys = ApiKeys("X-API-Key", {"bench": hashlib.sha256(KEY.encode()).hexdigest()})
        none = ApiKeys("X-Admin-API-Key", {})
        limiter = RateLimiter("key", RATE)
        rules = GateRules(keys=keys, admin_keys=none, internal_keys=none, limiter=limiter)
        app.add_middleware(KeyGate, rules=rules)
    if height >= STACKS.index("envelope"):
        # As the writer of the request log takes them: a bounded queue.
        log: deque[Answered] = deque(maxlen=1000)
        told = log.append if height >= STACKS.index("hook") else None
        app.add_middleware(Envelope, metrics=HttpMetrics(CollectorRegistry()), on_answer=told)
    return app


def main() -> None:
    """Serve until SIGTERM, as the API's own `main` does."""
    stack, port = sys.argv[1], int(sys.argv[2])
    configure_logs(sys.stdout)
    uvicorn.run(
        app_of(stack),
        host=HOST,
        port=port,
        http=ShapedHttpProtocol,
        loop="uvloop",
        access_log=False,
        log_config=None,
    )


if __name__ == "__main__":
    main()
