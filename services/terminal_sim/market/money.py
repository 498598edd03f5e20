"""Converting between currencies at the market's own rates."""

from collections.abc import Callable
from functools import cache

import numpy as np

from terminal_sim.market.noise import Floats, Ints
from terminal_sim.market.prices import Market

# Which symbol prices each currency in dollars, and whether the dollar is its base.
_IN_DOLLARS = {
    "AUD": ("AUDUSD", 1),
    "EUR": ("EURUSD", 1),
    "GBP": ("GBPUSD", 1),
    "NZD": ("NZDUSD", 1),
    "CAD": ("USDCAD", -1),
    "CHF": ("USDCHF", -1),
    "JPY": ("USDJPY", -1),
}


def decimals(currency: str) -> int:
    """Return how many decimals amounts of a currency have."""
    return 0 if currency == "JPY" else 2


@cache
def legs(source: str, target: str) -> tuple[tuple[str, int], ...]:
    """Return the symbols, with exponents, whose product is the rate from source to target.

    Raises:
        KeyError: A currency that no symbol prices.
    """
    if source == target:
        return ()
    up = () if source == "USD" else (_IN_DOLLARS[source],)
    if target == "USD":
        return up
    symbol, sign = _IN_DOLLARS[target]
    return (*up, (symbol, -sign))


def rate(source: str, target: str, bid: Callable[[str], float]) -> float:
    """Return the rate from source to target; ``bid`` gives the bid of a symbol."""
    value = 1.0
    for symbol, sign in legs(source, target):
        value = value * bid(symbol) if sign > 0 else value / bid(symbol)
    return value


def rates(market: Market, source: str, target: str, at_ms: Ints) -> Floats:
    """Return the rates from source to target at many UTC instants."""
    value = np.ones(at_ms.shape)
    for symbol, sign in legs(source, target):
        bids = market.quotes(symbol, at_ms)["bid"]
        value = value * bids if sign > 0 else value / bids
    return value
