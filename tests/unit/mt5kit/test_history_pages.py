"""A page of history knows where the next begins: by time, then by ticket."""

from typing import Any

import msgspec
import pytest

from mt5kit.domain.history import HistoryPage
from mt5kit.domain.trades import Deal, Order


def row(kind: type[Any], **known: int) -> Any:
    fields = {
        field.name: {int: 0, float: 0.0, str: ""}.get(field.type)
        for field in msgspec.structs.fields(kind)
    }
    return msgspec.convert(fields | known, kind)


@pytest.mark.parametrize(("kind", "moment"), [(Deal, "time_msc"), (Order, "time_done_msc")])
def test_the_cursor_tells_rows_of_one_millisecond_apart(kind: type[Any], moment: str) -> None:
    rows = tuple(row(kind, ticket=ticket, **{moment: 5000}) for ticket in (9, 8, 7))
    assert HistoryPage(rows, more=True).next_cursor == (5000, 7)
    assert HistoryPage(rows[:1], more=True).next_cursor == (5000, 9)


def test_the_last_page_has_no_cursor() -> None:
    assert HistoryPage((row(Deal, ticket=1),), more=False).next_cursor is None
    assert HistoryPage[Deal]((), more=True).next_cursor is None
