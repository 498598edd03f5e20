"""Requests for a read as nearly all of them look, told from those that need judging.

What is accepted here means the same to FastAPI's routes, and nothing that they would refuse is
accepted; a test asks both. Anything else is None: not wrong, only somebody else's to judge.
"""

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from starlette.types import Scope

from mt5kit.telemetry.http import headers_of

_FILTERED: Final = frozenset({"positions", "orders"})
_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_PATH: Final = re.compile(
    r"/api/mt5/account/([A-Za-z0-9_-]{1,64})/(info|positions|orders|snapshot)"
)
# Of the account that X-Account-ID names.
_BY_HEADER: Final = {
    "/api/mt5/account": "info",
    "/api/mt5/positions": "positions",
    "/api/mt5/orders": "orders",
}
_UUID: Final = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Under the longest age there is, whatever the digits.
_AGE: Final = re.compile(rb"max_age_ms=(0|[1-9][0-9]{0,6})")
_FRESH: Final = re.compile(rb"fresh=([01]|true|false)")
_SYMBOL: Final = re.compile(rb"symbol=([A-Za-z0-9._-]{1,64})")
# Users are far fewer within seconds; making a UUID of text costs more than finding it.
MOST_USERS: Final = 4096


@dataclass(frozen=True, slots=True)
class Template:
    """A route's template, as logs and metrics name it."""

    path: str


_TEMPLATES: Final = {
    part: Template(f"/api/mt5/account/{{account_id}}/{part}")
    for part in ("info", "positions", "orders", "snapshot")
}
_HEADER_TEMPLATES: Final = {path: Template(path) for path in _BY_HEADER}


@dataclass(slots=True)
class OrdinaryRead:
    """What a request asks for; `max_age_ms` and `symbol` are None where it does not say."""

    part: str
    route: Template
    user: UUID
    account_id: str
    max_age_ms: int | None = None
    symbol: str | None = None


class OrdinaryRequests:
    """Reads ordinary requests, and remembers the users' UUIDs."""

    def __init__(self) -> None:
        self._users: dict[bytes, UUID] = {}

    def read_in(self, scope: Scope) -> OrdinaryRead | None:
        """What the request of this scope asks for, if it is an ordinary read."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope.get("root_path"):
            return None
        path = scope["path"]
        in_path = _PATH.fullmatch(path)
        part = _BY_HEADER.get(path) if in_path is None else in_path[2]
        if part is None:
            return None
        headers = headers_of(scope)
        # Which of two headers of one name counts, FastAPI decides.
        if len(headers) != len(scope["headers"]):
            return None
        user = self._user(headers.get(b"x-user-id", b""))
        account_id = _account(in_path, headers.get(b"x-account-id"))
        if user is None or account_id is None:
            return None
        route = _HEADER_TEMPLATES[path] if in_path is None else _TEMPLATES[part]
        asked = OrdinaryRead(part, route, user, account_id)
        query: bytes = scope["query_string"]
        return asked if not query or _take_query(query, asked) else None

    def _user(self, text: bytes) -> UUID | None:
        user = self._users.get(text)
        if user is None and _UUID.fullmatch(text):
            if len(self._users) >= MOST_USERS:
                self._users.clear()
            user = self._users[text] = UUID(text.decode("ascii"))
        return user


def _account(in_path: re.Match[str] | None, in_header: bytes | None) -> str | None:
    """The account named in one place; named in both, they may differ."""
    if in_path is not None:
        return None if in_header is not None else in_path[1]
    if in_header is None or not _ID.fullmatch(in_header):
        return None
    return in_header.decode("ascii")


def _take_query(query: bytes, asked: OrdinaryRead) -> bool:
    """Whether every parameter is ordinary and there once."""
    fresh: bool | None = None
    for parameter in query.split(b"&"):
        if asked.max_age_ms is None and (age := _AGE.fullmatch(parameter)):
            asked.max_age_ms = int(age[1])
        elif fresh is None and (wish := _FRESH.fullmatch(parameter)):
            fresh = wish[1] in {b"1", b"true"}
        elif (
            asked.symbol is None
            and asked.part in _FILTERED
            and (symbol := _SYMBOL.fullmatch(parameter))
        ):
            asked.symbol = symbol[1].decode("ascii")
        else:
            return False
    if fresh:
        asked.max_age_ms = 0
    return True
