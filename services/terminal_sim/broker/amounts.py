"""Prices and amounts of money at one instant, for an account of one currency.

Each formula multiplies in the order of :mod:`terminal_sim.broker.trades`, so that a position
written in a scenario and the same position dealt live come to the same cent.
"""

from dataclasses import dataclass

from terminal_sim.broker.values import Position, Profile
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.money import decimals, rate
from terminal_sim.market.tape import Quote, Tape


def rounded(amount: float, digits: int) -> float:
    """Round an amount as ``numpy.round`` does, bit for bit, and never to a negative zero."""
    scale = 10.0**digits
    return round(amount * scale) / scale


@dataclass(frozen=True, slots=True)
class Prices:
    """The market at an instant, in the eyes of one account.

    Attributes:
        tape: Where ticks come from.
        now_ms: The instant, UTC epoch milliseconds.
        currency: Of the account.
        leverage: Of the account.
    """

    tape: Tape
    now_ms: int
    currency: str
    leverage: int

    @classmethod
    def of(cls, tape: Tape, now_ms: int, profile: Profile) -> "Prices":
        """Return the prices an account sees at an instant."""
        return cls(tape, now_ms, profile.currency, profile.leverage)

    def quote(self, symbol: str) -> Quote:
        """Return the newest tick of a symbol.

        Raises:
            KeyError: No such symbol.
        """
        return self.tape.at(symbol, self.now_ms)

    def dealt(self, symbol: str, sign: int) -> float:
        """Return the price a deal gets: who buys pays the ask, who sells gets the bid."""
        quote = self.quote(symbol)
        return quote.ask if sign > 0 else quote.bid

    def money(self, amount: float) -> float:
        """Round to the decimals of the account's currency."""
        return rounded(amount, decimals(self.currency))

    def profit(self, symbol: str, sign: int, volume: float, opened: float, closed: float) -> float:
        """Return what a position has won between two prices, in the account's currency.

        Direction x (close - open) x volume x contract, converted at the bid of this instant; the
        formula of Forex and CFD symbols in MetaTrader's description of ``SYMBOL_CALC_MODE``.
        """
        instrument = INSTRUMENTS[symbol]
        move = sign * (closed - opened) * volume * instrument.contract
        return self.money(move * self._rate(instrument.profit))

    def margin(self, symbol: str, volume: float, price: float) -> float:
        """Return the margin of a volume, in the account's currency.

        Forex: volume x contract / leverage, in the base currency. Others: volume x contract x
        price / leverage, in the currency of profit. These are ``SYMBOL_CALC_MODE_FOREX`` and
        ``SYMBOL_CALC_MODE_CFDLEVERAGE``, as ``symbol_info()`` tells.
        """
        instrument = INSTRUMENTS[symbol]
        size = volume * instrument.contract
        if instrument.is_forex:
            return self.money(size * self._rate(instrument.base) / self.leverage)
        return self.money(size * price * self._rate(instrument.profit) / self.leverage)

    def swap(self, position: Position, nights: int) -> float:
        """Return what so many nights bring (or cost) a position, in the account's currency.

        Volume x contract x point x points a night: ``SYMBOL_SWAP_MODE_POINTS``.
        """
        instrument = INSTRUMENTS[position.symbol]
        points = instrument.swaps[0 if position.sign > 0 else 1] * nights
        move = position.volume * instrument.contract * (points / instrument.scale)
        return self.money(move * self._rate(instrument.profit))

    def _rate(self, source: str) -> float:
        return rate(source, self.currency, lambda leg: self.quote(leg).bid)
