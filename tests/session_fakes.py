"""An account's line by hand, and a uvicorn with real sessions on it, in a thread of its own."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from mt5kit.domain.accounts import AccountState
from mt5kit.state.redis import TicketGrant
from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.diff import Status
from websocket_pool.messages import LARGEST_CLIENT_MESSAGE, Message, Place, encode, parse_since
from websocket_pool.resume import ResumeTicket
from websocket_pool.routes.account import AsgiSocket
from websocket_pool.session import Session, SessionRules
from websocket_pool.source import Ending, Watcher
from websocket_pool.transport import AbortableProtocol, listener

T = TypeVar("T")

RULES = SessionRules("ws-test")


class HandLine:
    """An `AccountSource` that advances when it is told to."""

    def __init__(self) -> None:
        self.place = Place("acc", 7, 0)
        self.status = Status(AccountState.CONNECTED)
        self.ending: Ending | None = None
        self.watchers: list[Watcher] = []
        self.told: list[Message] = []
        self.pad = 0

    def attach(self, watcher: Watcher) -> None:
        self.watchers.append(watcher)

    def detach(self, watcher: Watcher) -> None:
        self.watchers.remove(watcher)

    def snapshot(self, *, conflated: bool = False) -> Message | None:
        data = {"pad": "s" * self.pad, "conflated": conflated}
        return encode("snapshot", self.place, 0, data)

    def replay(self, epoch: int, after_seq: int) -> Sequence[Message] | None:
        if epoch != self.place.epoch or not 0 <= after_seq <= self.place.seq:
            return None
        return self.told[after_seq:]

    def advance(self, size: int = 0, seen_ms: int | None = None) -> None:
        """Tell the next message, with so many bytes of nothing."""
        self.place = Place("acc", self.place.epoch, self.place.seq + 1)
        message = encode("account_update", self.place, 0, {"pad": "x" * size}, changed_ms=seen_ms)
        self.told.append(message)
        self.tell(message)

    def tell(self, message: Message) -> None:
        for watcher in list(self.watchers):
            watcher.deliver(message)


def ticket() -> ResumeTicket:
    return ResumeTicket("r-1", TicketGrant("acc", "user"))


class SessionServer:
    """Serves one line to whoever connects. `ended` counts close codes, by what sessions return.

    Args:
        rules: Times.
        loop_factory: Makes its event loop.
        options: Of uvicorn.
    """

    def __init__(
        self,
        rules: SessionRules = RULES,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        **options: Any,
    ) -> None:
        self.line = HandLine()
        self.sessions: list[Session] = []
        self.ended: Counter[int] = Counter()
        self.registry = CollectorRegistry()
        self._metrics = StreamMetrics(self.registry)
        self._rules = rules
        self._listener = listener("127.0.0.1", 0)
        self._loop_factory = loop_factory
        fixed: dict[str, Any] = {
            "ws": AbortableProtocol,
            "ws_max_size": LARGEST_CLIENT_MESSAGE,
            "ws_per_message_deflate": False,
            "log_config": None,
            "timeout_graceful_shutdown": 2,
            "lifespan": "off",
            "interface": "asgi3",
        }
        self.server = uvicorn.Server(uvicorn.Config(self._app, **(fixed | options)))
        # Signals are the test runner's.
        self.server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        self._thread = threading.Thread(target=self._run)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> tuple[str, int]:
        return self._listener.getsockname()[:2]  # type: ignore[no-any-return]

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def do(self, action: Callable[[], T]) -> T:
        """Call it in the server's loop."""

        async def called() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(10)

    @property
    def transports(self) -> list[asyncio.Transport]:
        """Of all connections, whatever sessions think of them."""
        return self.do(
            lambda: [
                connection.transport
                for connection in self.server.server_state.connections
                if isinstance(connection, WebSocketsSansIOProtocol)
            ]
        )

    def advance(self, size: int = 0) -> None:
        self.do(lambda: self.line.advance(size))

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._ready.set)
        await self.server.serve(sockets=[self._listener])

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        session = Session(AsgiSocket(websocket), self.line, ticket(), self._rules, self._metrics)
        self.sessions.append(session)
        code = await session.run(parse_since(scope["query_string"].decode()))
        self.ended[code] += 1
