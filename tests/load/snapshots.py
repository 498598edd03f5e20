"""One look at an account: our link beside mt5linux's own attribute reads."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import msgspec
import rpyc
from mt5linux import MetaTrader5
from prometheus_client import CollectorRegistry
from tests.load.figures import Table

from local_stack.simulator import Simulator
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.secret import Secret
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard
from mt5kit.terminal.connection import Connection
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.link import TerminalLink

SERVER = "Bench-Server"
SYMBOLS = ("EURUSD", "GBPUSD", "XAUUSD", "USDJPY", "BTCUSD", "US30", "AUDUSD", "NDX100")
# (positions, looks by our link, looks by attribute reads): each side runs for some seconds.
SIZES = ((0, 1000, 300), (10, 1000, 60), (100, 500, 15), (500, 200, 5))
# What a program shows of an account and a position; ours always brings all 28 and 19.
INFO_FIELDS = (
    "login", "balance", "equity", "margin", "margin_free", "margin_level", "profit", "currency",
    "leverage",
)  # fmt: skip
POSITION_FIELDS = (
    "ticket", "time", "symbol", "type", "volume", "price_open", "price_current", "profit", "swap",
    "comment",
)  # fmt: skip


def scenario() -> bytes:
    accounts = [
        {
            "login": 7000 + size,
            "password": "bench-pass",
            "server": SERVER,
            "balance": 1_000_000,
            "leverage": 1000,
            "positions": [
                {
                    "symbol": SYMBOLS[number % len(SYMBOLS)],
                    "type": "buy" if number % 2 else "sell",
                    "volume": 0.01,
                    "opened_at": f"2026-01-05T{number // 60:02d}:{number % 60:02d}:00Z",
                }
                for number in range(size)
            ],
        }
        for size, *_ in SIZES
    ]
    return msgspec.json.encode({"servers": [{"name": SERVER}], "accounts": accounts})


class RoundTrips:
    """Counts RPyC requests of this process: the library's, and those our links write themselves."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def counting(self) -> Iterator["RoundTrips"]:
        original, ours = rpyc.core.protocol.Connection._send, Connection._send

        def send(conn: Any, msg: int, seq: int, args: Any) -> Any:
            # Dropped references tell the other side so without waiting for an answer.
            if msg == rpyc.core.consts.MSG_REQUEST and args[0] != rpyc.core.consts.HANDLE_DEL:
                self.count += 1
            return original(conn, msg, seq, args)

        def write(conn: Connection, *request: Any) -> bool:
            self.count += 1
            return ours(conn, *request)

        library = patch.object(rpyc.core.protocol.Connection, "_send", send)
        with library, patch.object(Connection, "_send", write):
            yield self


def measure() -> Table:
    """Median time and round trips of a look, both ways, by turns on one terminal."""
    with tempfile.TemporaryDirectory(prefix="mt5-bench-") as directory:
        simulator = Simulator(
            Path(directory), scenario(), "bench", names=[("bench", "api")], login_seconds=0
        )
        with simulator:
            address = simulator.terminals()[0].address
            rows = [asyncio.run(_row(address, *size)) for size in SIZES]
    ratio = next(float(row[-1].rstrip("x")) for row in rows if row[0] == "100")
    return Table(
        "A look at an account: our link beside mt5linux",
        "Median time and round trips of one snapshot on one simulated terminal over the loopback:"
        " `mt5linux` 1.0.3 reading 9 attributes of the account and 10 of each position, our link"
        " reading all 28 and 19 and the pending orders, by turns in one run.",
        ("positions", "mt5linux ms", "round trips", "our link ms", "round trips", "times faster"),
        rows,
        f"At 100 positions our link is {ratio:.0f} times faster, with one round trip"
        f" (asked for: at least 100 times).",
    )


async def _row(address: Any, size: int, ours: int, theirs: int) -> tuple[str, ...]:
    identity = AccountIdentity(7000 + size, SERVER)
    link = TerminalLink(
        address, AddressGuard(["127.0.0.0/8"]), TerminalMetrics(CollectorRegistry())
    )
    stock = MetaTrader5(address.host, address.port)
    try:
        token = 1
        await link.sign_in(token, Credentials(identity, Secret("bench-pass")))
        look = await link.snapshot(token, identity)
        if len(look.positions) != size:
            raise RuntimeError(f"{len(look.positions)} positions instead of {size}")

        async def by_link() -> None:
            await link.snapshot(token, identity)

        link_s, link_trips = await _timed(by_link, ours)
        stock_s, stock_trips = await asyncio.to_thread(
            _timed_blocking, lambda: _read(stock), theirs
        )
    finally:
        await link.aclose()
        stock._MetaTrader5__conn.close()
    return (
        str(size),
        f"{stock_s * 1000:.2f}",
        str(stock_trips),
        f"{link_s * 1000:.2f}",
        str(link_trips),
        f"{stock_s / link_s:.0f}x",
    )


def _read(stock: Any) -> None:
    info = stock.account_info()
    for field in INFO_FIELDS:
        getattr(info, field)
    for position in stock.positions_get():
        for field in POSITION_FIELDS:
            getattr(position, field)


async def _timed(look: Callable[[], Any], times: int) -> tuple[float, int]:
    with RoundTrips().counting() as trips:
        await look()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        await look()
        taken.append(time.perf_counter() - began)
    return median(taken), trips.count


def _timed_blocking(look: Callable[[], None], times: int) -> tuple[float, int]:
    with RoundTrips().counting() as trips:
        look()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        look()
        taken.append(time.perf_counter() - began)
    return median(taken), trips.count
