"""The fifteen instruments the simulated brokers quote."""

from functools import cached_property
from typing import NamedTuple

import msgspec

# Added to every path so that instruments of one class sit in one folder of Market Watch.
_FOREX, _METALS, _INDICES, _CRYPTO = "Forex", "Metals", "Indices", "Crypto"


class Factor(msgspec.Struct, frozen=True):
    """One independent price path.

    Attributes:
        name: Whose path: a currency against the dollar, or an instrument.
        sign: 1 when the price rises with the path, -1 when it falls.
        daily: Typical relative move of a day.
        reach: How far, as a logarithm, each slow swing may carry the path.
    """

    name: str
    sign: int
    daily: float
    reach: float


# Typical relative move of a day of each currency against the dollar.
_DAILY = {
    "AUD": 0.006,
    "CAD": 0.0045,
    "CHF": 0.005,
    "EUR": 0.005,
    "GBP": 0.0055,
    "JPY": 0.006,
    "NZD": 0.006,
}
# Currencies stay within about a third of their price over decades.
_FOREX_REACH = 0.07


class Instrument(msgspec.Struct, frozen=True, dict=True):
    """What never changes about a symbol.

    Attributes:
        name: Symbol, for example ``EURUSD``.
        description: One line for a person.
        folder: Folder in Market Watch.
        base: Base (and, for currencies, margin) currency.
        profit: Currency profits are counted in.
        digits: Decimals of a price.
        contract: Units of the base in one lot.
        price: Price around which the symbol moves.
        daily: Typical relative move of a day.
        spread: Smallest spread in points.
        spread_extra: How many points a tick may add to it.
        swaps: Swap of long and short positions, in points per day.
        volumes: Smallest, largest and step of a volume, in lots.
        factors: Paths the price is made of. AUDJPY follows those of AUD and JPY, so that cross
            rates agree with their legs.
    """

    name: str
    description: str
    folder: str
    base: str
    profit: str
    digits: int
    contract: float
    price: float
    daily: float
    spread: int
    spread_extra: int
    swaps: tuple[float, float]
    volumes: tuple[float, float, float]
    factors: tuple[Factor, ...]

    @cached_property
    def scale(self) -> int:
        """Points in one unit of price."""
        return int(10**self.digits)

    @cached_property
    def point(self) -> float:
        """Size of the last decimal."""
        return 1 / self.scale

    @property
    def is_forex(self) -> bool:
        """Tell whether margin is counted in the base currency, without the price."""
        return self.folder == _FOREX


def _forex(
    name: str, description: str, price: float, spread: int, swaps: tuple[float, float]
) -> Instrument:
    base, profit = name[:3], name[3:]
    factors = tuple(
        Factor(currency, sign, _DAILY[currency], _FOREX_REACH)
        for currency, sign in ((base, 1), (profit, -1))
        if currency != "USD"
    )
    return Instrument(
        name=name,
        description=description,
        folder=_FOREX,
        base=base,
        profit=profit,
        digits=3 if profit == "JPY" else 5,
        contract=100_000.0,
        price=price,
        daily=sum(factor.daily for factor in factors),
        spread=spread,
        spread_extra=6,
        swaps=swaps,
        volumes=(0.01, 100.0, 0.01),
        factors=factors,
    )


class _Kind(NamedTuple):
    folder: str
    base: str
    digits: int
    contract: float


def _priced(
    name: str, description: str, kind: _Kind, price: float, daily: float, spread: int
) -> Instrument:
    return Instrument(
        name=name,
        description=description,
        folder=kind.folder,
        base=kind.base,
        profit="USD",
        digits=kind.digits,
        contract=kind.contract,
        price=price,
        daily=daily,
        spread=spread,
        spread_extra=max(2, spread // 3),
        swaps=(-12.0, -3.0),
        volumes=(0.01, 50.0, 0.01),
        factors=(Factor(name, 1, daily, 0.2 if kind.folder == _CRYPTO else 0.12),),
    )


_ALL = (
    _forex("AUDJPY", "Australian Dollar vs Japanese Yen", 98.02, 14, (0.9, -6.1)),
    _forex("AUDUSD", "Australian Dollar vs US Dollar", 0.6535, 9, (-2.3, -0.4)),
    _priced("BTCUSD", "Bitcoin vs US Dollar", _Kind(_CRYPTO, "BTC", 2, 1.0), 64_200.0, 0.028, 1200),
    _priced("ETHUSD", "Ethereum vs US Dollar", _Kind(_CRYPTO, "ETH", 2, 1.0), 3_120.0, 0.034, 160),
    _forex("EURUSD", "Euro vs US Dollar", 1.0872, 7, (-6.4, 2.1)),
    _forex("GBPJPY", "Great Britain Pound vs Japanese Yen", 191.01, 18, (1.6, -9.8)),
    _forex("GBPUSD", "Great Britain Pound vs US Dollar", 1.2734, 9, (-3.1, -1.2)),
    _priced("NDX100", "Nasdaq 100 Index", _Kind(_INDICES, "USD", 2, 1.0), 18_350.0, 0.012, 110),
    _forex("NZDUSD", "New Zealand Dollar vs US Dollar", 0.6012, 12, (-1.9, -0.6)),
    _priced(
        "US30", "Dow Jones Industrial Average", _Kind(_INDICES, "USD", 2, 1.0), 39_400.0, 0.009, 180
    ),
    _forex("USDCAD", "US Dollar vs Canadian Dollar", 1.3645, 11, (0.3, -4.9)),
    _forex("USDCHF", "US Dollar vs Swiss Franc", 0.8921, 11, (3.4, -8.7)),
    _forex("USDJPY", "US Dollar vs Japanese Yen", 150.0, 9, (4.2, -11.5)),
    _priced("XAGUSD", "Silver vs US Dollar", _Kind(_METALS, "XAG", 3, 5_000.0), 28.4, 0.018, 18),
    _priced("XAUUSD", "Gold vs US Dollar", _Kind(_METALS, "XAU", 2, 100.0), 2_340.0, 0.009, 16),
)
INSTRUMENTS: dict[str, Instrument] = {instrument.name: instrument for instrument in _ALL}
"""Every instrument by its symbol, in alphabetical order."""
