"""A broker's house: the accounts of one server, and everything that happens to them."""

from collections import deque
from collections.abc import Callable, Iterator
from hmac import compare_digest
from math import isfinite
from typing import Literal, NamedTuple, overload

from msgspec.structs import replace

from terminal_sim.broker.desk import Outcome
from terminal_sim.broker.journal import Journal
from terminal_sim.broker.life import Numbered, Rules
from terminal_sim.broker.opening import Opened, founded, opened
from terminal_sim.broker.plans import money_deal
from terminal_sim.broker.retcodes import (
    DONE,
    INVALID,
    MARKET_CLOSED,
    NO_MONEY,
    TEXTS,
    objected,
    refused,
)
from terminal_sim.broker.shifting import Shifting
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.trouble import Trouble, symbol_of
from terminal_sim.broker.values import (
    NOTHING,
    Change,
    CheckResult,
    Deal,
    Order,
    TradeRequest,
    TradeResult,
)
from terminal_sim.broker.valuing import Valuer
from terminal_sim.broker.wanted import Wanted
from terminal_sim.faults.active import ActiveFaults
from terminal_sim.faults.kinds import BrokerFault, ClockShift
from terminal_sim.market.clocks import Clock
from terminal_sim.market.prices import Market
from terminal_sim.market.tape import Tape
from terminal_sim.scenario.model import Scenario

MOST_ROWS = 400_000
"""Rows of history in one answer: what surely fits into a message."""

# What was missed is caught up in pieces of so long, which bounds the memory it takes.
_PIECE_MS = 3_600_000
# How far everything has come is noted so often at least, even if nothing happens.
_NOTE_MS = 10_000


class Admitted(NamedTuple):
    """A login that was accepted: the account, and whether by the read-only password."""

    state: AccountState
    investor: bool


class Told(NamedTuple):
    """A change that was made, and the version of the account after it."""

    login: int
    change: Change
    version: int


class TooMuch(Exception):
    """More history was asked for than fits into an answer."""


