"""The control API: plain HTTP from a thread of its own for each connection."""

from __future__ import annotations

import json
import re
import time
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Any, Callable, Protocol
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from terminal.supervisor.events import tell
from terminal.supervisor.logs import MOST_LINES
from terminal.supervisor.settings import Refused

if TYPE_CHECKING:
    from terminal.supervisor.member import Member
    from terminal.supervisor.settings import Settings

MOST_BODY_BYTES = 64 * 1024
"""Of a request: no route needs any."""
# A client must be the one who closes an idle connection; those in Python keep one for 5 s.
_KEEP_ALIVE_S = 75.0
_MOST_CONNECTIONS = 64
_LOOK_S = 0.05
_RETRY_S = 5
_UNAVAILABLE = 503
_CODES = {
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "PAYLOAD_TOO_LARGE",
    422: "INVALID_PARAMETERS",
    503: "TERMINAL_UNAVAILABLE",
}
_ROUTES = (
    ("GET", re.compile(r"/health/live"), "live"),
    ("GET", re.compile(r"/terminals"), "list_terminals"),
    ("POST", re.compile(r"/terminals/([^/]+)/restart"), "restart"),
    ("GET", re.compile(r"/terminals/([^/]+)/logs"), "logs"),
    ("POST", re.compile(r"/drain"), "drain"),
)
_OPEN_PATHS = ("/health/live",)


class Failure(Exception):
    """A request that fails.

    Attributes:
        status: Of the answer.
        details: For programs.
    """

    def __init__(self, status: int, sentence: str, **details: object) -> None:
        super().__init__(sentence)
        self.status = status
        self.details = details


class Fleet(Protocol):
    """What the API needs of the supervisor."""

    members: dict[int, Member]

    def drain(self) -> None:
        """Show running terminals as draining from now on."""


class Routes:
    """What each route does; each returns the answer's fields, or raises `Failure`.

    Args:
        fleet: The terminals.
        restart_s: How long a restart may take.
    """

    def __init__(self, fleet: Fleet, restart_s: float) -> None:
        self._fleet = fleet
        self._restart_s = restart_s

    def live(self, _query: dict[str, list[str]]) -> dict[str, object]:
        """The supervisor answers."""
        return {"status": "ok"}

    def list_terminals(self, _query: dict[str, list[str]]) -> dict[str, object]:
        """All terminals."""
        return {"terminals": [member.row() for member in self._fleet.members.values()]}

    def restart(self, _query: dict[str, list[str]], number: str) -> dict[str, object]:
        """Begin a terminal anew, and wait until it answers."""
        member = self._numbered(number)
        wanted = member.ask_restart()
        deadline = time.monotonic() + self._restart_s
        while member.resets < wanted or not member.serving:
            if time.monotonic() > deadline:
                raise Failure(_UNAVAILABLE, f"Terminal {number} did not start again in time.")
            time.sleep(_LOOK_S)
        return {"terminal": member.row()}

    def logs(self, query: dict[str, list[str]], number: str) -> dict[str, object]:
        """The newest lines of a terminal's log."""
        member = self._numbered(number)
        lines = query.get("lines", ["100"])[-1]
        if not (lines.isascii() and lines.isdigit() and 1 <= int(lines) <= MOST_LINES):
            said = f"A parameter is not valid: lines: a whole number from 1 to {MOST_LINES}."
            raise Failure(422, said, fields=["query.lines"])
        return {"logs": member.log.last(int(lines))}

    def drain(self, _query: dict[str, list[str]]) -> dict[str, object]:
        """Show running terminals as draining."""
        self._fleet.drain()
        return {"draining": True}

    def _numbered(self, number: str) -> Member:
        if not (number.isascii() and number.isdigit()):
            said = "A parameter is not valid: number: a whole number."
            raise Failure(422, said, fields=["path.number"])
        member = self._fleet.members.get(int(number))
        if member is None:
            raise Failure(404, f"There is no terminal {int(number)}.")
        return member


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = _KEEP_ALIVE_S
    # Head and body leave together, and wait for no acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True
    routes: Routes
    key: str

    def do_GET(self) -> None:
        """Answer a request."""
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET  # noqa: N815 - its own

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - overrides
        """Requests are not told."""

    def version_string(self) -> str:
        """Say nothing of what runs here."""
        return "supervisor"

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is no HTTP gets our shape too."""
        del explain
        self.close_connection = True
        self._send(code if code in _CODES else 422, _failed(code, message or "A bad request."))

    def _answer(self) -> None:
        try:
            self._read_body()
            self._check_key()
            status, body = 200, {"success": True, **self._route()}
        except Failure as failure:
            status, body = failure.status, _failed(failure.status, str(failure), failure.details)
        except Exception as fault:  # noqa: BLE001 - whoever asks gets an answer in our shape
            tell("request_failed", "error", error=repr(fault))
            status, body = 500, _failed(500, "Something went wrong in the supervisor.")
        self._send(status, body)

    def _route(self) -> dict[str, object]:
        path = urlsplit(self.path)
        others = []
        for method, pattern, name in _ROUTES:
            match = pattern.fullmatch(path.path)
            if match and method == self.command:
                act: Callable[..., dict[str, object]] = getattr(self.routes, name)
                return act(parse_qs(path.query), *match.groups())
            if match:
                others.append(method)
        if others:
            raise Failure(405, "Method Not Allowed")
        raise Failure(404, "Not Found")

    def _check_key(self) -> None:
        given = self.headers.get("X-Supervisor-Key", "")
        right = compare_digest(given.encode("utf-8", "replace"), self.key.encode())
        if not right and urlsplit(self.path).path not in _OPEN_PATHS:
            raise Failure(401, "The header X-Supervisor-Key is missing or wrong.")

    def _read_body(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            self.close_connection = True
            raise Failure(422, "A request's body has to say its length.")
        if int(length) > MOST_BODY_BYTES:
            self.close_connection = True
            raise Failure(413, f"A request's body has at most {MOST_BODY_BYTES} bytes.")
        self.rfile.read(int(length))

    def _send(self, status: int, body: dict[str, object]) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        if status == _UNAVAILABLE:
            self.send_header("Retry-After", str(_RETRY_S))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(encoded)


def _failed(status: int, sentence: str, details: object = None) -> dict[str, object]:
    return {
        "success": False,
        "error": sentence,
        "code": _CODES.get(status, "INTERNAL"),
        "details": details or {},
        "retry_after_s": _RETRY_S if status == _UNAVAILABLE else None,
        "request_id": uuid4().hex,
    }


class _Server(ThreadingHTTPServer):
    """Threads, but not without end."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[Handler]) -> None:
        self._free = BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Give a connection a thread, or close it when there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Serve one connection, and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone in the middle of its answer is nobody's fault."""


def serve_api(fleet: Fleet, settings: Settings) -> ThreadingHTTPServer:
    """Listen, and serve in a thread until `shutdown` is called on what is returned.

    Raises:
        Refused: The port cannot be had.
    """
    routes = Routes(fleet, settings.timing.restart_s)
    handler = type("KeyedHandler", (Handler,), {"routes": routes, "key": settings.key})
    try:
        server = _Server((settings.host, settings.control_port), handler)
    except OSError as error:
        where = f"{settings.host}:{settings.control_port}"
        raise Refused(f"cannot listen on {where}: {error.strerror}") from error
    Thread(target=server.serve_forever, name="control-api", daemon=True).start()
    tell("control_api", port=settings.control_port)
    return server
