"""340-349: depth of market."""

from tests.contract.case import Case
from tests.contract.catalogue import Need, row
from tests.contract.clients import every


def release(case: Case, symbol: str) -> bool:
    """Release a book; mt5linux's own function leaves the quotes out and cannot work."""
    released: bool = case.mt5.eval(f"mt5.market_book_release({symbol!r})")
    return released


@row(340, "market_book_add(), _get() and _release() give a book", Need.MODULE)
def whole(case: Case) -> None:
    symbol = case.target.symbol
    assert case.mt5.market_book_add(symbol) is True
    assert len(case.mt5.market_book_get(symbol) or ()) > 0
    assert release(case, symbol) is True


@row(341, "a book's sells lie above its buys, each side descending", Need.MODULE)
def sides(case: Case) -> None:
    symbol = case.target.symbol
    assert case.mt5.market_book_add(symbol)
    levels = every(case.mt5, case.mt5.market_book_get(symbol))
    assert release(case, symbol)
    sells = [row["price"] for row in levels if row["type"] == case.constant("BOOK_TYPE_SELL")]
    buys = [row["price"] for row in levels if row["type"] == case.constant("BOOK_TYPE_BUY")]
    assert len(sells) + len(buys) == len(levels)
    assert sells + buys == sorted(sells + buys, reverse=True)
    assert min(sells) > max(buys)
    assert all(row["volume_dbl"] > 0 for row in levels)


@row(342, "a book of a symbol that was not added is None", Need.MODULE)
def not_added(case: Case) -> None:
    release(case, case.target.symbol)
    assert case.mt5.market_book_get(case.target.symbol) is None
    assert case.error() < 0


@row(343, "the book of an unknown symbol is refused", Need.MODULE)
def unknown(case: Case) -> None:
    assert case.mt5.market_book_add("NOSUCH") is False
    assert case.error() < 0
    assert case.mt5.market_book_get("NOSUCH") is None


@row(344, "mt5linux 1.0.3 releases a book only when the caller adds the quotes", Need.MODULE)
def quotes(case: Case) -> None:
    assert case.mt5.market_book_add(case.target.symbol)
    assert case.mt5.market_book_release(repr(case.target.symbol)) is True
