"""Buy, Sell, Close and _RawOrder: what the real package adds to its library in Python.

Keywords, retries and return values are those of ``MetaTrader5/__init__.py``; where a call of the
library returns None, so do they.
"""

from collections.abc import Callable
from typing import Any

from terminal_sim.catalogue import catalogue
from terminal_sim.module.structs import StructSequence

# How often an order is sent again at the newest price, and by how many points it may differ.
_TRIES, _DEVIATION = 10, 10
_Result = StructSequence | None


class Shortcuts:
    """Orders at the market in one call.

    Args:
        module: The module whose functions they call.
    """

    def __init__(self, module: Any) -> None:  # noqa: ANN401 - a module has any attributes
        self._module = module
        codes = catalogue().constants
        self._buy, self._sell = codes["ORDER_TYPE_BUY"], codes["ORDER_TYPE_SELL"]
        self._again = {codes["TRADE_RETCODE_REQUOTE"], codes["TRADE_RETCODE_PRICE_OFF"]}
        self._done = codes["TRADE_RETCODE_DONE"]

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Return them by the names they have in the module."""
        return {"Buy": self.buy, "Sell": self.sell, "Close": self.close, "_RawOrder": self.raw}

    def raw(
        self,
        order_type: int,
        symbol: str,
        volume: float,
        price: float,
        comment: str | None = None,
        ticket: int | None = None,
    ) -> _Result:
        """Send a market order at a price; with a ticket it closes that position."""
        request: dict[str, Any] = {
            "action": catalogue().constants["TRADE_ACTION_DEAL"],
            "symbol": symbol,
            "volume": volume,
            "type": order_type,
            "price": price,
            "deviation": _DEVIATION,
        }
        if comment is not None:
            request["comment"] = comment
        if ticket is not None:
            request["position"] = ticket
        result: _Result = self._module.order_send(request)
        return result

    def buy(
        self,
        symbol: str,
        volume: float,
        price: float | None = None,
        *,
        comment: str | None = None,
        ticket: int | None = None,
    ) -> _Result:
        """Buy; without a price at the newest one, several times if need be."""
        return self._at_market(self._buy, symbol, volume, price, comment, ticket)

    def sell(
        self,
        symbol: str,
        volume: float,
        price: float | None = None,
        *,
        comment: str | None = None,
        ticket: int | None = None,
    ) -> _Result:
        """Sell; without a price at the newest one, several times if need be."""
        return self._at_market(self._sell, symbol, volume, price, comment, ticket)

    def close(
        self, symbol: str, *, comment: str | None = None, ticket: int | None = None
    ) -> bool | str | None:
        """Close the positions of a symbol, or one of them.

        Returns:
            True: all; ``"Partially"``: some; False: none, or there are none.
        """
        chosen = {"symbol": symbol} if ticket is None else {"ticket": ticket}
        positions = self._module.positions_get(**chosen)
        if positions is None:
            return None
        done = 0
        for held in positions:
            opposite = self._sell if held.type == self._buy else self._buy
            result = self._at_market(opposite, symbol, held.volume, None, comment, held.ticket)
            if result is None:
                return None
            done += result.retcode == self._done
        return "Partially" if 0 < done < len(positions) else done > 0

    def _at_market(
        self,
        kind: int,
        symbol: str,
        volume: float,
        price: float | None,
        comment: str | None,
        ticket: int | None,
    ) -> _Result:
        if price is not None:
            return self.raw(kind, symbol, volume, price, comment, ticket)
        result: _Result = None
        for _ in range(_TRIES):
            newest = self._module.symbol_info_tick(symbol)
            if newest is None:
                return None
            at = newest.ask if kind == self._buy else newest.bid
            result = self.raw(kind, symbol, volume, at, comment, ticket)
            if result is None or result.retcode not in self._again:
                break
        return result
