"""The part of us that runs inside the terminal's own Python.

The link sends this file's source over RPyC once per connection and then calls `invoke`, one
round trip a call. So it stays one ordinary file for Python 3.9 in 32 bits, with nothing beyond
the standard library and the MetaTrader5 module.

Every operation runs under one process-wide lock: check the fencing token, check who is logged
in, work, read `last_error()`, check who is logged in again, answer JSON. Somebody in VNC or a
stock mt5linux client does not take our lock, so the second check is what makes an answer safe:
check-then-read alone gave 8 wrong answers in 235. A wrong account is an error, never data.
"""

from __future__ import annotations

import heapq
import json
import sys
import threading
import time
import types
from typing import Any, Callable, NoReturn

import MetaTrader5 as mt5  # noqa: N813 - the name every user of the module gives it

# Never renamed: two versions of this file in one process must share one fence.
FENCE = "_mt5_swarm_fence"
# A tick between two reads spoils a look; in three tries one is whole unless the market never rests.
COHERENT_LOOKS = 3
# Looking may cost a tenth of the terminal's time: rest nine times as long as a look takes.
IDLE_PER_LOOK = 9
# One look that somebody held up must not keep the next from the caller, who waits 3 s longer.
LONGEST_REST = 1.0
# Of so many looks the cheapest says what one costs.
COSTS_KEPT = 3
# Seconds from look to look. A stream tells at most every 100 ms: what rests is looked at as often.
SHORTEST_STEP, LONGEST_STEP = 0.02, 0.1
# After a silence the next change is seen at most a twentieth of the silence late.
SILENCE_PER_STEP = 20
# From here downwards, last_error() tells of the way to the terminal and not of the account.
IPC_FAILED = -10000
# All of history in seconds, as far as a signed word of 32 bits reaches.
EVER = (0, 2**31 - 1)
# last_error() of a login whose credentials the broker refused.
AUTH_FAILED = -6
# More than the accounts of one terminal in months; beyond it the oldest is forgotten.
MOST_REFUSED = 1000


class Refusal(Exception):
    """Carries a refusal to the one place that turns it into an answer."""

    def __init__(self, kind: str, text: str, code: int = 0) -> None:
        """Hold `kind` (see the link's table), a sentence and MetaTrader's code, or a count."""
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.code = code


def shared_fence() -> Any:
    """The fence of this process: lock, highest token, poll generation, logins, refusals."""
    fence: Any = sys.modules.get(FENCE)
    if fence is None:
        made: Any = types.ModuleType(FENCE)
        made.lock = threading.Lock()
        made.token = 0
        made.generation = 0
        made.logins = 0
        made.counted = False
        # setdefault is one step under the GIL: of two connections arriving at once, one wins.
        fence = sys.modules.setdefault(FENCE, made)
    with fence.lock:
        if not fence.counted:
            for name in ("initialize", "login", "shutdown"):
                setattr(mt5, name, _counted(fence, getattr(mt5, name)))
            fence.counted = True
        # An older version of this file made a fence without these.
        if getattr(fence, "refused", None) is None:
            fence.refused = {}
    return fence


