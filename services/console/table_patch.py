"""The difference between two tables, as the browser's table takes it. Pure."""

from collections.abc import Mapping

from console.view import Row, Table

Patch = Mapping[str, object]


def table_patch(before: Table, after: Table) -> Patch | None:
    """What turns `before` into `after`; None where nothing differs.

    Returns:
        `order`: every ticket in the order shown, only when rows came, went or moved;
        `rows`: `{ticket: {column: [text, tone]}}` of the cells that differ;
        `totals`: the whole of the totals, only when they differ.
    """
    patch: dict[str, object] = {}
    if list(before.rows) != list(after.rows):
        patch["order"] = list(after.rows)
    rows = {
        ticket: changed
        for ticket, row in after.rows.items()
        if (changed := _changed(before.rows.get(ticket, {}), row))
    }
    if rows:
        patch["rows"] = rows
    if before.totals != after.totals:
        patch["totals"] = _changed({}, after.totals)
    return patch or None


def _changed(before: Row, after: Row) -> dict[str, list[str]]:
    return {
        column: [cell.text, cell.tone.value]
        for column, cell in after.items()
        if before.get(column) != cell
    }
