"""Requests to a cluster as nginx would spread them: from replica to replica, none repeated."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Self

import httpx
from tests.cluster import Cluster, ClusterAccount
from tests.replica import Replica

# Beyond what a replica may take to answer, so that only one that is gone is given up.
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request.

    Attributes:
        replica: Which was asked.
        account: Whose.
        status: None when no whole answer came, and then `body` says why as `transport`.
        body: The JSON.
        headers: Of the answer.
        asked_ms: Epoch milliseconds when the request was sent.
        answered_ms: And when its answer was there.
    """

    replica: str
    account: ClusterAccount
    status: int | None
    body: dict[str, Any]
    headers: Mapping[str, str]
    asked_ms: int
    answered_ms: int

    @property
    def ok(self) -> bool:
        """Whether it is a 200."""
        return self.status == httpx.codes.OK

    @property
    def code(self) -> str:
        """`ok`, the failure's code, or the name of what happened to the connection."""
        return "ok" if self.ok else str(self.body.get("code") or self.body["transport"])


class ClusterClient:
    """Sends each request to the next replica on the list, whether that answers or not.

    Args:
        cluster: Where to.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._turns = count()
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT_S, limits=httpx.Limits(max_connections=None)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def read(
        self,
        account: ClusterAccount,
        what: str = "info",
        *,
        replica: Replica | None = None,
        request_id: str | None = None,
        params: Mapping[str, str | int] | None = None,
    ) -> Answer:
        """Read `what` (`info`, `positions`, …) of an account, once.

        Args:
            account: Whose.
            what: The end of the path.
            replica: Which to ask instead of the next.
            request_id: To be known by in the logs.
            params: `max_age_ms`, `fresh` and so on.
        """
        asked = replica or await self.next_replica()
        headers = account.headers() | ({"X-Request-ID": request_id} if request_id else {})
        url = f"{asked.url}/api/mt5/account/{account.account_id}/{what}"
        asked_ms = now_ms()
        status: int | None = None
        try:
            answer = await self._client.get(url, headers=headers, params=params)
            status, body, got = answer.status_code, answer.json(), dict(answer.headers)
        except httpx.TransportError as failure:
            body, got = {"transport": type(failure).__name__}, {}
        return Answer(asked.name, account, status, body, got, asked_ms, now_ms())

    async def connect(self, account: ClusterAccount) -> Answer:
        """Connect an account, once."""
        return await self._post(account, "/api/mt5/connect", account.connect_body())

    async def assign(self, account: ClusterAccount) -> Answer:
        """Ask for a ticket for a socket that watches an account, once."""
        body = {"account_id": account.account_id, "user_id": str(account.user_id)}
        return await self._post(account, "/api/ws/assign", body)

    async def _post(self, account: ClusterAccount, path: str, body: dict[str, Any]) -> Answer:
        asked = await self.next_replica()
        asked_ms = now_ms()
        answer = await self._client.post(asked.url + path, json=body, headers=account.headers())
        heard = answer.json(), dict(answer.headers)
        return Answer(asked.name, account, answer.status_code, *heard, asked_ms, now_ms())

    async def next_replica(self) -> Replica:
        """The replica whose turn it is; waits while there is none."""
        while not (listed := self._cluster.listed):
            await asyncio.sleep(0.01)
        return listed[next(self._turns) % len(listed)]


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000
