"""order_send, order_check, order_calc_*."""

from itertools import count

from msgspec.structs import asdict

from terminal_sim.broker.estimates import ASTRONOMIC, order_margin, order_profit
from terminal_sim.broker.messages import Answer, Checked, Trade, Traded
from terminal_sim.broker.retcodes import objected, refused
from terminal_sim.broker.values import CheckResult, TradeRequest, TradeResult
from terminal_sim.catalogue import catalogue
from terminal_sim.faults.kinds import AutotradingOff
from terminal_sim.module.account_rows import filled
from terminal_sim.module.arguments import integer, number, refusal, text
from terminal_sim.module.entry import entry
from terminal_sim.module.quotes import known
from terminal_sim.module.requests import request_row, trade_request
from terminal_sim.module.structs import StructSequence
from terminal_sim.terminal.account import Session
from terminal_sim.terminal.channel import LineDown, LineTimeout
from terminal_sim.terminal.session import Terminal


class TradeFunctions:
    """Functions that trade, and that tell what a trade would take.

    Args:
        terminal: The terminal they act on.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._sent = count(1)

    @entry()
    def order_send(self, *args: object, **kwargs: object) -> StructSequence:
        """Have a request carried out."""
        request = trade_request(args, kwargs)
        session = self.terminal.account()
        faults, codes = self.terminal.faults, catalogue().constants
        if faults and faults.take(AutotradingOff):
            code = codes["TRADE_RETCODE_CLIENT_DISABLES_AT"]
            return _sent(request, refused(code), 0)
        answer = self._ask(session, request, check=False)
        if answer is None:
            code = codes["TRADE_RETCODE_CONNECTION"]
            return _sent(request, refused(code), 0)
        if not isinstance(answer, Traded):
            raise refusal("RES_E_FAIL")
        return _sent(request, answer.result, answer.result.request_id or next(self._sent))

    @entry()
    def order_check(self, *args: object, **kwargs: object) -> StructSequence:
        """Tell what would come of a request."""
        request = trade_request(args, kwargs)
        answer = self._ask(self.terminal.account(), request, check=True)
        if answer is None:
            code = catalogue().constants["TRADE_RETCODE_CONNECTION"]
            return _checked(request, objected(code))
        if not isinstance(answer, Checked):
            raise refusal("RES_E_FAIL")
        return _checked(request, answer.result)

    @entry(arity=4)
    def order_calc_margin(
        self, action: object, symbol: object, volume: object, price: object
    ) -> float:
        """Return the margin of an order, in the account's currency, regardless of what is held."""
        last = catalogue().constants["ORDER_TYPE_SELL_STOP_LIMIT"]
        kind, name = integer("action", action, high=last), text("symbol", symbol)
        lots, at = _positive("volume", volume), _positive("price", price)
        session = self.terminal.account()
        profile = session.state.profile
        return order_margin(
            session.tape,
            profile.currency,
            profile.leverage,
            kind,
            known(name),
            lots,
            at,
            session.now_ms(),
        )

    @entry(arity=5)
    def order_calc_profit(
        self,
        action: object,
        symbol: object,
        volume: object,
        price_open: object,
        price_close: object,
    ) -> float:
        """Return the profit of a trade, in the account's currency."""
        kind = integer("action", action, high=catalogue().constants["ORDER_TYPE_SELL"])
        name, lots = text("symbol", symbol), _positive("volume", volume)
        opened, closed = _positive("price_open", price_open), _positive("price_close", price_close)
        session = self.terminal.account()
        return order_profit(
            session.tape,
            session.state.profile.currency,
            kind,
            known(name),
            lots,
            opened,
            closed,
            session.now_ms(),
        )

    def _ask(self, session: Session, request: TradeRequest, *, check: bool) -> Answer | None:
        """Return the broker's answer; None: there is no line.

        Raises:
            Refusal: -10005, the broker does not answer.
        """
        limit = self.terminal.timing.trade_timeout_s
        try:
            return session.line.request(lambda number: Trade(number, request, check), limit)
        except LineDown:
            return None
        except LineTimeout:
            raise refusal("RES_E_INTERNAL_FAIL_TIMEOUT") from None


def _sent(request: TradeRequest, result: TradeResult, request_id: int) -> StructSequence:
    values = asdict(result) | {"request_id": request_id, "request": request_row(request)}
    return filled("OrderSendResult", **values)


def _checked(request: TradeRequest, result: CheckResult) -> StructSequence:
    return filled("OrderCheckResult", **asdict(result), request=request_row(request))


def _positive(name: str, value: object) -> float:
    """Return a number above zero and below ``ASTRONOMIC``.

    Raises:
        Refusal: -2.
    """
    given = number(name, value)
    if not 0 < given < ASTRONOMIC:  # false of NaN, too
        raise refusal("RES_E_INVALID_PARAMS")
    return given
