"""What a broker keeps: the present of its accounts, and what has happened since it began.

One SQLite file per server, or memory when nobody named a directory. The present stands in tables
of its own, so that starting again costs what the accounts hold, not what they have done.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias

import msgspec
import numpy as np

from terminal_sim.broker.in_hand import InHand, Item
from terminal_sim.broker.journal_file import file_name, make_private
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.values import Change, Deal, Order, Position, Profile
from terminal_sim.broker.wanted import Wanted

# Where SQLite keeps nothing on disk.
_MEMORY = ":memory:"
# A broker that was killed may need a moment to let go of its file.
_PATIENCE_S = 5.0
_VERSION = 2

_SCHEMA: Final = """
create table about (one integer primary key check (one = 1), version, server, seed, began_ms,
    midnight_ms, advanced_ms, ticket);
create table shifts (at_ms, by_ms, fault);
create table accounts (login integer primary key, mark, balance, credit, version);
create table positions (login, ticket, row, unique (login, ticket));
create table pending (login, ticket, row, unique (login, ticket));
create table parts (login, ticket, row, unique (login, ticket));
create table late (login, ticket, row, unique (login, ticket));
create table deals (login, at_ms, ticket, of_order, position, row);
create table orders (login, at_ms, ticket, of_order, position, row);
create index deals_at on deals (login, at_ms);
create index deals_of on deals (login, position);
create index deals_by on deals (login, of_order);
create index orders_at on orders (login, at_ms);
create index orders_of on orders (login, position);
create index orders_by on orders (login, of_order);
"""

_READ_ANCHOR: Final = (
    "select version, server, seed, began_ms, midnight_ms, advanced_ms, ticket from about"
)
_WRITE_ANCHOR: Final = (
    "insert into about (version, server, seed, began_ms, midnight_ms, advanced_ms, ticket)"
    " values (?, ?, ?, ?, ?, ?, ?)"
)
_PRESENT: Final = ("positions", "pending", "parts", "late")
_DELETE: Final = {
    table: f"delete from {table} where login = ? and ticket = ?"  # noqa: S608 - our own words
    for table in _PRESENT
}
# A row that changes stays where it is: positions stand in the order of their opening.
_PUT: Final = {
    table: f"insert into {table} values (?, ?, ?)"  # noqa: S608 - our own words
    " on conflict (login, ticket) do update set row = excluded.row"
    for table in _PRESENT
}
_INSERT: Final = {
    "deals": "insert into deals values (?, ?, ?, ?, ?, ?)",
    "orders": "insert into orders values (?, ?, ?, ?, ?, ?)",
}
_UPDATE: Final = "update accounts set balance = ?, credit = ?, version = ? where login = ?"
# What an integer of SQLite holds.
_LEAST, _MOST = -(2**63), 2**63 - 1

Kind: TypeAlias = Literal["deals", "orders"]
Values: TypeAlias = tuple[str | bytes | float | None, ...]

_encode = msgspec.msgpack.Encoder().encode
_position = msgspec.msgpack.Decoder(Position).decode
_order = msgspec.msgpack.Decoder(Order).decode
_deal = msgspec.msgpack.Decoder(Deal).decode


class JournalError(Exception):
    """A journal cannot be used; the message is one line with the file and the reason."""


class Anchor(msgspec.Struct, frozen=True, array_like=True):
    """Where a journal begins and how far it has come; instants are UTC epoch milliseconds.

    Attributes:
        server: Name.
        seed: Of its market.
        began_ms: Up to here the scenario's past was worked out at once.
        midnight_ms: Relative times of the scenario count from here.
        advanced_ms: Up to here everything that was due has happened.
        ticket: The last that was given.
    """

    server: str
    seed: int
    began_ms: int
    midnight_ms: int
    advanced_ms: int
    ticket: int


class _Money(msgspec.Struct, frozen=True, array_like=True):
    """What the row of an account tells of its present."""

    balance: float
    credit: float
    version: int


class Shift(msgspec.Struct, frozen=True, array_like=True):
    """A shift of the wall clock; ``fault`` is the id of the fault that lasts, else None."""

    at_ms: int
    by_ms: int
    fault: int | None = None


class Journal:
    """A file of its own for each server; every method but :meth:`open` may raise sqlite3.Error.

    Changes are gathered until the next :meth:`commit`: of a position that came and went meanwhile
    nothing has to be written but its history.

    Args:
        base: The database.
        where: What to call it in messages.
    """

    def __init__(self, base: sqlite3.Connection, where: str) -> None:
        self._base = base
        self.where = where
        self._money: dict[int, Values] = {}
        self._present: dict[tuple[str, int, int], bytes | None] = {}
        self._history: dict[Kind, list[Values]] = {"deals": [], "orders": []}

    @classmethod
    def in_memory(cls) -> Self:
        """Return a journal that nobody will find again."""
        return cls._prepared(
            sqlite3.connect(_MEMORY, check_same_thread=False, isolation_level=None), _MEMORY
        )

    @classmethod
    def open(cls, directory: Path, server: str) -> Self:
        """Open the journal of a server, or begin it.

        Raises:
            JournalError: The file cannot be read or written, is none of ours, or is in use.
        """
        path = directory / file_name(server)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            make_private(path)
            base = sqlite3.connect(
                path, timeout=_PATIENCE_S, check_same_thread=False, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"{path}: {error}") from error
        try:
            # An acknowledged order survives whatever happens to the process or the machine.
            base.execute("pragma locking_mode = exclusive")
            base.execute("pragma journal_mode = wal")
            base.execute("pragma synchronous = full")
            return cls._prepared(base, str(path))
        except sqlite3.Error as error:
            base.close()
            raise JournalError(f"{path}: {error}") from error

    @classmethod
    def _prepared(cls, base: sqlite3.Connection, where: str) -> Self:
        base.execute("begin immediate")
        if not base.execute("select 1 from sqlite_master").fetchone():
            for statement in _SCHEMA.split(";"):
                base.execute(statement)
        base.execute("commit")
        return cls(base, where)

    def close(self) -> None:
        """Give the file back."""
        self._base.close()

    def anchor(self) -> Anchor | None:
        """Return where the journal begins; None when it is new.

        Raises:
            JournalError: It was begun by another version, or is damaged.
        """
        row = self._base.execute(_READ_ANCHOR).fetchone()
        if row and row[0] != _VERSION:
            raise JournalError(f"{self.where}: was begun by another version; move it away")
        with self._reading():
            return msgspec.convert(row[1:], Anchor) if row else None

    def begin(self, anchor: Anchor) -> None:
        """Note where the journal begins."""
        values = _VERSION, *msgspec.structs.astuple(anchor)
        self._write(_WRITE_ANCHOR, values)

    def advanced(self, at_ms: int, ticket: int) -> None:
        """Note how far everything has come."""
        self._write("update about set advanced_ms = ?, ticket = ?", (at_ms, ticket))

    def commit(self) -> None:
        """Make sure of everything kept since the last time."""
        self._flush()
        if self._base.in_transaction:
            self._base.execute("commit")

    def mark(self, login: int) -> str | None:
        """Return the mark an account was added with; None when it is not here."""
        row = self._base.execute("select mark from accounts where login = ?", (login,)).fetchone()
        return row[0] if row else None

    def add(self, mark: str, state: AccountState, changes: Iterable[Change]) -> None:
        """Add an account: its present, and the changes of its past that have to be kept."""
        login = state.profile.login
        values = login, mark, state.balance, state.credit, state.version
        self._write("insert into accounts values (?, ?, ?, ?, ?)", values)
        whole = Change(tuple(state.positions.values()), orders=tuple(state.orders.values()))
        self._keep_present(login, whole)
        for change in changes:
            self._keep_history(login, change)

    def keep(self, state: AccountState, change: Change) -> None:
        """Keep a change that has made an account what it is now."""
        login = state.profile.login
        self._keep_present(login, change)
        self._keep_history(login, change)
        self._money[login] = state.balance, state.credit, state.version, login

    def state(self, profile: Profile) -> AccountState:
        """Return an account as it was left.

        Raises:
            KeyError: It is not here.
            JournalError: The journal is damaged.
        """
        self._flush()
        login = (profile.login,)
        account = self._base.execute(
            "select balance, credit, version from accounts where login = ?", login
        ).fetchone()
        if account is None:
            raise KeyError(profile.login)
        held = self._base.execute("select row from positions where login = ? order by rowid", login)
        placed = self._base.execute("select row from pending where login = ? order by rowid", login)
        with self._reading():
            money = msgspec.convert(account, _Money)
            return AccountState(
                profile,
                positions=tuple(_position(row) for (row,) in held),
                orders=tuple(_order(row) for (row,) in placed),
                balance=money.balance,
                credit=money.credit,
                version=money.version,
            )

    def hold(self, login: int, item: Item) -> None:
        """Keep what an account has in hand, or has in hand no more."""
        self._present[item.kind, login, item.ticket] = item.row

    def in_hand(self, login: int, note: Callable[[Item], None]) -> InHand:
        """Return what an account has in hand; ``note`` is told how that changes.

        Raises:
            JournalError: The journal is damaged.
        """
        self._flush()
        parts = self._base.execute("select ticket, row from parts where login = ?", (login,))
        items = [Item("parts", *row) for row in parts]
        late = self._base.execute("select ticket, row from late where login = ?", (login,))
        items += [Item("late", *row) for row in late]
        with self._reading():
            return InHand(items, note)

    def shifts(self) -> tuple[Shift, ...]:
        """Return the shifts of the wall clock, oldest first.

        Raises:
            JournalError: The journal is damaged.
        """
        rows = self._base.execute("select at_ms, by_ms, fault from shifts order by at_ms, rowid")
        with self._reading():
            return tuple(msgspec.convert(row, Shift) for row in rows)

    def shift(self, shift: Shift) -> None:
        """Keep a shift."""
        self._write("insert into shifts values (?, ?, ?)", msgspec.structs.astuple(shift))

    def end_fault(self, fault: int) -> None:
        """Note that a fault's shift has been taken back."""
        self._write("update shifts set fault = null where fault = ?", (fault,))

    def count(self, kind: Kind, login: int, wanted: Wanted) -> int:
        """Return how many rows :meth:`deals` or :meth:`orders` would at most find."""
        self._flush()
        where, values = _where(login, wanted)
        statement = f"select count(*) from {kind} where {where}"  # noqa: S608 - our own words
        found: int = self._base.execute(statement, values).fetchone()[0]
        return found

    def deals(self, login: int, wanted: Wanted) -> list[Deal]:
        """Return the wanted deals, unordered.

        Raises:
            JournalError: The journal is damaged.
        """
        with self._reading():
            return [_deal(row) for row in self._rows("deals", login, wanted)]

    def orders(self, login: int, wanted: Wanted) -> list[Order]:
        """Return the wanted orders that are done, unordered.

        Raises:
            JournalError: The journal is damaged.
        """
        with self._reading():
            return [_order(row) for row in self._rows("orders", login, wanted)]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Say that the journal is damaged when a row is none of ours."""
        try:
            yield
        except (msgspec.DecodeError, TypeError, ValueError, OverflowError) as error:
            raise JournalError(f"{self.where}: is damaged: {error}") from error

    def _rows(self, kind: Kind, login: int, wanted: Wanted) -> list[bytes]:
        self._flush()
        where, values = _where(login, wanted)
        statement = f"select at_ms, row from {kind} where {where}"  # noqa: S608 - our own words
        found = self._base.execute(statement, values).fetchall()
        keep = wanted.in_time(np.array([at_ms for at_ms, _ in found], np.int64))
        return [
            row for (_, row), wanted_too in zip(found, keep.tolist(), strict=True) if wanted_too
        ]

    def _write(self, statement: str, values: Values) -> None:
        self._open_transaction()
        self._base.execute(statement, values)

    def _write_many(self, statement: str, rows: list[Values]) -> None:
        if rows:
            self._open_transaction()
            self._base.executemany(statement, rows)

    def _open_transaction(self) -> None:
        if not self._base.in_transaction:
            self._base.execute("begin immediate")

    def _keep_present(self, login: int, change: Change) -> None:
        for ticket in change.gone:
            self._present["positions", login, ticket] = None
        for position in change.positions:
            self._present["positions", login, position.ticket] = _encode(position)
        for ticket in change.removed:
            self._present["pending", login, ticket] = None
        for order in change.orders:
            self._present["pending", login, order.ticket] = _encode(order)

    def _keep_history(self, login: int, change: Change) -> None:
        self._history["deals"] += [
            (login, d.time_ms, d.ticket, d.order, d.position_id, _encode(d)) for d in change.deals
        ]
        self._history["orders"] += [
            (login, o.done_ms, o.ticket, o.ticket, o.position_id, _encode(o)) for o in change.done
        ]

    def _flush(self) -> None:
        """Write what was gathered, into the present transaction."""
        for table, statement in _DELETE.items():
            gone = [key for key, row in self._present.items() if row is None and key[0] == table]
            self._write_many(statement, [key[1:] for key in gone])
        for table, statement in _PUT.items():
            there = [(*key[1:], row) for key, row in self._present.items() if key[0] == table]
            self._write_many(statement, [values for values in there if values[2] is not None])
        for kind, rows in self._history.items():
            self._write_many(_INSERT[kind], rows)
            rows.clear()
        self._write_many(_UPDATE, list(self._money.values()))
        self._present.clear()
        self._money.clear()


def _where(login: int, wanted: Wanted) -> tuple[str, Values]:
    first_ms, stop_ms = wanted.bounds_ms()
    where, values = "login = ? and at_ms >= ? and at_ms < ?", [login, first_ms, stop_ms]
    if wanted.order is not None:
        where, values = f"{where} and of_order = ?", [*values, wanted.order]
    if wanted.position is not None:
        where, values = f"{where} and position = ?", [*values, wanted.position]
    return where, tuple(min(max(value, _LEAST), _MOST) for value in values)
