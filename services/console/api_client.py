"""The public REST API, as the console uses it."""

from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
import msgspec

from console.settings import ConsoleSettings
from mt5kit.domain.accounts import AccountInfo
from mt5kit.domain.trades import Order, Position

T = TypeVar("T")

# Longer than a terminal turn in a full pool; a person waits no longer for a page.
TIMEOUT_S: Final = 35.0
_OK = 200


class Problem(msgspec.Struct, frozen=True):
    """Something a person should know: a sentence, and the code to look it up by."""

    message: str
    code: str


class ApiFailure(Exception):
    """The API refused, or did not answer.

    Args:
        problem: What it said.
        retry_after_s: Seconds after which asking again makes sense.
    """

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.code}: {problem.message}")
        self.problem = problem
        self.retry_after_s = retry_after_s


class AccountEntry(msgspec.Struct, frozen=True):
    """An account in the list of a user."""

    account_id: str
    login: int
    server: str
    state: str


class AccountDetail(msgspec.Struct, frozen=True):
    """One account's state, since when (ISO-8601 UTC), and why."""

    account_id: str
    login: int
    server: str
    state: str
    since: str
    last_error: Problem | None = None


class Meta(msgspec.Struct, frozen=True):
    """Where an answer comes from; `as_of` is ISO-8601 UTC."""

    terminal_id: str
    instance_id: str
    source: str
    as_of: str


class Reading(msgspec.Struct, frozen=True):
    """Account, positions and orders of one terminal turn."""

    account: AccountInfo
    positions: tuple[Position, ...]
    orders: tuple[Order, ...]
    meta: Meta


class _Accounts(msgspec.Struct, frozen=True):
    accounts: tuple[AccountEntry, ...]


class _Account(msgspec.Struct, frozen=True):
    account: AccountDetail


class _Assigned(msgspec.Struct, frozen=True):
    websocket_url: str


class _Failure(msgspec.Struct, frozen=True):
    error: str
    code: str
    retry_after_s: float | None = None


class ApiClient:
    """Asks the API. Every method raises `ApiFailure`; an async context manager closes it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    @classmethod
    def from_settings(cls, settings: ConsoleSettings) -> Self:
        """A client with the console's own key."""
        key = settings.api_key.get_secret_value()
        # The API is a neighbour: a proxy of the environment would only receive the key.
        return cls(
            httpx.AsyncClient(
                base_url=settings.api_url,
                headers={"X-API-Key": key},
                timeout=TIMEOUT_S,
                trust_env=False,
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def accounts(self, user_id: UUID) -> tuple[AccountEntry, ...]:
        """The accounts of a user."""
        return (await self._ask("GET", "/api/mt5/accounts", user_id, _Accounts)).accounts

    async def account(self, user_id: UUID, account_id: str) -> AccountDetail:
        """The state an account is in."""
        return (await self._ask("GET", _path(account_id), user_id, _Account)).account

    async def reading(self, user_id: UUID, account_id: str) -> Reading:
        """What the terminal shows, at the API's default freshness."""
        return await self._ask("GET", f"{_path(account_id)}/snapshot", user_id, Reading)

    async def assign(self, user_id: UUID, account_id: str) -> str:
        """A WebSocket address with a single-use ticket in it."""
        body = {"account_id": account_id, "user_id": str(user_id)}
        assigned = await self._ask("POST", "/api/ws/assign", user_id, _Assigned, body)
        return assigned.websocket_url

    async def _ask(
        self, method: str, path: str, user_id: UUID, kind: type[T], body: object = None
    ) -> T:
        headers = {"X-User-ID": str(user_id)}
        try:
            answer = await self._http.request(method, path, headers=headers, json=body)
        except httpx.TransportError as fault:
            unreachable = Problem("The API does not answer; trying again.", "API_UNREACHABLE")
            raise ApiFailure(unreachable) from fault
        try:
            if answer.status_code == _OK:
                return msgspec.json.decode(answer.content, type=kind)
            failure = msgspec.json.decode(answer.content, type=_Failure)
        except msgspec.DecodeError as strange:
            text = f"The API gave an answer that is not understood (HTTP {answer.status_code})."
            raise ApiFailure(Problem(text, "API_NOT_UNDERSTOOD")) from strange
        raise ApiFailure(Problem(failure.error, failure.code), failure.retry_after_s)


def _path(account_id: str) -> str:
    return f"/api/mt5/account/{quote(account_id, safe='')}"
