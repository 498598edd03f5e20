"""A replica on a real uvicorn and a real Redis, with a terminal that does as it is told."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID

import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect

from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.broker_time import DEFAULT_RULE
from mt5kit.domain.brokers import Brokers
from mt5kit.errors import (
    AccountNotFound,
    LoginRefused,
    ServiceOverloaded,
    TerminalMoved,
    Unauthenticated,
)
from mt5kit.secret import Secret
from mt5kit.state.keys import Keys
from mt5kit.state.postgres import Standing
from mt5kit.state.redis import (
    BoardStore,
    ControlChannel,
    Lease,
    LeaseStore,
    LiveStore,
    StreamPlacementStore,
    TicketStore,
    open_redis,
)
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.protocol import StreamTerminal
from mt5kit.terminal.supervisor import Peer, Supervisors
from mt5kit.testing.fake_terminal import FakeStreamTerminal
from websocket_pool.app import create_app
from websocket_pool.context import StreamContext
from websocket_pool.credentials import StoredAccount
from websocket_pool.messages import LARGEST_CLIENT_MESSAGE
from websocket_pool.session import SessionRules
from websocket_pool.tokens import Bearer
from websocket_pool.transport import AbortableProtocol, listener
from websocket_pool.wiring import Wiring

USER = "11111111-1111-1111-1111-111111111111"
ORIGIN = "https://app.example"
PORTS = {"S1": 8001, "S2": 8002, "S3": 8003}


class FakeCredentials:
    """A `CredentialSource` in memory."""

    def __init__(self) -> None:
        self.accounts: dict[str, StoredAccount] = {}
        self.refusals: list[str] = []
        self.reads = 0
        self.full = False
        self.before_answer: Callable[[int], Awaitable[None]] | None = None
        self._seals = itertools.count(1)

    def store(
        self,
        account_id: str,
        credentials: Credentials,
        state: AccountState = AccountState.CONNECTED,
    ) -> None:
        """What a connect does."""
        seal = b"%d" % next(self._seals)
        self.accounts[account_id] = StoredAccount(account_id, credentials, state, seal)

    def move(self, account_id: str, state: AccountState) -> None:
        """What a disconnect, or a refusal elsewhere, does."""
        self.accounts[account_id] = replace(self.accounts[account_id], state=state)

    async def standing(self, account_id: str) -> Standing:
        found = await self.read(account_id)
        return Standing(found.credentials.identity.login, UUID(USER), found.state)

    async def read(self, account_id: str) -> StoredAccount:
        self.reads += 1
        found = self.accounts.get(account_id)
        if self.before_answer is not None:
            await self.before_answer(self.reads)
        if found is None:
            raise AccountNotFound("no such account")
        return found

    async def refused(self, account: StoredAccount, refusal: LoginRefused) -> None:
        assert refusal.message
        self.refusals.append(account.account_id)
        if self.full:
            raise ServiceOverloaded("the database does not answer")
        if self.accounts[account.account_id].seal == account.seal:
            self.move(account.account_id, AccountState.LOGIN_FAILED)


class FakeTerminals:
    """`Terminals` that are there from the start."""

    def __init__(self, terminals: dict[str, FakeStreamTerminal]) -> None:
        self._terminals = terminals
        self._held: set[str] = set()

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._terminals)

    def gained(self, lease: Lease) -> None:
        self._held.add(lease.terminal_id)

    def lost(self, terminal_id: str) -> None:
        self._held.discard(terminal_id)

    def get(self, terminal_id: str) -> StreamTerminal:
        if terminal_id not in self._held:
            raise TerminalMoved("not held here")
        return self._terminals[terminal_id]

    def up(self, terminal_id: str) -> bool:
        return terminal_id in self._held

    def peer(self, terminal_id: str) -> Peer | None:
        return Peer("127.0.0.1", PORTS[terminal_id]) if self.up(terminal_id) else None

    async def aclose(self) -> None:
        """Nothing to hang up."""


class FakeVerifier:
    """Takes the tokens that it was given."""

    def __init__(self) -> None:
        self.bearers: dict[str, Bearer] = {}

    async def verify(self, token: str) -> Bearer:
        if token not in self.bearers:
            raise Unauthenticated("the token is not good")
        return self.bearers[token]


@dataclass
class Farm:
    """The outside world that replicas share: accounts, terminals, Redis."""

    redis: Redis
    keys: Keys = field(default_factory=Keys)
    passwords: dict[AccountIdentity, str] = field(default_factory=dict)
    credentials: FakeCredentials = field(default_factory=FakeCredentials)
    terminals: dict[str, FakeStreamTerminal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for terminal_id in ("S1", "S2"):
            self.terminals[terminal_id] = FakeStreamTerminal(terminal_id, self.passwords)
        self.tickets = TicketStore(self.redis, self.keys)
        self.placement = StreamPlacementStore(self.redis, self.keys)
        self.live = LiveStore(self.redis, self.keys)
        self.leases = LeaseStore(self.redis, self.keys)
        self.control = ControlChannel(self.redis, self.keys)
        self.board = BoardStore(self.redis, self.keys, "stream")

    def account(self, account_id: str, login: int = 1) -> AccountIdentity:
        identity = AccountIdentity(login, "Demo")
        self.passwords[identity] = "right"
        self.credentials.store(account_id, Credentials(identity, Secret("right")))
        return identity

    async def ticket(self, account_id: str) -> str:
        return await self.tickets.issue(account_id, USER)

    async def terminal_of(self, account_id: str) -> FakeStreamTerminal:
        terminal_id = await self.placement.where(account_id)
        assert terminal_id is not None
        return self.terminals[terminal_id]

    async def draining(self) -> set[str]:
        """The terminals that all replicas are told to leave."""
        return {one for one, entry in (await self.board.read()).items() if entry.draining}


@dataclass
class Replica:
    """A running replica."""

    context: StreamContext
    farm: Farm
    server: uvicorn.Server

    @property
    def port(self) -> int:
        return int(self.server.servers[0].sockets[0].getsockname()[1])

    @property
    def transports(self) -> int:
        """Connections that uvicorn still has, whatever we think of them."""
        return len(self.server.server_state.connections)

    def metric(self, name: str, **labels: str) -> float:
        return self.context.wiring.registry.get_sample_value(name, labels) or 0.0

    @contextlib.asynccontextmanager
    async def watch(
        self, account_id: str, query: str | None = None, **options: Any
    ) -> AsyncIterator[ClientConnection]:
        if query is None:
            query = f"ticket={await self.farm.ticket(account_id)}"
        url = f"ws://127.0.0.1:{self.port}/ws/account/{account_id}?{query}"
        async with connect(url, max_size=None, **options) as client:
            yield client


async def receive(client: ClientConnection) -> dict[str, Any]:
    """The next message."""
    async with asyncio.timeout(10):
        return json.loads(await client.recv())  # type: ignore[no-any-return]


async def receive_until(
    client: ClientConnection, wanted: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Messages up to the first that is wanted, which is the last of them."""
    taken = [await receive(client)]
    while not wanted(taken[-1]):
        taken.append(await receive(client))
    return taken


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that has no event, bounded."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


