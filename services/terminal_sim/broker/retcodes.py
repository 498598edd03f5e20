"""What a trade server answers: return codes and the comments that come with them.

The codes are ``TRADE_RETCODE_*`` of the MetaTrader5 module. The comments are those that logs and
reports of users show, where we have seen them; else the names in capitals said in words.
"""

from typing import Final

from terminal_sim.broker.values import CheckResult, TradeResult

REQUOTE: Final = 10004
REJECT: Final = 10006
TIMEOUT: Final = 10012
DONE: Final = 10009
INVALID: Final = 10013
INVALID_VOLUME: Final = 10014
INVALID_PRICE: Final = 10015
INVALID_STOPS: Final = 10016
TRADE_DISABLED: Final = 10017
MARKET_CLOSED: Final = 10018
NO_MONEY: Final = 10019
INVALID_EXPIRATION: Final = 10022
NO_CHANGES: Final = 10025
INVALID_FILL: Final = 10030
CONNECTION: Final = 10031
LIMIT_ORDERS: Final = 10033
LIMIT_VOLUME: Final = 10034
INVALID_ORDER: Final = 10035
POSITION_CLOSED: Final = 10036
INVALID_CLOSE_VOLUME: Final = 10038

CHECKED: Final = 0
"""``order_check()`` has nothing against the request."""

TEXTS: Final[dict[int, str]] = {
    CHECKED: "Done",
    REQUOTE: "Requote",
    REJECT: "Rejected",
    10007: "Canceled",
    10008: "Request placed",
    DONE: "Request executed",
    10010: "Request executed partially",
    10011: "Common error",
    TIMEOUT: "Timeout",
    INVALID: "Invalid request",
    INVALID_VOLUME: "Invalid volume",
    INVALID_PRICE: "Invalid price",
    INVALID_STOPS: "Invalid stops",
    TRADE_DISABLED: "Trade disabled",
    MARKET_CLOSED: "Market closed",
    NO_MONEY: "No money",
    10020: "Price changed",
    10021: "No prices",
    INVALID_EXPIRATION: "Invalid expiration",
    10023: "Order changed",
    10024: "Too many requests",
    NO_CHANGES: "No changes",
    10026: "AutoTrading disabled by server",
    10027: "AutoTrading disabled by client",
    10028: "Request locked",
    10029: "Order or position frozen",
    INVALID_FILL: "Unsupported filling mode",
    CONNECTION: "No connection",
    10032: "Only real accounts allowed",
    LIMIT_ORDERS: "Orders limit reached",
    LIMIT_VOLUME: "Volume limit reached",
    INVALID_ORDER: "Invalid order",
    POSITION_CLOSED: "Position doesn't exist",
    INVALID_CLOSE_VOLUME: "Invalid close volume",
    10039: "Close order already exists",
    10040: "Positions limit reached",
    10041: "Request rejected, order canceled",
    10042: "Only long positions allowed",
    10043: "Only short positions allowed",
    10044: "Only position closing allowed",
    10045: "Only closing by FIFO allowed",
}
"""The comment of each return code."""


class Refusal(Exception):
    """A request was refused.

    Attributes:
        retcode: Why.
    """

    def __init__(self, retcode: int) -> None:
        super().__init__(retcode, TEXTS[retcode])
        self.retcode = retcode


def refused(retcode: int) -> TradeResult:
    """Return the answer to a request that was not carried out."""
    return TradeResult(retcode, TEXTS[retcode])


def objected(retcode: int) -> CheckResult:
    """Return what ``order_check()`` says of a request that would not be carried out."""
    return CheckResult(retcode, TEXTS[retcode])
