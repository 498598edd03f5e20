"""Trades in columns: what a position was, is or will be, priced by the market."""

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.money import decimals, rates
from terminal_sim.market.noise import Floats, Ints
from terminal_sim.market.prices import Market

SYMBOLS = tuple(INSTRUMENTS)
"""Symbols by the index used in the ``symbol`` column."""
NEVER = 2**62
"""``closed`` of a trade that stays open."""

Objects = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Plan:
    """Trades as decided, before the market has priced them.

    Attributes:
        ticket: Of the position; also of the order that opens it. The numbers after it belong to
            the opening deal, the closing order and the closing deal.
        symbol: Index into ``SYMBOLS``.
        sign: 1 bought, -1 sold.
        volume: Lots.
        opened: UTC epoch milliseconds.
        closed: Likewise, or ``NEVER``.
        price: Opening price, or NaN for the market's.
        sl: Stop loss or 0.
        tp: Take profit or 0.
        magic: Of the expert that trades, or 0.
        comment: Text.
    """

    ticket: Ints
    symbol: Ints
    sign: Ints
    volume: Floats
    opened: Ints
    closed: Ints
    price: Floats
    sl: Floats
    tp: Floats
    magic: Ints
    comment: Objects

    def take(self, where: npt.NDArray[Any]) -> Self:
        """Return the rows an index or a mask picks."""
        return type(self)(*(getattr(self, field.name)[where] for field in fields(self)))

    def join(self, other: Self) -> Self:
        """Return these rows and then the other's."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return type(self)(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True, slots=True)
class Trades(Plan):
    """Priced trades; amounts are in the account's currency.

    Attributes:
        price_close: Closing price; 0 while ``closed`` is ``NEVER``.
        profit: Realised by the close, rounded.
        margin: Held while open, at the prices of the opening.
        commission: Of each of its deals; not positive.
        swap: Collected until it was closed, or until the instant it was priced for.
    """

    price_close: Floats
    profit: Floats
    margin: Floats
    commission: Floats
    swap: Floats


@dataclass(frozen=True, slots=True)
class Nights:
    """Rollovers: UTC instants, and how many nights each charges."""

    at: Ints
    count: Ints


@dataclass(frozen=True, slots=True)
class Pricing:
    """What trades of an account cost.

    Attributes:
        market: Where prices come from.
        currency: Of the account.
        leverage: Of the account.
        commission: Charged per lot and deal.
        nights: Rollovers; those that happen while a trade is open collect swap.
    """

    market: Market
    currency: str
    leverage: int
    commission: float
    nights: Nights


def priced(pricing: Pricing, plan: Plan, until_ms: int = NEVER) -> Trades:
    """Let the market price a plan; swap is collected until an instant at most."""
    market, currency, leverage = pricing.market, pricing.currency, pricing.leverage
    count = plan.ticket.size
    opening, closing, profit, margin = (np.zeros(count) for _ in range(4))
    for index in np.unique(plan.symbol).tolist():
        rows = np.flatnonzero(plan.symbol == index)
        part = plan.take(rows)
        opening[rows] = _opening(market, part)
        margin[rows] = _margin(market, part, opening[rows], currency) / leverage
        done = rows[part.closed < NEVER]
        if done.size:
            closing[done] = _side(market, plan.take(done), closing=True)
            profit[done] = _profit(market, plan.take(done), closing[done] - opening[done], currency)
    digits = decimals(currency)
    # Adding zero turns a negative zero into a positive one.
    values = {field.name: getattr(plan, field.name) for field in fields(plan)}
    return Trades(
        **(values | {"price": opening}),
        price_close=closing,
        profit=np.round(profit, digits) + 0.0,
        margin=np.round(margin, digits),
        commission=np.round(-pricing.commission * plan.volume, digits) + 0.0,
        swap=collected(pricing, plan, until_ms),
    )


def _opening(market: Market, plan: Plan) -> Floats:
    return np.where(np.isnan(plan.price), _side(market, plan, closing=False), plan.price)


def _side(market: Market, plan: Plan, *, closing: bool) -> Floats:
    """Return the price a trade gets: bought at the ask, sold at the bid."""
    quotes = market.quotes(_name(plan), plan.closed if closing else plan.opened)
    return np.where((plan.sign > 0) != closing, quotes["ask"], quotes["bid"])


def _profit(market: Market, plan: Plan, move: Floats, currency: str) -> Floats:
    instrument = INSTRUMENTS[_name(plan)]
    rate = rates(market, instrument.profit, currency, plan.closed)
    amount: Floats = plan.sign * move * plan.volume * instrument.contract * rate
    return amount


def _margin(market: Market, plan: Plan, price: Floats, currency: str) -> Floats:
    """Return the margin at a leverage of 1."""
    instrument = INSTRUMENTS[_name(plan)]
    size = plan.volume * instrument.contract
    if instrument.is_forex:
        return size * rates(market, instrument.base, currency, plan.opened)
    return size * price * rates(market, instrument.profit, currency, plan.opened)


def collected(pricing: Pricing, plan: Plan, until_ms: int) -> Floats:
    """Return the swap of each trade until an instant: night by night, rounded each time."""
    nights, digits = pricing.nights, decimals(pricing.currency)
    first = nights.at.searchsorted(plan.opened, side="right")
    stop = nights.at.searchsorted(np.minimum(plan.closed, until_ms), side="right")
    lasted = np.maximum(stop - first, 0)
    trade = np.repeat(np.arange(plan.ticket.size), lasted)
    start = np.cumsum(lasted) - lasted
    night = np.arange(trade.size) - start[trade] + first[trade]
    swap = np.zeros(plan.ticket.size)
    for index in np.unique(plan.symbol[trade]).tolist():
        rows = plan.symbol[trade] == index
        held, when = trade[rows], night[rows]
        instrument = INSTRUMENTS[SYMBOLS[index]]
        points = np.where(plan.sign[held] > 0, *instrument.swaps) * nights.count[when]
        move = plan.volume[held] * instrument.contract * (points / instrument.scale)
        rate = rates(pricing.market, instrument.profit, pricing.currency, nights.at[when])
        np.add.at(swap, held, np.round(move * rate, digits))
    return np.round(swap, digits) + 0.0


def _name(plan: Plan) -> str:
    return SYMBOLS[int(plan.symbol[0])]
