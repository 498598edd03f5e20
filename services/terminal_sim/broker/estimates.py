"""What a deal would need and bring: ``order_calc_margin()`` and ``order_calc_profit()``."""

from terminal_sim.broker.amounts import Prices
from terminal_sim.broker.codes import order_sign
from terminal_sim.market.tape import Tape

ASTRONOMIC = 1e15
"""Volumes and prices are below it: no product of three such numbers overflows."""


def order_margin(  # noqa: PLR0913, PLR0917 - the parameters of the function it stands behind
    tape: Tape,
    currency: str,
    leverage: int,
    order_type: int,
    symbol: str,
    volume: float,
    price: float,
    now_ms: int,
) -> float:
    """Return the margin of an order, without regard to what the account holds already.

    Args:
        tape: Prices for the conversion.
        currency: Of the account; the margin is in it, rounded.
        leverage: Of the account.
        order_type: ``ORDER_TYPE_*`` that buys or sells.
        symbol: Symbol.
        volume: Lots.
        price: Price of the deal; the margin of a Forex symbol does not depend on it.
        now_ms: UTC epoch milliseconds.

    Raises:
        KeyError: No such symbol.
        ValueError: The type is none, or a number is not positive.
    """
    order_sign(order_type)
    _check(volume, price)
    return Prices(tape, now_ms, currency, leverage).margin(symbol, volume, price)


def order_profit(  # noqa: PLR0913, PLR0917 - likewise
    tape: Tape,
    currency: str,
    order_type: int,
    symbol: str,
    volume: float,
    price_open: float,
    price_close: float,
    now_ms: int,
) -> float:
    """Return the profit of a deal between two prices, in the account's currency, rounded.

    Args:
        tape: Prices for the conversion.
        currency: Of the account.
        order_type: ``ORDER_TYPE_*`` that buys or sells.
        symbol: Symbol.
        volume: Lots.
        price_open: Price of the opening.
        price_close: Price of the close.
        now_ms: UTC epoch milliseconds.

    Raises:
        KeyError: No such symbol.
        ValueError: The type is none, or a number is not positive.
    """
    sign = order_sign(order_type)
    _check(volume, price_open, price_close)
    return Prices(tape, now_ms, currency, 1).profit(symbol, sign, volume, price_open, price_close)


def _check(*numbers: float) -> None:
    if not all(0 < number < ASTRONOMIC for number in numbers):  # false of NaN, too
        raise ValueError("volumes and prices are positive numbers")
