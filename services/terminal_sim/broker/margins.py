"""The margin that open positions hold together."""

from collections.abc import Iterable
from typing import Literal

from terminal_sim.broker.values import Position


def held_margin(positions: Iterable[Position], margin_mode: Literal["hedging", "netting"]) -> float:
    """Return the margin of all positions, in the account's currency, not rounded.

    Netting accounts: the sum. Hedging accounts: per symbol, the volume by which the larger side
    exceeds the smaller is charged at the average of its side; of the volume both sides have, one
    side is charged, at the average of all positions of the symbol. That is MetaTrader's "Basic
    calculation" for symbols whose hedged margin is one contract (``margin_hedged`` of
    ``symbol_info()``): MetaTrader 5 help, "Margin Calculation: Retail Forex, Futures", section
    "Retail Forex, Hedging" (www.metatrader5.com/en/terminal/help/trading_advanced/margin_forex).
    MetaTrader averages prices and rates apart; we average margins, which differs only where a
    price and a rate of conversion both vary between the openings.
    """
    if margin_mode == "netting":
        return sum((position.margin for position in positions), 0.0)
    sides: dict[str, dict[int, tuple[float, float]]] = {}
    for position in positions:
        side = sides.setdefault(position.symbol, {1: (0.0, 0.0), -1: (0.0, 0.0)})
        volume, margin = side[position.sign]
        side[position.sign] = volume + position.volume, margin + position.margin
    return sum((_hedged(side[1], side[-1]) for side in sides.values()), 0.0)


def _hedged(bought: tuple[float, float], sold: tuple[float, float]) -> float:
    """Return the margin of one symbol from (volume, margin) of its sides."""
    (less, less_margin), (more, more_margin) = sorted((bought, sold))
    if not less:
        return more_margin
    uncovered = more_margin * ((more - less) / more)
    covered = (less_margin + more_margin) * (less / (less + more))
    return uncovered + covered
