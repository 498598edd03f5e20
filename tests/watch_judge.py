"""One watcher's picture of an account, put together from its messages and judged with each.

It knows contracts §4 and nothing of the pool's code.
"""

import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec
from tests.watch_ledger import Ledger, Place
from tests.watch_rows import Row, by_ticket, order_problems, position_problems

ACCOUNT_FIELDS = 28
NUMBERED = frozenset(("position_update", "account_update", "order_update", "status"))
PLAIN = frozenset(("pong", "heartbeat", "error"))
STATES = frozenset(
    (
        "connected",
        "connecting",
        "broker_disconnected",
        "login_failed",
        "disconnected",
        "terminal_unavailable",
        "degraded",
    )
)
TRAIL = 12


class Message(msgspec.Struct, frozen=True):
    """The envelope of every message."""

    type: str
    account_id: str
    epoch: int
    seq: int
    ts: str
    data: dict[str, Any]


class Mirror:
    """The account as its messages tell it.

    Args:
        account_id: Whose messages are expected.
        login: Whose figures.
        ledger: Where breaches are noted, and what was seen is compared.
        who: Name of the watcher.

    Attributes:
        epoch: Of the last message; 0 before the first.
        seq: Of the last state that was told.
        account: All fields; None while no snapshot has told them.
        positions: By ticket.
        orders: By ticket.
        status: `state` and `reason`.
        resume_ticket: The newest; None when there is none.
        resumed: How often a connection went on where the last one ended.
    """

    def __init__(self, account_id: str, login: int, ledger: Ledger, who: str) -> None:
        self.epoch = 0
        self.seq = 0
        self.account: Row | None = None
        self.positions: dict[int, Row] = {}
        self.orders: dict[int, Row] = {}
        self.status: Row = {"state": "connected", "reason": None}
        self.resume_ticket: str | None = None
        self.resumed = 0
        self._account_id, self._login = account_id, login
        self._ledger, self._who = ledger, who
        self._where = "nowhere"
        self._since: tuple[int, int] | None = None
        self._greeted = False
        # Until this seq a resumed connection is told again what was missed.
        self._replay_to = 0
        # An unnumbered message ran ahead to this seq: a conflated snapshot must follow.
        self._owed = 0
        self._trail: deque[str] = deque(maxlen=TRAIL)

    @property
    def since(self) -> tuple[int, int] | None:
        """(epoch, seq) to resume after; None before there is a whole state."""
        return None if self.account is None else (self.epoch, self.seq)

    def begin(self, where: str, since: tuple[int, int] | None) -> None:
        """A connection begins.

        Args:
            where: Name of the replica.
            since: What was asked for.
        """
        self._where, self._since = where, since
        self._greeted = False
        self._replay_to = self._owed = 0
        self._trail.append(f"-- {where} since {since}")

    def hear(self, text: bytes) -> Message:
        """Take a message.

        Raises:
            msgspec.DecodeError: It has another shape than every message must have.
        """
        message = msgspec.json.decode(text, type=Message)
        self._trail.append(
            f"{time.time():.3f} {self._where} {message.type} {message.epoch}:{message.seq}"
            f" {str(message.data)[:120] if message.type not in NUMBERED else ''}"
        )
        self._ledger.counts[message.type] += 1
        if message.account_id != self._account_id:
            self.blame(f"WRONG ACCOUNT: a message of {message.account_id}")
        if message.type == "connected":
            self._connect(message)
        elif not self._greeted and message.type == "error" and not message.epoch:
            # Who is turned away is told when to come back; nothing follows but the close.
            pass
        elif not self._greeted:
            self.blame(f"{message.type} before `connected`")
        elif message.type == "snapshot":
            self._snapshot(message)
        elif message.type in NUMBERED:
            self._state(message, text)
        else:
            self._plain(message)
        return message

    def blame(self, problem: str) -> None:
        """Note a breach with the messages that led to it."""
        trail = "\n    ".join(self._trail)
        self._ledger.wrong.append(f"{self._who} at {self._where}: {problem}\n    {trail}")

    # -- kinds of messages ----------------------------------------------------------------------

    def _connect(self, message: Message) -> None:
        if self._greeted:
            self.blame("`connected` twice")
        self._greeted = True
        data = message.data
        self.resume_ticket = data["resume_ticket"]
        self.status = data.get("status", self.status)
        if data["resumed"]:
            self.resumed += 1
            self._ledger.counts["resumed"] += 1
            if self._since is None or self._since != (self.epoch, self.seq):
                self.blame("resumed, and nobody had asked")
            if message.epoch != self.epoch or message.seq < self.seq:
                self.blame(f"resumed at {message.epoch}:{message.seq}")
            self._replay_to = message.seq
            return
        if (message.epoch, message.seq) < (self.epoch, self.seq):
            self._older(message)
        self.epoch, self.seq, self.account = message.epoch, message.seq, None

    def _older(self, message: Message) -> None:
        """A reconnect leads to an older state, which only who knows what we had can avoid."""
        if message.epoch == self.epoch and self._since is not None:
            self.blame(f"BACKWARDS to {message.seq} from {self.seq}, which it was told we had")
        what = "seq" if message.epoch == self.epoch else "epoch"
        asked = "with" if self._since else "without"
        self._ledger.counts[f"older {what} after a reconnect {asked} `since`"] += 1

    def _snapshot(self, message: Message) -> None:
        data, jumps = message.data, bool(message.data.get("conflated"))
        self._ledger.counts["conflated"] += jumps
        if message.epoch != self.epoch:
            if message.epoch < self.epoch:
                self.blame(f"an older epoch on an open socket: {message.epoch}")
            self._ledger.counts["new epoch on an open socket"] += 1
        elif message.seq < max(self.seq, self._owed):
            self.blame(f"BACKWARDS to {message.seq} from {max(self.seq, self._owed)} in an epoch")
        elif message.seq > self.seq and not jumps and self.account is not None:
            self.blame(f"a snapshot jumps from {self.seq} to {message.seq}, not conflated")
        self._owed = 0
        self.epoch, self.seq = message.epoch, message.seq
        if len(data["account"]) != ACCOUNT_FIELDS:
            self.blame(f"an account of {len(data['account'])} fields")
        self.account = dict(data["account"])
        self.positions = by_ticket(data["positions"])
        self.orders = by_ticket(data["orders"])
        self.status = data.get("status", self.status)
        self._agree()

    def _state(self, message: Message, text: bytes) -> None:
        """A message that advances the line, or a `status` of this connection alone."""
        if message.type == "status":
            if message.data.get("state") not in STATES:
                self.blame(f"a status nobody knows: {message.data}")
            if (message.epoch, message.seq) == (self.epoch, self.seq):
                self._ledger.counts["status of the connection"] += 1
                self.status = message.data
                return
        if message.epoch != self.epoch:
            self.blame(f"epoch {message.epoch} without a snapshot after {self.epoch}")
        elif message.seq <= self.seq:
            self.blame(f"BACKWARDS or twice: {message.seq} after {self.seq}")
        elif message.seq != self.seq + 1:
            self.blame(f"A GAP: {message.seq} after {self.seq}")
        if self._owed:
            self.blame(f"an unnumbered message had run ahead to {self._owed}")
            self._owed = 0
        self.epoch, self.seq = message.epoch, message.seq
        problem = self._ledger.message(self._place, text, self._who)
        if problem:
            self.blame(problem)
        self._apply(message)

    def _plain(self, message: Message) -> None:
        if message.type not in PLAIN:
            self.blame(f"a message of no known type: {message.type}")
        if message.epoch != self.epoch:
            self.blame(f"{message.type} of epoch {message.epoch}, the state is of {self.epoch}")
        elif message.seq < self.seq:
            self.blame(f"{message.type} carries {message.seq} after {self.seq}")
        elif message.seq > max(self.seq, self._replay_to):
            self._owed = message.seq
        if message.type == "heartbeat":
            self.resume_ticket = message.data.get("resume_ticket", self.resume_ticket)

    # -- the state ------------------------------------------------------------------------------

    @property
    def _place(self) -> Place:
        return Place(self._account_id, self.epoch, self.seq)

    def _apply(self, message: Message) -> None:
        data = message.data
        if message.type == "status":
            self.status = data
            return
        if self.account is None:
            self.blame(f"{message.type} before a snapshot")
            return
        self._ledger.looked(self._place, message.ts)
        if message.type == "account_update":
            self._merge(data["account"])
        elif message.type == "position_update":
            after = by_ticket(data["positions"])
            self._blame_all(position_problems(self.positions, after, data))
            self.positions = after
        else:
            after = by_ticket(data["orders"])
            self._blame_all(order_problems(self.orders, after, data))
            self.orders = after
        self._agree()

    def _merge(self, changed: Row) -> None:
        account = self.account or {}
        if not changed or not changed.keys() <= account.keys():
            self.blame(f"changed fields: {changed}")
        same = [name for name, value in changed.items() if account.get(name) == value]
        if same:
            self.blame(f"told as changed, and not changed: {same}")
        self.account = {**account, **changed}

    def _agree(self) -> None:
        """Compare the whole state with what others had at the same place."""
        if self.account is not None and self.account["login"] != self._login:
            self.blame(f"WRONG ACCOUNT: login {self.account['login']}, not {self._login}")
        tickets = (*self.positions, *self.orders)
        strangers = [self._ledger.stranger(one, self._account_id) for one in tickets]
        # A status of the connection is not the account's, so it is left out.
        state = (self.account, self.positions, self.orders)
        self._blame_all([*strangers, self._ledger.state(self._place, state, self._who)])

    def _blame_all(self, problems: Iterable[str | None]) -> None:
        for problem in problems:
            if problem:
                self.blame(problem)
