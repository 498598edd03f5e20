"""What every HTTP request passes through: id, size limit, measurement, one log line."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog
from fastapi import APIRouter
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mt5kit.errors import InternalFault, PayloadTooLarge, ServiceOverloaded
from mt5kit.telemetry.errors_http import CODE_KEY, failure_response
from mt5kit.telemetry.http_metrics import HttpMetrics
from mt5kit.telemetry.logs import line_loggers
from mt5kit.telemetry.request_ids import request_id_of

log = structlog.get_logger(__name__)

# Our largest honest body is a connect request of a few hundred bytes (contracts §1).
MAX_BODY_BYTES: Final = 64 * 1024
# Read and thrown away, so that the sender of a body too large still reads our answer.
MAX_DRAINED_BYTES: Final = 32 * 1024 * 1024
_TURN_KEY = "mt5.turn"
# Where routes leave what the hook is told.
ACCOUNT_KEY: Final = "mt5.account_id"
USER_KEY: Final = "mt5.user_id"
HEADERS_KEY: Final = "mt5.headers"


class Answered(msgspec.Struct, frozen=True):
    """One request as it ended.

    Attributes:
        request_id: Its id.
        method: As it was sent.
        route: The template of its path, `unmatched` without one.
        status: 0 if no answer was begun.
        code: The failure's code, None for a success.
        turn: Whether it waited for a terminal turn.
        elapsed_ms: From its arrival to the end of its answer.
        account_id: The account it named, if its route knows.
        user_id: The end user it named, if its route knows.
    """

    request_id: str
    method: str
    route: str
    status: int
    code: str | None
    turn: bool
    elapsed_ms: float
    account_id: str | None
    user_id: UUID | None


def mark_turn(request: Request) -> None:
    """Note that this request waited for a terminal turn: the `turn` label of its metric."""
    mark_turn_of(request.scope)


def mark_turn_of(scope: Scope) -> None:
    """The same where there is a scope and no `Request`."""
    scope[_TURN_KEY] = "yes"


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The request's headers by name; of one that was sent twice, the last."""
    headers: dict[bytes, bytes] | None = scope.get(HEADERS_KEY)
    return dict(scope["headers"]) if headers is None else headers


class Envelope:
    """ASGI middleware around a whole app; put it outermost.

    It gives each request its id (`X-Request-ID`, accepted or made), reads the body up to the
    limit, measures, logs one line without the query string, and turns whatever nobody caught
    into a 500 that tells nothing.

    Args:
        app: What answers.
        metrics: Where requests are counted.
        on_answer: Told of every request when it has ended; must not block.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: HttpMetrics,
        on_answer: Callable[[Answered], None] | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._on_answer = on_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        bound = structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        self._metrics.running += 1
        try:
            await self._answer(exchange, receive)
        finally:
            self._metrics.running -= 1
            self._record(exchange)
            structlog.contextvars.reset_contextvars(**bound)

    async def _answer(self, exchange: "_Exchange", receive: Receive) -> None:
        try:
            if exchange.may_have_body:
                receive = _replay(await _read_body(receive), receive)
            await self._app(exchange.scope, receive, exchange.send)
        except _ClientGone:
            log.info("client_gone")
        except PayloadTooLarge as too_large:
            await exchange.fail(failure_response(too_large, exchange.request_id))
        except asyncio.CancelledError:
            stopping = ServiceOverloaded("this replica is stopping; ask again")
            await exchange.fail(failure_response(stopping, exchange.request_id))
            raise
        except Exception:
            log.exception("unhandled_fault", path=exchange.scope["path"])
            fault = InternalFault("unhandled")
            await exchange.fail(failure_response(fault, exchange.request_id))

    def _record(self, exchange: "_Exchange") -> None:
        elapsed_s = time.perf_counter() - exchange.began
        scope, status = exchange.scope, exchange.status
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"]
        label = method if route != "unmatched" else "any"
        turn = scope.get(_TURN_KEY, "no")
        self._metrics.observe(label, route, status, turn, elapsed_s)
        elapsed_ms = elapsed_s * 1000
        told = {
            "method": method,
            "route": route,
            "status": status,
            "ms": round(elapsed_ms, 1),
            "turn": turn,
        }
        lines = line_loggers()
        if lines is None:
            log.info("request", **told)
        else:
            lines.inform({**told, "event": "request", "request_id": exchange.request_id})
        if self._on_answer is not None:
            answered = Answered(
                exchange.request_id,
                method,
                route,
                status,
                scope.get(CODE_KEY),
                turn == "yes",
                elapsed_ms,
                scope.get(ACCOUNT_KEY),
                scope.get(USER_KEY),
            )
            self._tell(self._on_answer, answered)

    def _tell(self, on_answer: Callable[[Answered], None], answered: Answered) -> None:
        try:
            on_answer(answered)
        except Exception:
            # The answer is out; only its record is lost.
            log.exception("answer_not_recorded")


class _Exchange:
    """One request and what has been answered to it so far."""

    __slots__ = ("_send", "began", "may_have_body", "request_id", "scope", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.began = time.perf_counter()
        self.scope = scope
        self.status = 0
        headers = dict(scope["headers"])
        self.request_id = request_id_of(headers.get(b"x-request-id"))
        # Without either header HTTP/1 knows no body; other methods are rare and read in any case.
        self.may_have_body = (
            scope["method"] != "GET"
            or b"content-length" in headers
            or b"transfer-encoding" in headers
        )
        scope["mt5.request_id"] = self.request_id
        scope[HEADERS_KEY] = headers
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode()),
            ]
        await self._send(message)

    async def fail(self, response: Response) -> None:
        """Answer with a failure, unless an answer has begun: then only the log tells."""
        if self.status == 0:
            await response(self.scope, _nothing, self.send)


class _ClientGone(Exception):
    """The client hung up before its request was whole."""


async def _read_body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _ClientGone
        size += len(message.get("body", b""))
        if size <= MAX_BODY_BYTES:
            chunks.append(message.get("body", b""))
        if not message.get("more_body", False) or size > MAX_DRAINED_BYTES:
            break
    if size > MAX_BODY_BYTES:
        raise PayloadTooLarge(
            f"the body is larger than {MAX_BODY_BYTES} bytes", details={"limit": MAX_BODY_BYTES}
        )
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def service_routes(
    registry: CollectorRegistry, readiness: Callable[[], Awaitable[Mapping[str, Any]]]
) -> APIRouter:
    """`/health/live`, `/health/ready` and `/metrics` (contracts §5).

    Args:
        registry: The metrics of this app.
        readiness: Details of dependencies and terminals; `draining: True` makes it a 503.
    """
    # A `_created` series beside every counter and histogram doubles the page for nothing.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
    router = APIRouter()

    @router.get("/health/live", include_in_schema=False)
    async def live() -> Response:
        return JSONResponse({"status": "ok"})

    @router.get("/health/ready", include_in_schema=False)
    async def ready() -> Response:
        details = await readiness()
        draining = bool(details.get("draining"))
        status = "draining" if draining else "ok"
        return JSONResponse({"status": status, **details}, 503 if draining else 200)

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    return router