def _counted(fence: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Count what changes the login, so that a change and back between two checks is seen too."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        fence.logins += 1
        try:
            return original(*args, **kwargs)
        finally:
            fence.logins += 1

    counted.__name__ = original.__name__
    counted.__doc__ = original.__doc__
    return counted


class Refusals:
    """Stored credentials that the broker refused in this process, whoever owned it then.

    They are known by their seal, a digest of their sealed form, which every good connect makes
    anew: so what was proven since, be it the same password, is not taken for what was refused.
    Used under the fence's lock alone.
    """

    def __init__(self, fence: Any) -> None:
        """Use what `fence` remembers."""
        self.known: dict[bytes, str] = fence.refused

    def check(self, seal: bytes) -> None:
        """Refuse what was refused, in the words of then."""
        text = self.known.get(seal)
        if text is not None:
            raise Refusal("login_refused", text, AUTH_FAILED)

    def remember(self, seal: bytes, text: str) -> None:
        """Keep a refusal."""
        self.known[seal] = text
        if len(self.known) > MOST_REFUSED:
            del self.known[next(iter(self.known))]


# AccountInfo, positions, orders, (connected, trade_allowed): raw tuples, cheap to compare.
Look = tuple[Any, ...]


class Agent:
    """The operations, and the last look of this connection's poll."""

    def __init__(self) -> None:
        """Join the fence of the process."""
        self.fence = shared_fence()
        self.generation = 0
        self.seen: Look | None = None
        self.looks = 0
        self.changed_at = 0.0
        self.costs: tuple[float, ...] = ()
        # Of the last look: until when to rest whoever waits, and when the next is due.
        self.rested_at = self.due_at = 0.0
        self.give_up_at = 0.0

    # -- guards ---------------------------------------------------------------------------------

    def check_token(self, token: int) -> None:
        """Refuse an owner that a newer one has replaced."""
        if token < self.fence.token:
            raise Refusal("stale_token", "a newer owner holds this terminal")
        self.fence.token = token

    def check_identity(self, login: int, server: str) -> Any:
        """The AccountInfo of (login, server); refuse when anybody else, or nobody, is in."""
        info = mt5.account_info()
        if info is None:
            refuse_with_last_error("not_logged_in")
        if info.login != login or info.server != server:
            raise Refusal("wrong_account", "another account is logged in to this terminal")
        return info

    def guarded(self, login: int, server: str, work: Callable[[Any], Any]) -> Any:
        """Run `work(info)` between the two identity checks and return its result."""
        logins = self.fence.logins
        before = self.check_identity(login, server)
        result = work(before)
        code, text = mt5.last_error()
        self.check_identity(login, server)
        if self.fence.logins != logins:
            raise Refusal("wrong_account", "the login changed while the answer was made")
        if result is None:
            raise Refusal("failed", str(text), int(code))
        return result

    # -- operations -----------------------------------------------------------------------------

    def sign_in(
        self,
        login: int,
        password: str,
        server: str,
        timeout_ms: int,
        must_prove: bool,
        seal: bytes = b"",
    ) -> dict[str, Any]:
        """Log in unless the account is in already; answer a full look of the same turn.

        Stored credentials that the broker has refused to anybody in this process are not tried
        again. What a person has just typed has no seal, and is tried.
        """
        info = self.who_is_in(timeout_ms)
        here = info is not None and info.login == login and info.server == server
        if must_prove or not here:
            refusals = Refusals(self.fence)
            refusals.check(seal)
            left_ms = self.left_ms(timeout_ms)
            if not mt5.login(login, password=password, server=server, timeout=left_ms):
                code, text = mt5.last_error()
                if code == AUTH_FAILED and seal:
                    refusals.remember(seal, str(text))
                raise Refusal("login_refused", str(text), int(code))
            # Who is in is what the terminal reports, not what was typed.
            info = mt5.account_info()
            if info is None:
                refuse_with_last_error("not_logged_in")
        if info.login != login:
            raise Refusal("wrong_account", "the terminal reports another login than it was given")
        return {
            "logged_in": must_prove or not here,
            "snapshot": self.snapshot(info.login, info.server),
        }

    def probe(self, timeout_ms: int) -> dict[str, Any]:
        """Who is in, by a call that the terminal itself must answer."""
        info = self.who_is_in(timeout_ms)
        if info is None:
            # Once more, because what came of asking for the terminal is its last error now.
            info = mt5.account_info()
            if info is None and mt5.last_error()[0] <= IPC_FAILED:
                refuse_with_last_error("failed")
        nobody = info is None or not info.login
        return {"identity": None if nobody else {"login": info.login, "server": info.server}}

    def who_is_in(self, timeout_ms: int) -> Any:
        """AccountInfo, or None when nobody is in; refuse when the terminal does not answer."""
        info = mt5.account_info()
        if info is None and mt5.terminal_info() is None:
            if not mt5.initialize(timeout=self.left_ms(timeout_ms)):
                refuse_with_last_error("failed")
            info = mt5.account_info()
        return info

    def left_ms(self, timeout_ms: int) -> int:
        """The timeout, or less: MetaTrader must give up before the caller does."""
        left_ms = min(timeout_ms, int((self.give_up_at - time.monotonic()) * 1000))
        if left_ms <= 0:
            raise Refusal("busy", "another call held the terminal for too long")
        return left_ms

    def snapshot(self, login: int, server: str) -> dict[str, Any]:
        """Account, positions, orders and terminal status that belong together."""
        seen = time.time()
        return look_as_json(self.guarded(login, server, coherent_look), seen)

    def history(  # noqa: PLR0913, PLR0917 - the values of one query, flat for the wire
        self,
        login: int,
        server: str,
        kind: str,
        span: tuple[int, int],
        symbol: str,
        before: tuple[int, int] | None,
        limit: int,
        most: int,
    ) -> dict[str, Any]:
        """One page of deals or orders, newest first, older than the cursor `before`.

        Counting makes no objects: a span of more than `most` rows is refused before it costs.
        """
        count = mt5.history_deals_total if kind == "deals" else mt5.history_orders_total
        fetch = mt5.history_deals_get if kind == "deals" else mt5.history_orders_get

        def select(_info: Any) -> Any:
            found = count(*span)
            if found is not None and found > most:
                raise Refusal("too_many", "the span holds too many rows", int(found))
            return None if found is None else fetch(*span)

        rows = self.guarded(login, server, select)
        moment = "time_msc" if kind == "deals" else "time_done_msc"

        def place(row: Any) -> tuple[int, int]:
            return getattr(row, moment), row.ticket

        wanted = (
            row
            for row in rows
            if (not symbol or row.symbol == symbol) and (before is None or place(row) < before)
        )
        # A window may hold many times a page: only a page becomes dictionaries.
        newest = heapq.nlargest(limit + 1, wanted, key=place)
        return {"rows": [row._asdict() for row in newest[:limit]], "more": len(newest) > limit}

    def history_size(self, login: int, server: str) -> dict[str, Any]:
        """How many deals and finished orders of all time are here, at this moment."""

        def count(info: Any) -> dict[str, Any] | None:
            deals = mt5.history_deals_total(*EVER)
            # Asked for nothing after a failure, which last_error() is then still about.
            orders = None if deals is None else mt5.history_orders_total(*EVER)
            if orders is None:
                return None
            return {"deals": deals, "orders": orders, "funded": bool(info.balance or info.credit)}

        size: dict[str, Any] = self.guarded(login, server, count)
        return size

    # -- the long poll --------------------------------------------------------------------------

    def open_poll(self) -> dict[str, int]:
        """Begin a poll: every older one ends at its next look."""
        self.fence.generation += 1
        self.generation = self.fence.generation
        self.rested_at = self.due_at = 0.0
        return {"generation": self.generation}

    def wait_changes(
        self, token: int, login: int, server: str, since: str, timeout_s: float, hold_s: float
    ) -> dict[str, Any]:
        """Rest and look until the state differs from look `since`, or the time is over.

        A caller who can tell nothing for `hold_s` has us rest for so long, and takes the look that
        follows whatever it shows.
        """
        deadline = time.monotonic() + (hold_s or timeout_s)
        while True:
            # A caller who comes back at once does not make us look at once.
            wake_at = max(self.rested_at, deadline if hold_s else min(self.due_at, deadline))
            time.sleep(max(wake_at - time.monotonic(), 0))
            with self.fence.lock:
                # From here: waiting for somebody else's login is not what a look costs.
                began = time.perf_counter()
                self.check_token(token)
                if self.generation != self.fence.generation:
                    raise Refusal("superseded", "a newer poll has begun")
                seen = time.time()
                look = self.guarded(login, server, coherent_look)
                cost = time.perf_counter() - began
            self.note(look, cost)
            version = f"{self.generation}.{self.looks}"
            if version != since or time.monotonic() >= deadline:
                return {"version": version, "snapshot": look_as_json(look, seen)}

    def note(self, look: Look, cost: float) -> None:
        """Keep a look that took `cost` seconds, and say when the next may be and when it is due."""
        now = time.monotonic()
        if self.seen != look:
            self.seen, self.changed_at = look, now
            self.looks += 1
        step = (now - self.changed_at) / SILENCE_PER_STEP
        # A look that had to wait for the processor is no dear look: the others tell.
        self.costs = (*self.costs[1 - COSTS_KEPT :], cost)
        self.rested_at = now + min(IDLE_PER_LOOK * min(self.costs), LONGEST_REST)
        self.due_at = now + min(max(step, SHORTEST_STEP), LONGEST_STEP)


def coherent_look(info: Any) -> Look | None:
    """(info, positions, orders, terminal) with the same AccountInfo before and after.

    In a market faster than three looks the last one is given: each part is true of its moment.
    """
    for _ in range(COHERENT_LOOKS):
        positions, orders, terminal = mt5.positions_get(), mt5.orders_get(), mt5.terminal_info()
        if positions is None or orders is None or terminal is None:
            return None
        after = mt5.account_info()
        if after is None or after.login != info.login or after.server != info.server:
            raise Refusal("wrong_account", "the login changed while the answer was made")
        if after == info:
            break
        info = after
    return info, positions, orders, (terminal.connected, terminal.trade_allowed)


def look_as_json(look: Look, seen: float) -> dict[str, Any]:
    """The look with every field under MetaTrader's name, stamped with this machine's clock.

    `seen` is when it began: whoever asked after that may have done something it does not show.
    """
    info, positions, orders, (connected, trade_allowed) = look
    return {
        "account": info._asdict(),
        "positions": [position._asdict() for position in positions],
        "orders": [order._asdict() for order in orders],
        "terminal": {"connected": connected, "trade_allowed": trade_allowed},
        "seen_ms": int(seen * 1000),
    }


def refuse_with_last_error(kind: str) -> NoReturn:
    """Raise a Refusal with the module's own code and text."""
    code, text = mt5.last_error()
    raise Refusal(kind, str(text), int(code))


# The operations that change or read under the lock for their whole length; the poll takes the
# lock look by look instead.
LOCKED = ("sign_in", "snapshot", "probe", "history_size", "history", "open_poll")


def invoke(agent: Agent, op: str, token: int, wait_s: float, args: tuple[Any, ...]) -> bytes:
    """Run one operation and return its answer as JSON bytes; nothing is ever raised across.

    Args:
        agent: The Agent of this connection.
        op: Its operation.
        token: The caller's fencing token.
        wait_s: How long to wait for the lock, and MetaTrader for others; after that nobody reads
            the answer any more.
        args: Plain values.
    """
    try:
        answer = perform(agent, op, token, wait_s, args)
        return json.dumps({"answer": answer}, allow_nan=False).encode()
    except Refusal as refusal:
        error = {"kind": refusal.kind, "text": refusal.text, "code": refusal.code}
    except Exception as fault:  # noqa: BLE001 - a traceback across the wire could carry a password
        error = {"kind": "fault", "text": type(fault).__name__, "code": 0}
    return json.dumps({"error": error}).encode()


def perform(agent: Agent, op: str, token: int, wait_s: float, args: tuple[Any, ...]) -> Any:
    """Run one operation under the lock, or the poll, which takes the lock look by look."""
    if op == "wait_changes":
        return agent.wait_changes(token, *args)
    if op not in LOCKED:
        raise Refusal("failed", "no operation " + op, -7)
    give_up_at = time.monotonic() + wait_s
    if not agent.fence.lock.acquire(timeout=wait_s):
        raise Refusal("busy", "another call holds the terminal")
    try:
        agent.check_token(token)
        agent.give_up_at = give_up_at
        return getattr(agent, op)(*args)
    finally:
        agent.fence.lock.release()
