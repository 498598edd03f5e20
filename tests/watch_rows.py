"""Whether an update names as come, gone and modified what has come, gone and changed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Rows = Mapping[int, Row]

# What makes a position `modified` (contracts §4).
TERMS = ("volume", "sl", "tp", "price_open", "comment")
# Of an order only what a person surely decides; there may be more of it.
ORDER_TERMS = ("volume_current", "price_open", "sl", "tp")


def by_ticket(rows: Sequence[Row]) -> dict[int, Row]:
    """Rows by their tickets, in their order."""
    return {row["ticket"]: row for row in rows}


def position_problems(before: Rows, after: Rows, data: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a `position_update` that leads from one state to another."""
    yield from _came_and_went(before, after, data["opened"], data["closed"])
    modified, changed = by_ticket(data["modified"]), _changed(before, after, TERMS)
    if modified.keys() != changed:
        yield f"modified {sorted(modified)}, and {sorted(changed)} did change"
    yield from _same_rows(after, modified)


def order_problems(before: Rows, after: Rows, data: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an `order_update` that leads from one state to another."""
    yield from _came_and_went(before, after, data["placed"], data["removed"])
    modified, changed = by_ticket(data["modified"]), _changed(before, after, ORDER_TERMS)
    if not changed <= modified.keys():
        yield f"modified {sorted(modified)}, and {sorted(changed)} did change"
    yield from _same_rows(after, modified)


def _came_and_went(
    before: Rows, after: Rows, came: Sequence[Row], went: Sequence[Row]
) -> Iterator[str]:
    if by_ticket(came) != _without(after, before):
        yield f"come {sorted(by_ticket(came))}: {sorted(before)} -> {sorted(after)}"
    if by_ticket(went) != _without(before, after):
        yield f"gone {sorted(by_ticket(went))}: {sorted(before)} -> {sorted(after)}"


def _without(rows: Rows, others: Collection[int]) -> dict[int, Row]:
    return {ticket: row for ticket, row in rows.items() if ticket not in others}


def _changed(before: Rows, after: Rows, terms: Sequence[str]) -> set[int]:
    return {
        ticket
        for ticket in before.keys() & after.keys()
        if any(before[ticket][term] != after[ticket][term] for term in terms)
    }


def _same_rows(after: Rows, modified: Rows) -> Iterator[str]:
    if any(after.get(ticket) != row for ticket, row in modified.items()):
        yield "a modified row is another than among all"
