"""520-539: one account, several terminals, and people elsewhere."""

import pytest
from tests.contract.case import EVER, Case
from tests.contract.catalogue import Need, row
from tests.contract.clients import Fields, every
from tests.contract.trading import closing, done, market, order_of, pending, position_of, request

TWO = (Need.TRADING, Need.TWO_TERMINALS)


def elsewhere(case: Case) -> Case:
    """The same client, with the hands at the second terminal."""
    hands = case.another(1)
    case.at_home(hands)
    return Case(case.target, case.client, hands)


@row(520, "a position opened at one terminal shows at another", *TWO, core=True)
def shows(case: Case) -> None:
    other = elsewhere(case)
    result = done(other, market(other))
    position = position_of(case, result)
    assert position["price_open"] == result["price"]


@row(521, "a position closed at one terminal goes at another", *TWO)
def goes(case: Case) -> None:
    other = elsewhere(case)
    position = position_of(case, done(case, market(case)))
    case.eventually(lambda: len(other.mt5.positions_get(ticket=position["ticket"])) == 1)
    done(other, closing(other, position))
    ticket = position["ticket"]
    case.eventually(lambda: ticket not in [p["ticket"] for p in case.client.positions()])


@row(522, "a pending order of one terminal is removed at another", *TWO)
def removed(case: Case) -> None:
    other = elsewhere(case)
    ticket = done(case, pending(case, "BUY_LIMIT"))["order"]
    case.eventually(lambda: len(other.mt5.orders_get(ticket=ticket)) == 1)
    done(other, request(other, "REMOVE", order=ticket))
    case.eventually(lambda: order_of(case, ticket) is None)


@row(523, "both terminals tell the same history and balance", *TWO)
def same_history(case: Case) -> None:
    other = elsewhere(case)
    position = position_of(other, done(other, market(other)))
    result = done(other, closing(other, position))
    case.eventually(lambda: result["deal"] in [d["ticket"] for d in case.client.deals(*EVER)])
    there = every(other.mt5, other.mt5.history_deals_get(*EVER))
    assert case.client.deals(*EVER) == there
    assert case.client.account()["balance"] == other.mt5.account_info().balance


def account(case: Case, path: str) -> str:
    """A route of the home account."""
    home = case.target.home
    return f"/accounts/{home.server}/{home.login}/{path}"


@row(530, "a position that a person opens elsewhere shows, and goes with them", Need.CONTROL)
def by_a_person(case: Case) -> None:
    given = {"symbol": "EURUSD", "type": "sell", "volume": 0.02, "by": "mobile"}
    made: Fields = case.control("POST", account(case, "positions"), json=given)
    position = position_of(case, made)
    assert position["volume"] == 0.02
    assert position["reason"] == case.constant("POSITION_REASON_MOBILE")
    case.control("DELETE", account(case, f"positions/{position['ticket']}"))
    ticket = position["ticket"]
    case.eventually(lambda: ticket not in [p["ticket"] for p in case.client.positions()])


@row(531, "a deposit moves the balance and is a deal", Need.CONTROL)
def deposit(case: Case) -> None:
    before = case.client.account()["balance"]
    for amount in (123.45, -123.45):
        case.control("POST", account(case, "deposits"), json={"amount": amount})
        expected = before + max(amount, 0)

        def arrived(balance: float = expected) -> bool:
            return bool(case.client.account()["balance"] == pytest.approx(balance, abs=0.001))

        case.eventually(arrived)
        deal = case.client.deals(*EVER)[-1]
        assert deal["type"] == case.constant("DEAL_TYPE_BALANCE")
        assert deal["profit"] == amount