T = TypeVar("T")


async def eventually(read: Callable[[], Awaitable[T]], wanted: Callable[[T], bool]) -> T:
    """What is read when it is what is wanted, bounded."""
    async with asyncio.timeout(10):
        while not wanted(value := await read()):
            await asyncio.sleep(0.01)
    return value


@pytest.fixture
async def farm(redis_url: str) -> AsyncIterator[Farm]:
    redis = open_redis(redis_url)
    yield Farm(redis)
    await redis.aclose()


@contextlib.asynccontextmanager
async def running(
    farm: Farm,
    redis_url: str,
    instance_id: str,
    *,
    ws_max_size: int = LARGEST_CLIENT_MESSAGE,
    supervisors: Callable[[], Supervisors] = lambda: Supervisors(0, None),
    **changes: Any,
) -> AsyncIterator[Replica]:
    """A replica from its start to its end."""
    options: dict[str, Any] = {
        "rules": SessionRules(instance_id),
        "origins": frozenset({ORIGIN}),
        "lease_interval_s": 0.02,
        "terminals": FakeTerminals(farm.terminals),
        "supervisors": supervisors(),
        # Every test begins with an empty Redis.
        "settle_s": 0.0,
    }
    wiring = Wiring(
        redis=open_redis(redis_url),
        registry=CollectorRegistry(),
        credentials=farm.credentials,
        brokers=Brokers({}, DEFAULT_RULE),
        verifier=changes.pop("verifier", FakeVerifier()),
        **(options | changes),
    )
    context = StreamContext.wired(wiring)
    config = uvicorn.Config(
        create_app(context),
        ws=AbortableProtocol,
        ws_per_message_deflate=False,
        ws_max_size=ws_max_size,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    # Signals are the test runner's.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    serving = asyncio.create_task(server.serve(sockets=[listener("127.0.0.1", 0)]))
    await until(lambda: server.started)
    try:
        yield Replica(context, farm, server)
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def replica(farm: Farm, redis_url: str) -> AsyncIterator[Replica]:
    """One replica that holds every terminal."""
    async with running(farm, redis_url, "ws-1") as one:
        await until(lambda: len(one.context.keeper.held) == len(farm.terminals))
        yield one
