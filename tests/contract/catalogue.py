"""The numbered rows of the conformance matrix; what a row needs; where rows are collected.

A row is a function of a `Case`. It asserts what the MetaTrader5 module does, through whichever
client the case holds. Numbers are for ever: a row that goes leaves a gap, a new one takes a free
number.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tests.contract.case import Case

Body = Callable[["Case"], None]
T = TypeVar("T")


class Need(StrEnum):
    """What not every client or target has; the values stand in reports."""

    MODULE = "the module's own functions"
    GUARD = "reads that name their account"
    POLL = "a long poll"
    TRADING = "trading"
    TWO_ACCOUNTS = "two accounts"
    INVESTOR = "an investor password"
    NETTING = "a netting account"
    TWO_TERMINALS = "two terminals"
    CONTROL = "simulator control"


OF_CLIENTS = frozenset((Need.MODULE, Need.GUARD, Need.POLL))
"""Needs that a client fulfils or not; all others are the target's."""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        number: From 1.
        title: What is so, as a sentence.
        needs: What client and target must have.
        body: Asserts it.
        room: Which part of the matrix it belongs to.
        core: Also run against servers with other versions of RPyC.
    """

    number: int
    title: str
    needs: frozenset[Need]
    body: Body
    room: str
    core: bool = False

    @property
    def label(self) -> str:
        """The number as people cite it."""
        return f"{self.number:03d}"


_ROWS: dict[int, Row] = {}


def row(number: int, title: str, *needs: Need, core: bool = False) -> Callable[[Body], Body]:
    """Enter a function into the matrix under a number."""

    def enter(body: Body) -> Body:
        _enter(Row(number, title, frozenset(needs), body, _room(body), core))
        return body

    return enter


def family(
    first: int, title: str, members: Iterable[T], *needs: Need, core: bool = False
) -> Callable[[Callable[["Case", T], None]], Callable[["Case", T], None]]:
    """Enter a function once for each member, numbered from `first` on.

    `{}` in the title stands for the member.
    """

    def enter(body: Callable[["Case", T], None]) -> Callable[["Case", T], None]:
        for number, member in enumerate(members, first):
            bound = partial(_given, body, member)
            _enter(Row(number, title.format(member), frozenset(needs), bound, _room(body), core))
        return body

    return enter


def rows() -> Iterator[Row]:
    """All rows in the order of their numbers; the modules that hold them must be imported."""
    return iter(sorted(_ROWS.values(), key=lambda entered: entered.number))


def _given(body: Callable[["Case", Any], None], member: object, case: "Case") -> None:
    body(case, member)


def _room(body: Callable[..., None]) -> str:
    return body.__module__.rpartition(".")[2]


def _enter(entered: Row) -> None:
    if entered.number in _ROWS:
        raise ValueError(f"row {entered.label} is there twice: {entered.title}")
    _ROWS[entered.number] = entered
