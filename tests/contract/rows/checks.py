"""360-379: order_check()."""

import pytest
from tests.contract.case import Case
from tests.contract.catalogue import Need, family, row
from tests.contract.clients import Fields
from tests.contract.trading import checked, closing, held, market, pending

CHECKED = 0


@row(360, 'order_check() of what would go through is 0 "Done"', Need.MODULE)
def fine(case: Case) -> None:
    result = checked(case, market(case))
    assert (result["retcode"], result["comment"]) == (CHECKED, "Done")


@row(361, "order_check() shows the account as if it were done", Need.MODULE)
def as_if(case: Case) -> None:
    before = case.client.account()
    result = checked(case, market(case))
    assert result["balance"] == pytest.approx(before["balance"], abs=0.1)
    # A bought lot needs no margin of its own where a sold one is held.
    sold = not case.target.simulated and any(
        (row["symbol"], row["type"]) == (case.target.symbol, 1) for row in case.client.positions()
    )
    assert result["margin"] > before["margin"] or sold
    free = result["equity"] - result["margin"]
    assert result["margin_free"] == pytest.approx(free, abs=0.02)
    level = result["equity"] / result["margin"] * 100
    assert result["margin_level"] == pytest.approx(level, rel=1e-4)


@row(362, "order_check() changes nothing", Need.MODULE)
def nothing_changes(case: Case) -> None:
    before, balance = held(case), case.client.account()["balance"]
    checked(case, market(case))
    checked(case, pending(case, "BUY_LIMIT"))
    assert held(case) == before
    assert case.client.account()["balance"] == balance


@row(363, "order_check() of closing takes margin away", Need.MODULE)
def of_closing(case: Case) -> None:
    position = next(iter(case.client.positions()), None) or case.lacks("position")
    result = checked(case, closing(case, position))
    assert result["retcode"] == CHECKED
    assert result["margin"] < case.client.account()["margin"]


BAD: dict[str, tuple[str, Fields]] = {
    "a volume of zero": ("INVALID_VOLUME", {"volume": 0.0}),
    "more money than there is": ("NO_MONEY", {"volume": 40.0}),
    "stops on the wrong side": ("INVALID_STOPS", {"sl": 1e6}),
    "an action that does not exist": ("INVALID", {"action": 99}),
}


@family(364, "order_check() of {} says so", BAD, Need.MODULE, Need.CONTROL)
def objections(case: Case, what: str) -> None:
    retcode, fields = BAD[what]
    result = checked(case, market(case) | fields)
    assert result["retcode"] == case.constant(f"TRADE_RETCODE_{retcode}"), result["comment"]


@row(368, "order_check() takes the request's fields as keywords too", Need.MODULE)
def keywords(case: Case) -> None:
    asked = market(case)
    result = case.mt5.order_check(**asked)
    assert result is not None, case.mt5.last_error()
    assert result.request.symbol == asked["symbol"]


REQUESTS = (
    "{'action': 'buy'}",
    "{'action': 1, 'symbol': 5}",
    "{'action': 1, 'volume': 'x'}",
    "{'action': 1, 'magic': -1}",
    "{'action': 1, 'comment': 5}",
    "{'action': 1, 'comment': 'x' * 500}",
    "{'action': 1, 'magic': 2**80}",
    "{'action': 1, 'volume': None}",
    "{'action': 1, 'sl': None}",
)


@family(369, "a request that is none is None and -2: {}", REQUESTS, Need.MODULE)
def no_request(case: Case, text: str) -> None:
    for call in ("order_check", "order_send"):
        case.refuses(f"{call}({text})")


@row(378, "an empty request is refused", Need.MODULE)
def empty(case: Case) -> None:
    result = case.mt5.eval("mt5.order_check({})")
    code = case.error() if result is None else result.retcode
    assert code in {case.constant("RES_E_INVALID_PARAMS"), case.constant("TRADE_RETCODE_INVALID")}


@row(379, "something that is no dict is no request", Need.MODULE)
def no_dict(case: Case) -> None:
    for call in ("order_check", "order_send"):
        for text in ("5", "'x'", "None", "[1, 2]"):
            try:
                result = case.mt5.eval(f"mt5.{call}({text})")
            except TypeError:
                continue
            nothing = result is None
            assert nothing, (call, text)
            assert case.error() == case.constant("RES_E_INVALID_PARAMS")