class House:
    """The accounts of one server. Not locked: whoever shares it between threads holds a lock.

    Args:
        scenario: Servers and accounts.
        server: Name of the server.
        clock: The present.
        journal: What was kept before, and is kept from now on; None: nothing is.

    Attributes:
        terms: What terminals are told of the server; replaced when its clock is shifted.
        faults: Those that are on; shifts of the clock apart.
        spent: Called with the id of a fault whenever it has acted.

    Raises:
        JournalError: The journal belongs to another server or scenario.
        sqlite3.Error: The journal cannot be written; here and in every method that changes
            something. The house is not to be used any more.
    """

    def __init__(
        self, scenario: Scenario, server: str, clock: Clock, journal: Journal | None = None
    ) -> None:
        self.spent: Callable[[int], None] = lambda _fault_id: None
        self.faults = ActiveFaults(self._acted)
        self._clock = clock
        self._journal = journal or Journal.in_memory()
        self._trouble = Trouble(self.faults)
        self._told: deque[Told] = deque()
        founding = founded(scenario, server, self._journal, clock.now_ms())
        self._advanced_ms = self._noted_ms = founding.anchor.advanced_ms
        self._tickets = Numbered(founding.anchor.ticket + 1)
        self._shifting = Shifting(self._journal, self._advanced_ms)
        self._tape = Tape(Market(scenario.seed))
        self.terms = replace(founding.terms, shifts=self._shifting.shifts)
        rules = Rules(self._tape, self.terms)
        self._rules = rules
        self._accounts: dict[int, Opened] = {
            account.login: opened(founding, account, rules, self._journal, self._tickets)
            for account in founding.accounts
        }
        self._commit()

    def logins(self) -> tuple[int, ...]:
        """Return the accounts' logins."""
        return tuple(self._accounts)

    def state(self, login: int) -> AccountState | None:
        """Return an account (not to be changed), None when there is none of that login."""
        known = self._accounts.get(login)
        return known.life.state if known else None

    def login(self, login: int, password: str, terminal: str = "") -> Admitted | None:
        """Return the account when the credentials are right and no fault refuses them.

        Args:
            login: Number of the account.
            password: Its password, or its read-only one.
            terminal: Name of the terminal, for the rate limit.
        """
        if self._trouble.rejects(login):
            return None
        known = self._accounts.get(login)
        if known is None:
            return None
        investor = _same(password, known.account.investor_password)
        if not investor and not _same(password, known.account.password):
            return None
        if self._trouble.limits(terminal):
            return None
        return Admitted(known.life.state, investor)

    def trade(
        self, login: int, request: TradeRequest, *, reason: int, investor: bool = False
    ) -> Outcome:
        """Carry a request out now, after everything that is due; the change has been applied.

        Args:
            login: Number of the account.
            request: What is asked for.
            reason: ``DEAL_REASON_*`` of who asks.
            investor: Who asks has the read-only password.

        Raises:
            KeyError: No such account.
        """
        known, now_ms = self._accounts[login], self._move()
        state, desk = known.life.state, self._rules.desk
        outcome = desk.execute(
            state, request, now_ms, self._tickets, reason=reason, investor=investor
        )
        if outcome.change:
            instead = self._trouble.instead(state, request, self._tape, now_ms)
            if instead:
                return Outcome(instead, NOTHING)
            self._make(known, outcome.change)
        return outcome

    def answer(self, login: int, result: TradeResult) -> TradeResult | None:
        """Return what a terminal is told of a trade; None: nothing at all, the answer is lost."""
        return self._trouble.told(login, result)

    def check(self, login: int, request: TradeRequest, *, investor: bool = False) -> CheckResult:
        """Return what would come of a request, without carrying it out.

        Raises:
            KeyError: No such account.
        """
        known, now_ms = self._accounts[login], self._move()
        state = known.life.state
        if symbol_of(state, request) in self._trouble.closed():
            return objected(MARKET_CLOSED)
        return self._rules.desk.check(state, request, now_ms, investor=investor)

    def deposit(self, login: int, amount: float, reason: int) -> Outcome:
        """Pay an amount in, or out when negative.

        Answered with 10019 when more is asked for than the balance or the free margin.

        Raises:
            KeyError: No such account.
        """
        known, now_ms = self._accounts[login], self._move()
        state = known.life.state
        paid = round(amount, state.digits) if isfinite(amount) else 0.0
        if not paid:
            return Outcome(refused(INVALID), NOTHING)
        if paid < 0 and -paid > self._payable(state, now_ms):
            return Outcome(refused(NO_MONEY), NOTHING)
        comment = "Deposit" if paid > 0 else "Withdrawal"
        ticket = self._tickets.next()
        deal = money_deal(ticket, "DEAL_TYPE_BALANCE", now_ms, paid, reason, comment)
        self._make(known, Change(deals=(deal,)))
        return Outcome(TradeResult(DONE, TEXTS[DONE], deal=ticket), Change(deals=(deal,)))

    def _payable(self, state: AccountState, now_ms: int) -> float:
        """Return how much can be paid out."""
        return min(state.balance, Valuer(self._tape).value(state, now_ms).margin_free)

    @overload
    def history(
        self, login: int, kind: Literal["deals"], *, first_s: int | None = None,
        last_s: int | None = None, order: int | None = None, position: int | None = None,
    ) -> tuple[Deal, ...]: ...  # fmt: skip
    @overload
    def history(
        self, login: int, kind: Literal["orders"], *, first_s: int | None = None,
        last_s: int | None = None, order: int | None = None, position: int | None = None,
    ) -> tuple[Order, ...]: ...  # fmt: skip
    def history(
        self,
        login: int,
        kind: Literal["deals", "orders"],
        *,
        first_s: int | None = None,
        last_s: int | None = None,
        order: int | None = None,
        position: int | None = None,
    ) -> tuple[Deal, ...] | tuple[Order, ...]:
        """Return deals or done orders, oldest first; orders count by when they were done.

        Args:
            login: Number of the account.
            kind: Which.
            first_s: Earliest reading of the server's wall clock, in seconds.
            last_s: Latest reading, inclusive.
            order: Ticket of an order.
            position: Identifier of a position.

        Raises:
            KeyError: No such account.
            TooMuch: More than ``MOST_ROWS``.
        """
        known = self._accounts[login]
        wanted = Wanted(self._rules.wall, first_s, last_s, order, position)
        if known.past.count(wanted) + self._journal.count(kind, login, wanted) > MOST_ROWS:
            raise TooMuch(f"more than {MOST_ROWS} rows; ask for a shorter time")
        if kind == "deals":
            deals = known.past.deals(wanted) + self._journal.deals(login, wanted)
            return tuple(sorted(deals, key=lambda deal: (deal.time_ms, deal.ticket)))
        orders = known.past.orders(wanted) + self._journal.orders(login, wanted)
        return tuple(sorted(orders, key=lambda done: (done.done_ms, done.ticket)))

    def advance(self, now_ms: int) -> Iterator[tuple[int, Change]]:
        """Let everything due up to an instant happen and yield what nobody has been told yet.

        The changes have been applied and kept when they are yielded, each account's in the order
        of time; those that trades have made meanwhile are among them.
        """
        for told in self.step(now_ms):
            yield told.login, told.change

    def step(self, now_ms: int) -> Iterator[Told]:
        """Do what :meth:`advance` does and yield also the versions; made to be run to its end."""
        yield from self.told()
        while self.piece(now_ms):
            yield from self.told()

    def piece(self, now_ms: int) -> bool:
        """Let happen what is due next, an hour's at most; False: everything has happened."""
        if self._advanced_ms >= now_ms:
            return False
        self._advance(min(now_ms, self._advanced_ms + _PIECE_MS))
        return True

    def is_behind(self, now_ms: int) -> bool:
        """Tell whether more than one :meth:`piece` has been missed."""
        return now_ms - self._advanced_ms > _PIECE_MS

    def told(self) -> Iterator[Told]:
        """Yield the changes that nobody has been told yet."""
        while self._told:
            yield self._told.popleft()

    def inject(self, fault_id: int, fault: BrokerFault) -> None:
        """Begin a fault.

        Raises:
            ValueError: Not in this way.
        """
        if isinstance(fault, ClockShift):
            self._shifting.inject(fault_id, fault, self._move())
            self._shifted()
        else:
            self.faults.add(fault_id, fault)

    def mend(self, fault_id: int | None) -> None:
        """End a fault, or all of them when the id is None."""
        self.faults.remove(fault_id)
        if self._shifting.mend(fault_id, self._move()):
            self._shifted()

    def close(self) -> None:
        """Note how far everything has come and give the journal back."""
        self._commit()
        self._journal.close()

    def _acted(self, fault_id: int) -> None:
        self.spent(fault_id)

    def _move(self) -> int:
        """Let everything due happen and return the present, which never goes back."""
        now_ms = self._clock.now_ms()
        while self.piece(now_ms):
            pass
        return self._advanced_ms

    def _advance(self, until_ms: int) -> None:
        if self._shifting.ended(self._advanced_ms):
            self._shifted()
        closed, since_ms, count = self._trouble.closed(), self._advanced_ms, len(self._told)
        for known in self._accounts.values():
            for change in known.life.advance(since_ms, until_ms, closed):
                self._note(known, change)
        self._advanced_ms = until_ms
        if len(self._told) > count or until_ms - self._noted_ms >= _NOTE_MS:
            self._commit()

    def _make(self, known: Opened, change: Change) -> None:
        """Make a change of the present instant, and make sure of it."""
        known.life.take(change)
        self._note(known, change)
        self._commit()

    def _note(self, known: Opened, change: Change) -> None:
        state = known.life.state
        self._journal.keep(state, change)
        self._told.append(Told(state.profile.login, change, state.version))

    def _commit(self) -> None:
        self._journal.advanced(self._advanced_ms, self._tickets.ticket - 1)
        self._journal.commit()
        self._noted_ms = self._advanced_ms

    def _shifted(self) -> None:
        """Go on by the wall clock as it has become."""
        self.terms = replace(self.terms, shifts=self._shifting.shifts)
        self._rules = Rules(self._tape, self.terms)
        for known in self._accounts.values():
            known.life.rules = self._rules
        self._commit()


def _same(given: str, right: str | None) -> bool:
    return right is not None and compare_digest(_bytes(given), _bytes(right))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
