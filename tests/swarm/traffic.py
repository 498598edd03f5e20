"""Clients of a deployed stack: they read, they watch, and note what they get."""

import asyncio
import itertools
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.cluster_plan import ClusterAccount
from tests.swarm.deployed import ORIGIN, Deployed
from tests.watch_judge import Mirror
from tests.watch_ledger import Ledger
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.typing import Origin

WS_ORIGIN = ORIGIN.replace("https", "wss")
READS = ("info", "positions", "orders", "snapshot")
# Of a new try after a refusal, or after the end of a stream.
PAUSE_S = (0.05, 0.3)
HANDSHAKE_S = 10.0


@dataclass(frozen=True, slots=True)
class Read:
    """What became of a request."""

    at: float
    account_id: str
    what: str
    status: int
    code: str
    ms: float
    instance: str


@dataclass
class Notes:
    """What all clients together got.

    Attributes:
        reads: Every request.
        wrong: Each breach of a promise, as a sentence.
        ledger: What the watchers saw.
        returns: How often a watcher came back, and how it was received.
        first_epochs: `epochs` when all watchers had their first state.
    """

    reads: list[Read] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    returns: Counter[str] = field(default_factory=Counter)
    first_epochs: int = 0

    @property
    def epochs(self) -> int:
        """How often an open socket went on in another epoch."""
        return self.ledger.counts["new epoch on an open socket"]

    @property
    def new_epochs(self) -> int:
        """The same since traffic flows: a line that was broken off, and began anew."""
        return self.epochs - self.first_epochs

    @property
    def failures(self) -> list[Read]:
        """Requests without a good answer."""
        return [read for read in self.reads if read.status != httpx.codes.OK]

    def breaches(self) -> list[str]:
        """What must never be, whatever was done to the stack."""
        return [*self.wrong, *self.ledger.wrong, *self.ledger.overlaps()]


class Watch:
    """Watches one account, and comes back when its stream ends, as our own clients do."""

    def __init__(self, traffic: "Traffic", account: ClusterAccount) -> None:
        self.account = account
        self.mirror = Mirror(
            account.account_id, account.login, traffic.notes.ledger, f"watch-{account.account_id}"
        )
        self.heard_at = 0.0
        self._opened: ClientConnection | None = None
        self._traffic = traffic
        self._chance = random.Random(account.account_id)

    @property
    def well(self) -> bool:
        """Whether it has the account's state and is told that all is well."""
        return self.mirror.account is not None and self.mirror.status["state"] == "connected"

    async def run(self) -> None:
        """Come and come back, until cancelled."""
        while True:
            await self._visit()
            await asyncio.sleep(self._chance.uniform(*PAUSE_S))

    def cut(self) -> None:
        """Lose the connection, as a client does that moves from one network to another."""
        if self._opened is not None:
            self._opened.transport.abort()

    async def _visit(self) -> None:
        since = self.mirror.since
        ticket = await self._ticket()
        if ticket is None:
            return
        query = f"ticket={ticket}" + (f"&since={since[0]}:{since[1]}" if since else "")
        returns = self._traffic.notes.returns
        try:
            opened = await connect(
                f"{WS_ORIGIN}/ws/account/{self.account.account_id}?{query}",
                ssl=self._traffic.trust,
                origin=Origin(ORIGIN),
                compression=None,
                max_size=None,
                open_timeout=HANDSHAKE_S,
                proxy=None,
            )
        except (OSError, TimeoutError, InvalidHandshake, InvalidMessage) as failure:
            returns[f"handshake: {failure}"] += 1
            return
        before = self.mirror.resumed
        self._opened = opened
        self.mirror.begin("nginx", since)
        try:
            async with opened:
                while True:
                    message = self.mirror.hear(await opened.recv(decode=False))
                    self.heard_at = time.monotonic()
                    if message.type == "connected" and since is not None:
                        resumed = self.mirror.resumed > before
                        returns["resumed" if resumed else "with a snapshot"] += 1
        except ConnectionClosed as closed:
            returns[f"closed: {closed.rcvd.code if closed.rcvd else 1006}"] += 1

    async def _ticket(self) -> str | None:
        kept, self.mirror.resume_ticket = self.mirror.resume_ticket, None
        if kept is not None:
            return kept
        body = {"account_id": self.account.account_id, "user_id": str(self.account.user_id)}
        try:
            answer = await self._traffic.client.post("/api/ws/assign", json=body)
        except httpx.TransportError as failure:
            self._traffic.notes.returns[f"assign: {type(failure).__name__}"] += 1
            return None
        if answer.is_success:
            return str(answer.json()["ticket"])
        self._traffic.notes.returns[f"assign: {answer.json()['code']}"] += 1
        return None


class Writer:
    """Connects and disconnects accounts by turns, and knows what was acknowledged last.

    Args:
        traffic: Whose client it uses.
        accounts: Which nobody else touches.

    Attributes:
        acknowledged: What each account was last said to be.
        refused: Every try that was not acknowledged.
    """

    def __init__(self, traffic: "Traffic", accounts: Sequence[ClusterAccount]) -> None:
        self.acknowledged: dict[str, str] = {}
        self.count = 0
        self.refused: list[str] = []
        self._traffic = traffic
        self._accounts = accounts
        self._over = False

    async def run(self) -> None:
        """Until `finish`; what was not acknowledged is tried until it is."""
        for account in itertools.cycle(self._accounts):
            if self._over:
                return
            was = self.acknowledged.get(account.account_id)
            wanted = "disconnected" if was == "connected" else "connected"
            # What is on its way may happen or not, whatever we are told.
            self.acknowledged.pop(account.account_id, None)
            while not await self._set(account, wanted):
                await asyncio.sleep(0.2)
            self.acknowledged[account.account_id] = wanted
            self.count += 1

    def finish(self) -> None:
        """End after the change that is under way."""
        self._over = True

    async def _set(self, account: ClusterAccount, wanted: str) -> bool:
        body: dict[str, object] = {"account_id": account.account_id}
        path = "/api/mt5/disconnect"
        if wanted == "connected":
            path, body = "/api/mt5/connect", account.connect_body()
        headers = {"X-User-ID": str(account.user_id)}
        try:
            answer = await self._traffic.client.post(path, json=body, headers=headers)
        except httpx.TransportError as failure:
            self.refused.append(f"{path}: {failure!r}")
            return False
        if not answer.is_success:
            self.refused.append(f"{path}: {answer.status_code} {answer.text}")
        # One that was carried out although nobody said so is a conflict when it is repeated.
        return answer.is_success or (wanted == "disconnected" and answer.status_code == 409)


