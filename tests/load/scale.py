"""How many terminals one machine carries: memory and processor time of sixty with accounts."""

import asyncio
import contextlib
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import psutil
from mt5linux import MetaTrader5
from prometheus_client import CollectorRegistry
from tests.load.figures import Table

from local_stack.simulator import PlacedTerminal, Simulator
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.secret import Secret
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.link import TerminalLink

SERVER, PASSWORD = "Scale-Server", "scale-pass"
TERMINALS = 60
POSITIONS = 5
SYMBOLS = (
    "AUDJPY", "AUDUSD", "BTCUSD", "ETHUSD", "EURUSD", "GBPJPY", "GBPUSD", "NDX100", "NZDUSD",
    "US30", "USDCAD", "USDCHF", "USDJPY", "XAGUSD", "XAUUSD",
)  # fmt: skip
BARS = 100
IDLE_S, POLLED_S = 10.0, 15.0
# The sign-ins and first looks are over by then.
SETTLE_S = 3.0
READERS = 8
# The start of the names that processes of the simulator show.
TERMINAL, PARENT, BROKER = "mt5-terminal-", "mt5-terminals", "mt5-broker"
SUPERVISOR, OTHER = "supervisor", "other"


@dataclass(frozen=True)
class Use:
    """What processes use, by their kind: PSS in bytes of each, processor seconds of all."""

    memory: dict[str, list[int]]
    cpu_s: dict[str, float]

    def megabytes(self, kind: str) -> str:
        """Median and highest of a kind."""
        each = [size / 1e6 for size in self.memory.get(kind, ())]
        return f"{median(each):.1f} / {max(each):.1f} MB" if each else "none"

    def gigabytes(self) -> float:
        """All processes together; shared pages are counted once."""
        return sum(map(sum, self.memory.values())) / 1e9


@dataclass(frozen=True)
class Watched:
    """Before and after some seconds of watching every terminal.

    Attributes:
        looks: That brought something new.
        client_s: Processor time of our own process.
    """

    before: Use
    after: Use
    looks: int
    client_s: float


def scenario() -> bytes:
    accounts = [
        {
            "login": login,
            "password": PASSWORD,
            "server": SERVER,
            "balance": 100_000,
            "positions": [
                {
                    "symbol": SYMBOLS[(login + number) % len(SYMBOLS)],
                    "type": "buy" if number % 2 else "sell",
                    "volume": 0.01,
                    "opened_at": f"2026-01-05T00:{number:02d}:00Z",
                }
                for number in range(POSITIONS)
            ],
        }
        for login in range(1, TERMINALS + 1)
    ]
    return msgspec.json.encode({"servers": [{"name": SERVER}], "accounts": accounts})


def measure() -> Table:
    """Start, sign in, read, leave alone, poll; and what each of it takes."""
    with tempfile.TemporaryDirectory(prefix="mt5-bench-") as directory:
        names = [(f"scale-{number}", "api") for number in range(1, TERMINALS + 1)]
        simulator = Simulator(Path(directory), scenario(), "bench", names=names, login_seconds=0)
        began = time.perf_counter()
        with simulator:
            start_s = time.perf_counter() - began
            assert simulator.pid is not None
            fresh = use(simulator.pid)
            began = time.perf_counter()
            with ThreadPoolExecutor(READERS) as pool:
                list(pool.map(_sign_in_and_read, range(1, TERMINALS + 1), simulator.terminals()))
            read_s = time.perf_counter() - began
            before = use(simulator.pid)
            time.sleep(IDLE_S)
            idle = use(simulator.pid)
            watched = asyncio.run(_watch(simulator))
    return Table(
        f"Scale: {TERMINALS} terminals on one machine",
        f"One `terminal-sim serve --terminals {TERMINALS}`, an account with {POSITIONS} positions"
        f" on each. Each terminal is signed in to and read by mt5linux 1.0.3 (account, positions"
        f" and, of all {len(SYMBOLS)} symbols, a tick and {BARS} H1 bars), then left alone for"
        f" {IDLE_S:.0f} s, then watched by our link, which looks every 20 to 100 ms inside the"
        " terminal. Memory is PSS, median / highest of a kind of process.",
        ("", "figure"),
        [
            ("start until everything listens", f"{start_s:.1f} s"),
            (f"{TERMINALS} sign-ins and reads by mt5linux", f"{read_s:.1f} s"),
            ("memory of a terminal, fresh", fresh.megabytes(TERMINAL)),
            ("memory of a terminal, signed in and read", idle.megabytes(TERMINAL)),
            ("memory of a terminal, watched", watched.after.megabytes(TERMINAL)),
            ("memory of the broker", watched.after.megabytes(BROKER)),
            ("memory of the parent that they are forked from", watched.after.megabytes(PARENT)),
            ("memory of the supervisor", watched.after.megabytes(SUPERVISOR)),
            ("memory of all of it, watched", f"{watched.after.gigabytes():.2f} GB"),
            *_busy("left alone", before, idle, IDLE_S),
            *_busy("watched", watched.before, watched.after, POLLED_S),
        ],
        f"Watched, {watched.looks / POLLED_S:.0f} looks a second with something new reached the"
        f" client, whose own process took {watched.client_s / POLLED_S:.0%} of a core.",
    )


