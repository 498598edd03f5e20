"""A public API that tests play upon: accounts, tickets, and streams in the contracts' words."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from mt5kit.domain.instants import iso_utc, now_ms

USER = UUID("11111111-1111-4111-8111-111111111111")
API_KEY = "service-key-of-the-console"

Json = dict[str, Any]


def position(ticket: int, *, symbol: str = "EURUSD", profit: float = 0.0) -> Json:
    times = dict.fromkeys(("time", "time_msc", "time_update", "time_update_msc"), 1)
    return {
        **times, "ticket": ticket, "type": ticket % 2, "magic": 0, "identifier": ticket,
        "reason": 0, "volume": 0.5 + ticket % 3, "price_open": 1.08345, "sl": 0.0, "tp": 1.1,
        "price_current": 1.0835 + profit / 1e5, "swap": -1.25, "profit": profit, "symbol": symbol,
        "comment": "", "external_id": "", "time_utc": None,
    }  # fmt: skip


def order(ticket: int) -> Json:
    times = ("time_setup", "time_setup_msc", "time_done", "time_done_msc", "time_expiration")
    zeros = ("type_time", "type_filling", "state", "magic", "position_id", "position_by_id",
             "reason", "price_stoplimit")  # fmt: skip
    return {
        **dict.fromkeys((*times, *zeros), 0), "ticket": ticket, "type": 2, "volume_initial": 1.0,
        "volume_current": 1.0, "price_open": 1.07, "sl": 0.0, "tp": 0.0, "price_current": 1.0835,
        "symbol": "GBPUSD", "comment": "", "external_id": "",
    }  # fmt: skip


def account_info(login: int, balance: float) -> Json:
    amounts = ("credit", "profit", "margin_initial", "margin_maintenance", "assets",
               "liabilities", "commission_blocked")  # fmt: skip
    return {
        **dict.fromkeys(amounts, 0.0), "login": login, "trade_mode": 0, "leverage": 100,
        "limit_orders": 200, "margin_so_mode": 0, "trade_allowed": True, "trade_expert": True,
        "margin_mode": 2, "currency_digits": 2, "fifo_close": False, "balance": balance,
        "equity": balance, "margin": 500.0, "margin_free": balance - 500.0,
        "margin_level": balance / 5, "margin_so_call": 50.0, "margin_so_so": 30.0,
        "name": f"Holder of {login}", "server": "Fake-Demo", "currency": "USD", "company": "Fake",
    }  # fmt: skip


@dataclass
class FakeAccount:
    """One account, its line, and the sockets that follow it."""

    account_id: str
    info: Json
    positions: list[Json] = field(default_factory=list)
    orders: list[Json] = field(default_factory=list)
    state: str = "connected"
    last_error: Json | None = None
    epoch: int = 1700000000000000
    seq: int = 0
    sockets: list[WebSocket] = field(default_factory=list)
    heard: list[Any] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)

    def frame(self, kind: str, data: Json, *, advance: bool = True) -> Json:
        self.seq += advance
        return {
            "type": kind, "account_id": self.account_id, "epoch": self.epoch, "seq": self.seq,
            "ts": iso_utc(now_ms()), "data": data,
        }  # fmt: skip

    def snapshot(self) -> Json:
        status = {"state": self.state, "reason": None}
        data = {"account": self.info, "positions": self.positions, "orders": self.orders}
        return self.frame("snapshot", {**data, "status": status}, advance=False)

    async def tell(self, kind: str, data: Json) -> None:
        frame = self.frame(kind, data)
        for watcher in list(self.sockets):
            await watcher.send_json(frame)

    async def aside(self, state: str, reason: str | None) -> None:
        """A `status` that is about the connections and has no number of its own."""
        frame = self.frame("status", {"state": state, "reason": reason}, advance=False)
        for watcher in list(self.sockets):
            await watcher.send_json(frame)

    async def move(self, profit: float) -> None:
        """Every position's profit becomes this; equity follows."""
        self.positions = [
            {**held, "profit": profit, "price_current": 1.0835 + profit / 1e5}
            for held in self.positions
        ]
        floating = profit * len(self.positions)
        changed = {"profit": floating, "equity": self.info["balance"] + floating}
        self.info = {**self.info, **changed}
        await self.tell("position_update", {"positions": self.positions})
        await self.tell("account_update", {"account": changed})


