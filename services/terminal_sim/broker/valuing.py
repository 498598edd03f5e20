"""What an account is worth at the newest ticks: used at every call of every terminal."""

from dataclasses import dataclass

import numpy as np

from terminal_sim.broker.margins import held_margin
from terminal_sim.broker.state import AccountState
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.money import legs, rate
from terminal_sim.market.noise import Floats, Ints
from terminal_sim.market.tape import Tape


@dataclass(frozen=True, slots=True)
class Valuation:
    """An account at an instant; amounts are in its currency, rounded to its digits.

    Attributes:
        version: Of the state that was valued.
        instants: Times of the ticks used (UTC epoch milliseconds).
        tickets: Of the positions, in their order.
        price: At which each position could be closed.
        profit: Of each position, without swap.
        balance: Sum of the deals.
        credit: Credit line.
        floating: Profits and swaps of all positions.
        equity: Balance, credit and ``floating``.
        margin: Held by the positions.
        margin_free: Equity without the margin.
        margin_level: Equity in percent of the margin; 0 without margin.
    """

    version: int
    instants: tuple[int, ...]
    tickets: tuple[int, ...]
    price: Floats
    profit: Floats
    balance: float
    credit: float
    floating: float
    equity: float
    margin: float
    margin_free: float
    margin_level: float


@dataclass(frozen=True, slots=True)
class _Held:
    """What does not move between two versions of an account.

    ``side`` points into the bids of ``symbols`` followed by their asks, ``place`` into ``symbols``;
    ``size`` is in units, negative when sold; ``watched`` adds the symbols that convert.
    """

    state: AccountState
    version: int
    tickets: tuple[int, ...]
    symbols: tuple[str, ...]
    watched: tuple[str, ...]
    place: Ints
    side: Ints
    size: Floats
    opened: Floats
    swap: float
    margin: float


class Valuer:
    """Values an account again and again; each account has its own, which keeps what stands still.

    Args:
        tape: Prices.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self._held: _Held | None = None
        self._last: Valuation | None = None

    def value(self, state: AccountState, now_ms: int) -> Valuation:
        """Return the account at the newest ticks at or before a UTC instant.

        While neither the account nor a tick has changed, the same object comes back.
        """
        held = self._held
        if held is None or held.state is not state or held.version != state.version:
            held = self._held = _hold(state)
            self._last = None
        at = self.tape.at
        quotes = {symbol: at(symbol, now_ms) for symbol in held.watched}
        instants = tuple([quote.time_msc for quote in quotes.values()])
        if self._last is not None and self._last.instants == instants:
            return self._last
        currency, symbols = state.profile.currency, held.symbols
        sides = [quotes[symbol].bid for symbol in symbols]
        sides += [quotes[symbol].ask for symbol in symbols]
        rates = [
            rate(INSTRUMENTS[symbol].profit, currency, lambda leg: quotes[leg].bid)
            for symbol in symbols
        ]
        price = np.array(sides)[held.side]
        move = (price - held.opened) * held.size * np.array(rates)[held.place]
        # Adding zero turns a negative zero into a plain one.
        profit = np.round(move, state.digits) + 0.0
        self._last = _total(state, held, instants, price, profit)
        return self._last


def _hold(state: AccountState) -> _Held:
    positions = tuple(state.positions.values())
    symbols = tuple(sorted({position.symbol for position in positions}))
    number = {symbol: index for index, symbol in enumerate(symbols)}
    crosses = {
        leg
        for symbol in symbols
        for leg, _ in legs(INSTRUMENTS[symbol].profit, state.profile.currency)
    }
    place = [number[position.symbol] for position in positions]
    side = [
        index if position.sign > 0 else index + len(symbols)
        for index, position in zip(place, positions, strict=True)
    ]
    size = [p.sign * p.volume * INSTRUMENTS[p.symbol].contract for p in positions]
    return _Held(
        state=state,
        version=state.version,
        tickets=tuple([position.ticket for position in positions]),
        symbols=symbols,
        watched=tuple(sorted({*symbols, *crosses})),
        place=np.array(place, np.int64),
        side=np.array(side, np.int64),
        size=np.array(size, np.float64),
        opened=np.array([position.price_open for position in positions], np.float64),
        swap=sum(position.swap for position in positions),
        margin=round(held_margin(positions, state.profile.margin_mode), state.digits),
    )


def _total(
    state: AccountState, held: _Held, instants: tuple[int, ...], price: Floats, profit: Floats
) -> Valuation:
    digits, margin = state.digits, held.margin
    # Adding zero turns a negative zero into a plain one.
    floating = round(float(profit.sum()) + held.swap, digits) + 0.0
    equity = round(state.balance + state.credit + floating, digits)
    return Valuation(
        version=held.version,
        instants=instants,
        tickets=held.tickets,
        price=price,
        profit=profit,
        balance=state.balance,
        credit=state.credit,
        floating=floating,
        equity=equity,
        margin=margin,
        margin_free=round(equity - margin, digits),
        margin_level=equity / margin * 100 if margin else 0.0,
    )