def _busy(when: str, before: Use, after: Use, seconds: float) -> list[tuple[str, str]]:
    """Shares of one core: of the terminals together, of one, of the broker and supervisor."""
    share = {kind: (after.cpu_s[kind] - before.cpu_s[kind]) / seconds for kind in after.cpu_s}
    rows = [(f"core of {TERMINALS} terminals, {when}", f"{share[TERMINAL]:.1%}")]
    rows.append((f"core of one terminal, {when}", f"{share[TERMINAL] / TERMINALS:.2%}"))
    named = (("broker", BROKER), ("supervisor", SUPERVISOR))
    return rows + [
        (f"core of the {name}, {when}", f"{share.get(kind, 0):.1%}") for name, kind in named
    ]


def use(pid: int) -> Use:
    """Return what the simulator with this supervisor uses now."""
    supervisor = psutil.Process(pid)
    memory: defaultdict[str, list[int]] = defaultdict(list)
    cpu_s: defaultdict[str, float] = defaultdict(float)
    for process in (supervisor, *supervisor.children(recursive=True)):
        name = Path(f"/proc/{process.pid}/comm").read_text(encoding="ascii").strip()
        kind = next((kind for kind in (PARENT, TERMINAL, BROKER) if name.startswith(kind)), OTHER)
        if process.pid == pid:
            kind = SUPERVISOR
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        lines = (line.split() for line in rollup.splitlines())
        memory[kind].append(next(int(words[1]) * 1024 for words in lines if words[0] == "Pss:"))
        times = process.cpu_times()
        cpu_s[kind] += times.user + times.system
    return Use(dict(memory), dict(cpu_s))


def _sign_in_and_read(login: int, terminal: PlacedTerminal) -> None:
    stock = MetaTrader5(terminal.host, terminal.port)
    try:
        if not stock.initialize(login=login, password=PASSWORD, server=SERVER):
            raise RuntimeError(f"terminal {login}: {stock.last_error()}")
        if stock.account_info().login != login or len(stock.positions_get()) != POSITIONS:
            raise RuntimeError(f"terminal {login} shows another account")
        for symbol in SYMBOLS:
            stock.symbol_info_tick(symbol)
            bars = stock.copy_rates_from_pos(symbol, stock.TIMEFRAME_H1, 0, BARS)
            if len(bars) != BARS:
                raise RuntimeError(f"terminal {login} has {len(bars)} bars of {symbol}")
    finally:
        stock._MetaTrader5__conn.close()


async def _watch(simulator: Simulator) -> Watched:
    """Watch every account through a link of its own, as a stream does."""
    assert simulator.pid is not None
    looks: list[int] = []
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        watchers = [
            group.create_task(_watch_one(stack, login, terminal, looks))
            for login, terminal in enumerate(simulator.terminals(), start=1)
        ]
        while len(set(looks)) < TERMINALS:
            await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLE_S)
        before, began_s, so_far = use(simulator.pid), time.process_time(), len(looks)
        await asyncio.sleep(POLLED_S)
        after, client_s = use(simulator.pid), time.process_time() - began_s
        count = len(looks) - so_far
        for watcher in watchers:
            watcher.cancel()
    return Watched(before, after, count, client_s)


async def _watch_one(
    stack: contextlib.AsyncExitStack, login: int, terminal: PlacedTerminal, looks: list[int]
) -> None:
    """Note the login with every look that brings something new."""
    identity = AccountIdentity(login, SERVER)
    metrics = TerminalMetrics(CollectorRegistry())
    link = TerminalLink(terminal.address, AddressGuard(["127.0.0.0/8"]), metrics)
    stack.push_async_callback(link.aclose)
    await link.sign_in(1, Credentials(identity, Secret(PASSWORD)))
    since = ""
    while True:
        look = await link.wait_changes(1, identity, since)
        if look.version != since:
            looks.append(login)
        since = look.version