class FakeSwarm:
    """The API and its streams; `base_url` once served."""

    def __init__(self, *accounts: FakeAccount) -> None:
        self.accounts = {account.account_id: account for account in accounts}
        self.base_url = ""
        self.assigned = 0
        self.refuse_assign: tuple[int, Json] | None = None
        self.tickets: set[str] = set()
        self.app: ASGIApp = Starlette(
            routes=[
                Route("/api/mt5/accounts", self._list),
                Route("/api/mt5/account/{account_id}", self._state),
                Route("/api/mt5/account/{account_id}/snapshot", self._snapshot),
                Route("/api/ws/assign", self._assign, methods=["POST"]),
                WebSocketRoute("/ws/account/{account_id}", self._stream),
            ]
        )

    def ticket(self) -> str:
        ticket = f"ticket-{len(self.tickets)}-{self.assigned}-{now_ms()}"
        self.tickets.add(ticket)
        return ticket

    async def _list(self, request: Request) -> Response:
        if request.headers["x-api-key"] != API_KEY:
            return _refusal(401, "UNAUTHENTICATED", "the key is not known")
        mine = self.accounts.values() if request.headers["x-user-id"] == str(USER) else ()
        return JSONResponse({"success": True, "accounts": [_entry(account) for account in mine]})

    async def _state(self, request: Request) -> Response:
        account = self.accounts[request.path_params["account_id"]]
        detail = {**_entry(account), "since": iso_utc(0), "last_error": account.last_error}
        return JSONResponse({"success": True, "account": detail})

    async def _snapshot(self, request: Request) -> Response:
        account = self.accounts[request.path_params["account_id"]]
        now = iso_utc(now_ms())
        meta = {"account_id": account.account_id, "terminal_id": "mt5-api-1:8001",
                "instance_id": "api-1", "source": "cache", "as_of": now, "age_ms": 0}  # fmt: skip
        body = {"account": account.info, "positions": account.positions, "orders": account.orders}
        return JSONResponse({"success": True, **body, "meta": meta})

    async def _assign(self, request: Request) -> Response:
        if self.refuse_assign is not None:
            return JSONResponse(self.refuse_assign[1], self.refuse_assign[0])
        self.assigned += 1
        account_id = (await request.json())["account_id"]
        base = self.base_url.replace("http", "ws", 1)
        url = f"{base}/ws/account/{account_id}?ticket={self.ticket()}"
        return JSONResponse({"success": True, "websocket_url": url})

    async def _stream(self, watcher: WebSocket) -> None:
        account = self.accounts[watcher.path_params["account_id"]]
        await watcher.accept()
        query = dict(watcher.query_params)
        account.queries.append(query)
        if query["ticket"] not in self.tickets:
            await watcher.close(4401)
            return
        self.tickets.discard(query["ticket"])
        resumed = query.get("since") == f"{account.epoch}:{account.seq}"
        greeting = {"instance_id": "ws-1", "heartbeat_s": 15, "resumed": resumed,
                    "resume_ticket": self.ticket()}  # fmt: skip
        await watcher.send_json(account.frame("connected", greeting, advance=False))
        if not resumed:
            await watcher.send_json(account.snapshot())
        account.sockets.append(watcher)
        try:
            while True:
                account.heard.append(await watcher.receive_json())
                await watcher.send_json(account.snapshot())
        except WebSocketDisconnect:
            account.sockets.remove(watcher)


def _entry(account: FakeAccount) -> Json:
    info = account.info
    return {"account_id": account.account_id, "login": info["login"], "server": info["server"],
            "state": account.state}  # fmt: skip


def _refusal(status: int, code: str, error: str) -> Response:
    return JSONResponse({"success": False, "error": error, "code": code}, status)


def demo_swarm() -> FakeSwarm:
    """Two accounts: one with positions and an order, one with nothing."""
    first = FakeAccount(
        "demo-1", account_info(5000001, 50_000.0), [position(101), position(102)], [order(201)]
    )
    return FakeSwarm(first, FakeAccount("demo-2", account_info(5000002, 1234.5)))


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """The app on a free port of 127.0.0.1; its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_config=None, access_log=False, ws="websockets-sansio", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()
