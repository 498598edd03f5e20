"""A broker's server: a house behind TCP."""

import asyncio
import logging
import sqlite3
from collections.abc import Iterable
from hmac import compare_digest
from typing import NoReturn, TypeAlias

from terminal_sim.broker.connection import Connection, Malformed, framed
from terminal_sim.broker.desk import EXPERT, Outcome
from terminal_sim.broker.house import House, Told, TooMuch
from terminal_sim.broker.journal import JournalError
from terminal_sim.broker.messages import (
    BEAT_S,
    Act,
    Answer,
    Beat,
    Changed,
    Checked,
    Deals,
    Done,
    History,
    Inject,
    Login,
    Look,
    Mend,
    Orders,
    Refused,
    Request,
    Seen,
    Shifted,
    Snapshot,
    Spent,
    Trade,
    Traded,
    Welcome,
)
from terminal_sim.broker.state import AccountState
from terminal_sim.market.clocks import Clock

Keyed: TypeAlias = Act | Look | Inject | Mend

_LOG = logging.getLogger("terminal_sim.broker")
# How often the house looks at the clock: a change is at most so much late.
_STEP_S = 0.05
_BACKLOG = 512
# Handlers of closed connections have nothing left to do but to notice it.
_GRACE_S = 1.0
_LONGEST_NAME = 64


