"""What account sessions are measured beside: naive fronts and round-robin refreshing."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle

import msgspec
import numpy as np
from mt5linux import MetaTrader5
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from tests.load.zipf import Arrivals

from local_stack.simulator import PlacedTerminal
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.secret import Secret
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.link import TerminalLink

SERVER = "Baseline-Server"
FIRST_LOGIN = 300_001
# The first logins are under way by then, and all terminals busy.
FILL_S = 5.0


@dataclass(frozen=True)
class Baseline:
    """What a baseline gave.

    Attributes:
        per_s: Requests answered a second.
        latencies_s: From when a request was due to its answer.
        ages_s: Of what requests were answered with.
        logins_per_min: Over the measured time.
        wrong: Answers of another account.
    """

    per_s: float
    latencies_s: NDArray[np.float64]
    ages_s: NDArray[np.float64]
    logins_per_min: float
    wrong: int


def scenario(accounts: int) -> bytes:
    """Accounts `FIRST_LOGIN` … with a balance each of their own."""
    people = [
        {
            "login": FIRST_LOGIN + number,
            "password": _password(number),
            "server": SERVER,
            "balance": _balance(number),
        }
        for number in range(accounts)
    ]
    return msgspec.json.encode({"servers": [{"name": SERVER}], "accounts": people})


class _Stock:
    """A terminal as a script uses it: mt5linux, blocking, in a thread; and its queue."""

    def __init__(self, terminal: PlacedTerminal) -> None:
        self._mt5 = MetaTrader5(terminal.host, terminal.port)
        self.queue: asyncio.Queue[tuple[int, bool, float]] = asyncio.Queue()
        self.left = 0
        self.last: int | None = None

    def read(self, number: int, *, login: bool) -> bool:
        """Whether the account was read that was asked for."""
        if login and not self._mt5.initialize(
            login=FIRST_LOGIN + number, password=_password(number), server=SERVER
        ):
            raise RuntimeError(f"login {number}: {self._mt5.last_error()}")
        info = self._mt5.account_info()
        return bool(info.login == FIRST_LOGIN + number and info.balance == _balance(number))

    def close(self) -> None:
        self._mt5._MetaTrader5__conn.close()


class NaiveFront:
    """Answers every request by a terminal, by turns; nothing is kept and nobody is put together.

    Args:
        terminals: To log in on.
        always: Log in for each request, on the terminal with the shortest queue. Otherwise a
            request joins the queue that ends with its own account, if there is one, and is read
            without a login.
    """

    def __init__(self, terminals: Sequence[PlacedTerminal], *, always: bool) -> None:
        self._always = always
        self._terminals = [_Stock(terminal) for terminal in terminals]
        self._due: deque[tuple[float, float]] = deque()
        self._logins: list[float] = []
        self._wrong = 0

    async def run(self, arrivals: Arrivals, seconds: float) -> Baseline:
        """Serve open-loop arrivals; those still queued at the end are not waited for."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        with ThreadPoolExecutor(len(self._terminals)) as threads:
            workers = [
                asyncio.create_task(self._work(stock, threads, start_s))
                for stock in self._terminals
            ]
            for due_s, number in zip(
                arrivals.at_s.tolist(), arrivals.account.tolist(), strict=True
            ):
                if (early_s := start_s + due_s - loop.time()) > 0:
                    await asyncio.sleep(early_s)
                self._admit(number, due_s)
            await asyncio.sleep(max(start_s + seconds - loop.time(), 0))
            for worker in workers:
                worker.cancel()
            ended = await asyncio.gather(*workers, return_exceptions=True)
        for stock in self._terminals:
            stock.close()
        for failure in ended:
            if not isinstance(failure, asyncio.CancelledError):
                raise failure if isinstance(failure, Exception) else RuntimeError("a worker ended")
        counted = [done for done in self._due if FILL_S <= done[1] < seconds]
        logins = sum(FILL_S <= at_s < seconds for at_s in self._logins)
        return Baseline(
            per_s=len(counted) / (seconds - FILL_S),
            latencies_s=np.array([done_s - due_s for due_s, done_s in counted]),
            ages_s=np.zeros(len(counted)),
            logins_per_min=logins / (seconds - FILL_S) * 60,
            wrong=self._wrong,
        )

    def _admit(self, number: int, due_s: float) -> None:
        already = None if self._always else self._holder_of(number)
        stock = already or min(self._terminals, key=lambda each: each.left)
        if already is None:
            # From the shortest queues the one that is longest without a login: least recently used.
            self._terminals.remove(stock)
            self._terminals.append(stock)
        stock.left += 1
        stock.last = number
        stock.queue.put_nowait((number, already is None, due_s))

    def _holder_of(self, number: int) -> _Stock | None:
        return next((each for each in self._terminals if each.last == number), None)

    async def _work(self, stock: _Stock, threads: Executor, start_s: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            number, login, due_s = await stock.queue.get()
            right = await loop.run_in_executor(threads, _reader(stock, number, login=login))
            now_s = loop.time() - start_s
            if login:
                self._logins.append(now_s)
            self._wrong += not right
            stock.left -= 1
            self._due.append((due_s, now_s))


class RoundRobin:
    """Every terminal logs its accounts in one after the other; reads see the last look.

    Args:
        terminals: To log in on.
        accounts: How many there are, dealt to the terminals in turn.
    """

    def __init__(self, terminals: Sequence[PlacedTerminal], accounts: int) -> None:
        self._terminals = terminals
        self._accounts = accounts
        # Of each account: when a look was there, and when it was taken, on the wall clock.
        self._looks: list[list[tuple[float, float]]] = [[] for _ in range(accounts)]

    async def run(self, arrivals: Arrivals, warm_s: float, seconds: float) -> Baseline:
        """Refresh for `warm_s` and then `seconds`; `arrivals` are of the latter."""
        started = time.time()
        tasks = [
            asyncio.create_task(self._cycle(terminal, number))
            for number, terminal in enumerate(self._terminals)
        ]
        await asyncio.wait(tasks, timeout=warm_s + seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for failure in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(failure, asyncio.CancelledError):
                raise failure if isinstance(failure, Exception) else RuntimeError("a cycle ended")
        ages = self._ages(arrivals, started + warm_s)
        end = started + warm_s + seconds
        looks = sum(end - seconds <= there < end for each in self._looks for there, _ in each)
        return Baseline(
            per_s=len(ages) / seconds,
            latencies_s=np.zeros(0),
            ages_s=ages,
            logins_per_min=looks / seconds * 60,
            wrong=0,
        )

    async def _cycle(self, terminal: PlacedTerminal, first: int) -> None:
        metrics = TerminalMetrics(CollectorRegistry())
        link = TerminalLink(terminal.address, AddressGuard(["127.0.0.0/8"]), metrics)
        try:
            for number in cycle(range(first, self._accounts, len(self._terminals))):
                identity = AccountIdentity(FIRST_LOGIN + number, SERVER)
                signed = await link.sign_in(1, Credentials(identity, Secret(_password(number))))
                look = signed.snapshot
                if look.identity != identity:
                    raise RuntimeError("another account is logged in")
                self._looks[number].append((time.time(), look.seen_ms / 1000))
        finally:
            await link.aclose()

    def _ages(self, arrivals: Arrivals, start: float) -> NDArray[np.float64]:
        ages = []
        for due_s, number in zip(arrivals.at_s.tolist(), arrivals.account.tolist(), strict=True):
            at = start + due_s
            taken = [seen for there, seen in self._looks[number] if there <= at]
            if not taken:
                raise RuntimeError("an account was not looked at before it was read: warm up more")
            ages.append(at - taken[-1])
        return np.array(ages)


def _reader(stock: _Stock, number: int, *, login: bool) -> Callable[[], bool]:
    return lambda: stock.read(number, login=login)


def _password(number: int) -> str:
    return f"pass-{number}"


def _balance(number: int) -> float:
    return 10_000.0 + number
