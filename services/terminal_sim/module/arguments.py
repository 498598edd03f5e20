"""The manners of the real module's argument parser."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import index
from typing import Any

from terminal_sim.catalogue import catalogue

Error = tuple[int, str]
"""What ``last_error()`` returns."""

# The largest count and ticket the real module's C types hold.
MAX_COUNT, _MAX_WORD = 2**31 - 1, 2**64 - 1
# Seconds of the year 3000: MetaTrader's own last date.
MAX_EPOCH = 32_536_799_999


class Refusal(Exception):
    """A call ends with its failure value and this error.

    Attributes:
        error: Code and text.
    """

    def __init__(self, error: Error) -> None:
        super().__init__(error[1])
        self.error = error


def refusal(code: str) -> Refusal:
    """Return the refusal of a ``RES_*`` code with the text the real library carries for it."""
    number = catalogue().constants[code]
    return Refusal((number, catalogue().error_messages[number]))


def invalid(name: str) -> Refusal:
    """Return the refusal of an argument of a wrong type."""
    return Refusal((catalogue().constants["RES_E_INVALID_PARAMS"], f'Invalid "{name}" argument'))


def check_arity(function: str, count: int, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Refuse keywords and a wrong number of arguments, as a C function without keywords does.

    Raises:
        TypeError: With the text of the interpreter.
    """
    if kwargs:
        raise TypeError(f"{function}() takes no keyword arguments")
    if len(args) != count:
        wanted = f"exactly {count} argument{'' if count == 1 else 's'}" if count else "no arguments"
        raise TypeError(f"{function}() takes {wanted} ({len(args)} given)")


def check_keywords(function: str, known: Sequence[str], kwargs: dict[str, Any]) -> None:
    """Refuse keywords a function does not know.

    Raises:
        TypeError: With the text of the interpreter.
    """
    for name in kwargs:
        if name not in known:
            raise TypeError(f"'{name}' is an invalid keyword argument for {function}()")


def integer(name: str, value: Any, low: int = 0, high: int = _MAX_WORD) -> int:  # noqa: ANN401 - whatever a caller gave
    """Return a whole number.

    Raises:
        Refusal: Another type, or out of bounds.
    """
    try:
        number = index(value)
    except TypeError:
        raise invalid(name) from None
    if not low <= number <= high:
        raise invalid(name)
    return number


def number(name: str, value: Any) -> float:  # noqa: ANN401 - whatever a caller gave
    """Return a number, which may be NaN or infinite.

    Raises:
        Refusal: Another type, or a whole number no float can hold.
    """
    if not isinstance(value, float | int):
        raise invalid(name)
    try:
        return float(value)
    except OverflowError:
        raise invalid(name) from None


def is_sound(value: str) -> bool:
    """Tell whether a text can be sent: half of a surrogate pair cannot."""
    return value.isascii() or value == value.encode(errors="replace").decode()


def text(name: str, value: Any) -> str:  # noqa: ANN401 - whatever a caller gave
    """Return a text.

    Raises:
        Refusal: Another type.
    """
    if not isinstance(value, str):
        raise invalid(name)
    return value


def epoch(name: str, value: Any) -> int:  # noqa: ANN401 - whatever a caller gave
    """Return a date as whole epoch seconds; a naive datetime is local time, as in the real module.

    Raises:
        Refusal: Another type, not finite, or beyond the calendar.
    """
    try:
        seconds = value.timestamp() if isinstance(value, datetime) else value
    except (OverflowError, ValueError, OSError):
        raise invalid(name) from None
    if isinstance(seconds, float):
        if not math.isfinite(seconds):
            raise invalid(name)
        seconds = math.floor(seconds)
    number = integer(name, seconds, -MAX_EPOCH, _MAX_WORD)
    return min(number, MAX_EPOCH)


def mask(group: str) -> Callable[[str], bool]:
    """Return a test for symbols of a group such as ``*USD*,!EUR*``.

    ``*`` stands for any characters, ``!`` excludes; a symbol is wanted when a mask includes it
    and none excludes it.
    """
    parts = [part.strip() for part in group.split(",")]
    included = [part for part in parts if part and not part.startswith("!")]
    excluded = [part[1:].strip() for part in parts if part.startswith("!")]

    def wanted(symbol: str) -> bool:
        return any(_matches(part, symbol) for part in included) and not any(
            _matches(part, symbol) for part in excluded
        )

    return wanted


def _matches(pattern: str, symbol: str) -> bool:
    """Match ``*`` only, without regular expressions, which a hostile mask could stall."""
    first, *rest = pattern.split("*")
    if not rest:
        return symbol == pattern
    if not symbol.startswith(first):
        return False
    *middle, last = rest
    at = len(first)
    for part in middle:
        found = symbol.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return symbol.endswith(last) and len(symbol) - len(last) >= at
