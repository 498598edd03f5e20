"""From what a client gives order_send() and order_check() to a trade request."""

from collections.abc import Mapping
from typing import Any

from terminal_sim.broker.values import TradeRequest
from terminal_sim.catalogue import catalogue
from terminal_sim.module.arguments import MAX_EPOCH, Refusal, invalid, is_sound
from terminal_sim.module.structs import StructSequence, struct

_WORD, _LONG = 2**31 - 1, 2**63 - 1
# The C structure's field holds 31 characters and an end; longer texts never leave the library.
_SYMBOL_LENGTH = 31
# Clients report that the library itself refuses longer comments, though the field is as long.
_COMMENT_LENGTH = 29
_HIGHEST = {
    "action": _WORD,
    "magic": _LONG,
    "order": _LONG,
    "deviation": _LONG,
    "type": _WORD,
    "type_filling": _WORD,
    "type_time": _WORD,
    "expiration": MAX_EPOCH,
    "position": _LONG,
    "position_by": _LONG,
}
_LONGEST = {"symbol": _SYMBOL_LENGTH, "comment": _COMMENT_LENGTH}


def trade_request(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> TradeRequest:
    """Return the request in one dictionary, or in keywords.

    Numbers with a fraction must be ``float`` and the others ``int``, as the real library wants
    it: a stop loss of ``0`` or None is refused. Fields left out are zero; what it does not know
    is not looked at.

    Raises:
        Refusal: -2, with the field's name.
    """
    if len(args) + bool(kwargs) != 1 or (args and not _is_a(args[0], dict)):
        raise Refusal((-2, "Unnamed arguments not allowed"))
    given = args[0] if args else kwargs
    names = catalogue().structs["TradeRequest"]
    return TradeRequest(**{name: _field(name, given[name]) for name in names if name in given})


def request_row(request: TradeRequest) -> StructSequence:
    """Return the TradeRequest row that results carry."""
    names = catalogue().structs["TradeRequest"]
    return struct("TradeRequest")(getattr(request, name) for name in names)


def _field(name: str, value: Any) -> Any:  # noqa: ANN401 - whatever a caller gave
    if name in _LONGEST:
        if not _is_a(value, str) or len(value) > _LONGEST[name] or not is_sound(value):
            raise invalid(name)
        return str(value)
    if name in _HIGHEST:
        if not _is_a(value, int) or not 0 <= value <= _HIGHEST[name]:
            raise invalid(name)
        return int(value)
    if not _is_a(value, float):
        raise invalid(name)
    return float(value)


def _is_a(value: object, kind: type) -> bool:
    """Tell what something is, not what it says it is: proxies of remote objects say anything."""
    return issubclass(type(value), kind)
