"""The constants of the MetaTrader5 module that the trading rules use, by their standard names.

Their values are those of the catalogue; a test holds the two together.
"""

from typing import Final

TRADE_ACTION_DEAL: Final = 1
TRADE_ACTION_PENDING: Final = 5
TRADE_ACTION_SLTP: Final = 6
TRADE_ACTION_MODIFY: Final = 7
TRADE_ACTION_REMOVE: Final = 8

ORDER_TYPE_BUY: Final = 0
ORDER_TYPE_SELL: Final = 1
ORDER_TYPE_BUY_LIMIT: Final = 2
ORDER_TYPE_SELL_LIMIT: Final = 3
ORDER_TYPE_BUY_STOP: Final = 4
ORDER_TYPE_SELL_STOP: Final = 5
ORDER_TYPE_BUY_STOP_LIMIT: Final = 6
ORDER_TYPE_SELL_STOP_LIMIT: Final = 7

ORDER_STATE_PLACED: Final = 1
ORDER_STATE_CANCELED: Final = 2
ORDER_STATE_FILLED: Final = 4
ORDER_STATE_REJECTED: Final = 5
ORDER_STATE_EXPIRED: Final = 6

ORDER_FILLING_FOK: Final = 0
ORDER_FILLING_IOC: Final = 1
ORDER_FILLING_RETURN: Final = 2

ORDER_TIME_GTC: Final = 0
ORDER_TIME_DAY: Final = 1
ORDER_TIME_SPECIFIED: Final = 2
ORDER_TIME_SPECIFIED_DAY: Final = 3

DEAL_TYPE_BUY: Final = 0
DEAL_TYPE_SELL: Final = 1

DEAL_ENTRY_IN: Final = 0
DEAL_ENTRY_OUT: Final = 1
DEAL_ENTRY_INOUT: Final = 2

DEAL_REASON_EXPERT: Final = 3
DEAL_REASON_SL: Final = 4
DEAL_REASON_TP: Final = 5

_SIGNS = {
    ORDER_TYPE_BUY: 1,
    ORDER_TYPE_SELL: -1,
    ORDER_TYPE_BUY_LIMIT: 1,
    ORDER_TYPE_SELL_LIMIT: -1,
    ORDER_TYPE_BUY_STOP: 1,
    ORDER_TYPE_SELL_STOP: -1,
    ORDER_TYPE_BUY_STOP_LIMIT: 1,
    ORDER_TYPE_SELL_STOP_LIMIT: -1,
}


def order_sign(order_type: int) -> int:
    """Return 1 when an ``ORDER_TYPE_*`` buys, -1 when it sells.

    Raises:
        ValueError: It does neither.
    """
    sign = _SIGNS.get(order_type)
    if sign is None:
        raise ValueError(f"order type {order_type} neither buys nor sells")
    return sign
