"""Speaking to nginx as a client does, down to the bytes."""

import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

# Whatever holds a secret holds this, and no log may.
SECRET = "hush-3f9c"
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The one header of a name, None without it."""
        found = [value for key, value in self.headers if key.lower() == name]
        assert len(found) <= 1, (name, found)
        return found[0] if found else None

    def json(self) -> dict[str, Any]:
        """The body."""
        told: dict[str, Any] = json.loads(self.body)
        return told


def trusting(**options: Any) -> ssl.SSLContext:
    """Settings that take any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name, value in options.items():
        setattr(context, name, value)
    return context


@contextmanager
def connected(address: tuple[str, int], context: ssl.SSLContext | None) -> Iterator[socket.socket]:
    """A connection, with TLS where there is a context for it."""
    with socket.create_connection(address, PATIENCE_S) as plain:
        if context is None:
            yield plain
            return
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            yield secure


def exchange(
    address: tuple[str, int], sent: bytes, *, tls: bool = True, method: str = "GET"
) -> Answer:
    """What nginx answers to these bytes."""
    with connected(address, trusting() if tls else None) as connection:
        connection.sendall(sent)
        response = HTTPResponse(connection, method=method)
        response.begin()
        body = response.read()
        return Answer(response.status, response.getheaders(), body)


def request(
    target: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> bytes:
    """A request with a key, after which the connection is closed."""
    sent = {"Host": "swarm.test", "Connection": "close", "X-API-Key": SECRET, **(headers or {})}
    if body:
        sent.setdefault("Content-Length", str(len(body)))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def refused(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """The body of a refusal, which has the shape of all failures."""
    assert answer.status == status, answer
    told = answer.json()
    assert list(told) == ["success", "error", "code", "details", "retry_after_s", "request_id"]
    assert (told["success"], told["code"]) == (False, code)
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id") == told["request_id"]
    after = told["retry_after_s"]
    assert answer.header("retry-after") == (None if after is None else str(after))
    return told