class Server:
    """Serves one house to its terminals and to supervisors.

    Args:
        house: The accounts.
        clock: The present of the house.
        key: What supervisors prove themselves with; None: they need not.
    """

    def __init__(self, house: House, clock: Clock, key: str | None) -> None:
        self._house = house
        self._clock = clock
        self._key = key
        self._terms = house.terms
        self._connections: set[Connection] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._injectors: dict[int, Connection] = {}
        self._broken: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        house.spent = self._spent

    async def run(self, host: str, port: int, listening: asyncio.Future[int]) -> NoReturn:
        """Serve until cancelled: first catch up, then listen, then tell the port, then live.

        Raises:
            OSError: The address cannot be listened on.
            sqlite3.Error: The journal cannot be written; nothing more may be promised.
            JournalError: It is damaged.
        """
        await self._catch_up()
        server = await asyncio.start_server(self._serve, host, port, backlog=_BACKLOG)
        listening.set_result(server.sockets[0].getsockname()[1])
        tasks = [asyncio.create_task(work) for work in (self._live(), self._beat())]
        try:
            await asyncio.wait({*tasks, self._broken}, return_when=asyncio.FIRST_COMPLETED)
            for ended in (*tasks, self._broken):
                if ended.done():
                    ended.result()
            raise RuntimeError("the broker has ended by itself")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            server.close()
            for connection in self._connections:
                connection.abort()
            if self._handlers:
                await asyncio.wait(self._handlers, timeout=_GRACE_S)

    async def _live(self) -> NoReturn:
        while True:
            await self._catch_up()
            await asyncio.sleep(_STEP_S)

    async def _catch_up(self) -> None:
        """Let happen what is due by now, and tell it; beats and signals need not wait for days.

        Whoever asks for something after much was missed waits for this: nobody acts in the past.
        """
        now_ms = self._clock.now_ms()
        while self._house.piece(now_ms):
            self._tell(self._house.told())
            await asyncio.sleep(0)
        self._tell(self._house.told())

    async def _beat(self) -> NoReturn:
        beat = framed(Beat())
        while True:
            for connection in list(self._connections):
                connection.tell(beat)
            await asyncio.sleep(BEAT_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        self._connections.add(connection)
        handler = asyncio.current_task()
        if handler:
            self._handlers.add(handler)
            handler.add_done_callback(self._handlers.discard)
        try:
            while request := await connection.read():
                await self._handle(connection, request)
        except Malformed as error:
            _LOG.warning("%s sent %s; connection closed", connection.name, error)
        except (sqlite3.Error, JournalError) as error:
            if not self._broken.done():
                self._broken.set_exception(error)
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _handle(self, connection: Connection, request: Request) -> None:
        if self._house.is_behind(self._clock.now_ms()):
            await self._catch_up()
        if isinstance(request, Login):
            answer: Answer | None = self._login(connection, request)
        elif isinstance(request, Trade | History):
            if connection.login is None:
                answer = Refused(request.id, "unauthorized", "nobody is logged in")
            elif isinstance(request, Trade):
                answer = self._trade(connection, connection.login, request)
            else:
                answer = self._history(connection.login, request)
        elif self._admits(request.key):
            answer = self._keyed(connection, request)
        else:
            answer = Refused(request.id, "forbidden", "the key is missing or wrong")
        if answer:
            await connection.answer(answer)

    def _login(self, connection: Connection, request: Login) -> Answer:
        if connection.login is not None:
            return Refused(request.id, "invalid", "an account is already logged in")
        # What the others have to be told is in the new one's snapshot already.
        self._tell(self._house.step(self._clock.now_ms()))
        admitted = self._house.login(request.login, request.password, request.terminal)
        who = f"{request.terminal[:_LONGEST_NAME]!r} ({connection.name})"
        if admitted is None:
            _LOG.warning("login of %d by %s refused", request.login, who)
            return Refused(request.id, "unauthorized", "wrong credentials")
        _LOG.info("%s logged in to %d", who, request.login)
        connection.name = who
        connection.login, connection.investor = request.login, admitted.investor
        account = _snapshot(admitted.state)
        return Welcome(request.id, admitted.investor, self._house.terms, account)

    def _trade(self, connection: Connection, login: int, request: Trade) -> Answer | None:
        investor = connection.investor
        if request.check:
            checked = self._house.check(login, request.request, investor=investor)
            self._tell(self._house.told())
            return Checked(request.id, checked)
        outcome = self._house.trade(login, request.request, reason=EXPERT, investor=investor)
        self._tell(self._house.told())
        result = self._house.answer(login, outcome.result)
        return Traded(request.id, result) if result else None

    def _history(self, login: int, request: History) -> Answer:
        filters = {
            "first_s": request.first_s,
            "last_s": request.last_s,
            "order": request.order,
            "position": request.position,
        }
        try:
            if request.kind == "deals":
                return Deals(request.id, self._house.history(login, "deals", **filters))
            return Orders(request.id, self._house.history(login, "orders", **filters))
        except TooMuch as error:
            return Refused(request.id, "invalid", str(error))

    def _keyed(self, connection: Connection, request: Keyed) -> Answer:
        """Answer a supervisor."""
        if isinstance(request, Inject):
            self._injectors[request.fault_id] = connection
            try:
                self._house.inject(request.fault_id, request.fault)
            except ValueError as error:
                return Refused(request.id, "invalid", str(error))
        elif isinstance(request, Mend):
            self._house.mend(request.fault_id)
        else:
            state = self._house.state(request.login)
            if state is None:
                return Refused(request.id, "unknown", f"there is no account {request.login}")
            return self._for_account(request, state)
        self._tell(self._house.told())
        return Done(request.id)

    def _for_account(self, request: Act | Look, state: AccountState) -> Answer:
        if isinstance(request, Act):
            outcome = self._act(request)
            self._tell(self._house.told())
            return Traded(request.id, outcome.result)
        self._tell(self._house.step(self._clock.now_ms()))
        return Seen(request.id, _snapshot(state))

    def _act(self, request: Act) -> Outcome:
        if request.request is None:
            return self._house.deposit(request.login, request.deposit, request.reason)
        return self._house.trade(request.login, request.request, reason=request.reason)

    def _admits(self, key: str | None) -> bool:
        if self._key is None:
            return True
        return compare_digest((key or "").encode(), self._key.encode())

    def _tell(self, news: Iterable[Told]) -> None:
        """Tell every terminal what has happened to its account."""
        for login, change, version in news:
            peers = [each for each in self._connections if each.login == login]
            if peers:
                frame = framed(Changed(change, version))
                for peer in peers:
                    peer.tell(frame)
        if self._house.terms is not self._terms:
            self._terms = self._house.terms
            frame = framed(Shifted(self._terms.shifts))
            for peer in self._connections:
                if peer.login is not None:
                    peer.tell(frame)

    def _spent(self, fault_id: int) -> None:
        injector = self._injectors.get(fault_id)
        if injector:
            injector.tell(framed(Spent(fault_id)))


def _snapshot(state: AccountState) -> Snapshot:
    return Snapshot(
        profile=state.profile,
        positions=tuple(state.positions.values()),
        orders=tuple(state.orders.values()),
        balance=state.balance,
        credit=state.credit,
        version=state.version,
    )