class Traffic:
    """Readers and watchers of some accounts of a deployed stack.

    Args:
        deployed: The stack.
        api_key: Of its callers.
        accounts: Connected already.
    """

    def __init__(
        self, deployed: Deployed, api_key: str, accounts: Sequence[ClusterAccount]
    ) -> None:
        self.notes = Notes()
        self.trust: ssl.SSLContext = deployed.trust()
        self.client = httpx.AsyncClient(
            base_url=ORIGIN,
            verify=self.trust,
            headers={"X-API-Key": api_key},
            timeout=60.0,
            trust_env=False,
        )
        self.watches = [Watch(self, account) for account in accounts]
        self._accounts = list(accounts)

    @asynccontextmanager
    async def flowing(self, readers: int = 4, pause_s: float = 0.1) -> AsyncIterator["Traffic"]:
        """Traffic for as long as the block lasts; begins when every watcher is well."""
        tasks = [asyncio.create_task(watch.run()) for watch in self.watches]
        try:
            await self.until_well()
            self.notes.first_epochs = self.notes.epochs
            tasks += [asyncio.create_task(self._read(n, readers, pause_s)) for n in range(readers)]
            yield self
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            await self.client.aclose()
            broken = [one for one in outcomes if isinstance(one, Exception)]
            if broken:
                raise broken[0]

    async def until_well(self, patience_s: float = 120.0) -> float:
        """Wait until every watcher is well; how long that took.

        Raises:
            AssertionError: One is not, in time.
        """
        began = time.monotonic()
        while unwell := [one for one in self.watches if not one.well]:
            if time.monotonic() - began > patience_s:
                told = {one.account.account_id: one.mirror.status for one in unwell}
                raise AssertionError(f"not well: {told}, {self.notes.returns}")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def until_good(self, since: float, patience_s: float = 120.0) -> float:
        """Wait until reads and streams of all accounts are good again; seconds since `since`.

        Good is a fresh read of every account through nginx, and a message heard by every watcher
        since then, with the account connected.

        Raises:
            AssertionError: They are not, in time.
        """
        waiting = {account.account_id: account for account in self._accounts}
        last = ""
        while waiting:
            answers = await asyncio.gather(
                *(self.look(one, fresh=True) for one in waiting.values())
            )
            for read in answers:
                if read.status == httpx.codes.OK:
                    waiting.pop(read.account_id, None)
                else:
                    last = f"{read.account_id}: {read.status} {read.code}"
            if waiting and time.monotonic() - since > patience_s:
                raise AssertionError(f"reads are not good: {last}")
            await asyncio.sleep(0.1 if waiting else 0)
        while silent := [one for one in self.watches if not one.well or one.heard_at < since]:
            if time.monotonic() - since > patience_s:
                told = {one.account.account_id: one.mirror.status for one in silent}
                raise AssertionError(f"streams are not good: {told}, {self.notes.returns}")
            await asyncio.sleep(0.05)
        return time.monotonic() - since

    async def owners(self) -> dict[str, str]:
        """Which replica serves each account's turns."""
        reads = [await self.look(watch.account, fresh=True) for watch in self.watches]
        return {read.account_id: read.instance for read in reads}

    async def look(self, account: ClusterAccount, what: str = "info", *, fresh: bool) -> Read:
        """Read once and judge the answer."""
        began = time.monotonic()
        params = {"fresh": "1"} if fresh else {}
        url = f"/api/mt5/account/{account.account_id}/{what}"
        try:
            answer = await self.client.get(
                url, params=params, headers={"X-User-ID": str(account.user_id)}
            )
            status, body = answer.status_code, answer.json()
        except (httpx.TransportError, ValueError) as failure:
            status, body = 0, {"code": type(failure).__name__}
        ms = (time.monotonic() - began) * 1000
        good = status == httpx.codes.OK
        code = "ok" if good else str(body.get("code"))
        instance = str(body["meta"]["instance_id"]) if good else ""
        if good:
            self._judge(account, body)
        return Read(began, account.account_id, what, status, code, ms, instance)

    async def _read(self, number: int, readers: int, pause_s: float) -> None:
        chance = random.Random(number)
        for account in itertools.cycle(self._accounts[number::readers]):
            read = await self.look(account, chance.choice(READS), fresh=chance.random() < 0.05)
            self.notes.reads.append(read)
            await asyncio.sleep(pause_s)

    def _judge(self, account: ClusterAccount, body: dict[str, Any]) -> None:
        if body["meta"]["account_id"] != account.account_id:
            self.notes.wrong.append(f"WRONG ACCOUNT: {body['meta']} for {account.account_id}")
        if "account" in body and body["account"]["login"] != account.login:
            self.notes.wrong.append(
                f"WRONG ACCOUNT: login {body['account']['login']} for {account.account_id}"
            )
