"""500-509: an account that holds one position of a symbol at a time."""

import pytest
from tests.contract.case import EVER, Case
from tests.contract.catalogue import Need, family, row
from tests.contract.clients import Fields
from tests.contract.trading import closing, done, market

NEEDS = (Need.TRADING, Need.NETTING)
# Prices may stay within a few points for a while.
MOVED_S = 60.0


def enter(case: Case) -> None:
    """Log the netting account in, in hand and client."""
    assert case.target.netting is not None
    case.client.sign_in(case.target.netting)


def only(case: Case) -> Fields:
    """The one position of the symbol."""
    found = [p for p in case.client.positions() if p["symbol"] == case.target.symbol]
    assert len(found) == 1
    return found[0]


@row(500, "a netting account says so", *NEEDS)
def mode(case: Case) -> None:
    enter(case)
    expected = case.constant("ACCOUNT_MARGIN_MODE_RETAIL_NETTING")
    assert case.client.account()["margin_mode"] == expected


@row(501, "netting: more of the same side averages the price", *NEEDS)
def averaged(case: Case) -> None:
    enter(case)
    symbol = case.target.symbol
    point = case.mt5.symbol_info(symbol).point
    first = done(case, market(case, times=1))

    def moved() -> bool:
        return bool(abs(case.mt5.symbol_info_tick(symbol).ask - first["price"]) > 2 * point)

    # The average of two prices that are the same would be either of them.
    case.eventually(moved, MOVED_S)
    second = done(case, market(case, times=3))
    position = only(case)
    volume = first["volume"] + second["volume"]
    cost = first["price"] * first["volume"] + second["price"] * second["volume"]
    assert position["volume"] == pytest.approx(volume)
    assert position["price_open"] == pytest.approx(cost / volume, abs=point / 10)
    assert position["identifier"] == first["order"]


@row(502, "netting: the other side makes the position smaller", *NEEDS)
def reduced(case: Case) -> None:
    enter(case)
    bought = done(case, market(case, times=3))
    sold = done(case, market(case, "SELL", times=1))
    position = only(case)
    assert position["type"] == case.constant("POSITION_TYPE_BUY")
    assert position["volume"] == pytest.approx(bought["volume"] - sold["volume"])
    assert position["price_open"] == bought["price"]


@row(503, "netting: more of the other side turns the position round", *NEEDS)
def reversed_(case: Case) -> None:
    enter(case)
    bought = done(case, market(case, times=1))
    sold = done(case, market(case, "SELL", times=3))
    position = only(case)
    assert position["type"] == case.constant("POSITION_TYPE_SELL")
    assert position["volume"] == pytest.approx(sold["volume"] - bought["volume"])
    deal = next(d for d in case.client.deals(*EVER) if d["ticket"] == sold["deal"])
    assert deal["entry"] == case.constant("DEAL_ENTRY_INOUT")


@family(504, "netting: the same of the other side closes ({})", ("by symbol", "by ticket"), *NEEDS)
def closed(case: Case, how: str) -> None:
    enter(case)
    done(case, market(case, times=2))
    position = only(case)
    asked = closing(case, position)
    if how == "by symbol":
        del asked["position"]
    done(case, asked)
    assert not [p for p in case.client.positions() if p["symbol"] == case.target.symbol]
