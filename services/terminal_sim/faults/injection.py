"""A fault somebody asks for, and where: read from a request, a command line or a scenario file."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from terminal_sim.catalogue import catalogue
from terminal_sim.faults.kinds import BrokerFault, Fault, TerminalFault
from terminal_sim.market.instruments import INSTRUMENTS

_HALF = re.compile("[\ud800-\udfff]")
_LONGEST_ECHO = 100

TERMINAL_KINDS: dict[str, type[Fault]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(TerminalFault)
}
"""Faults of one terminal by their names."""
BROKER_KINDS: dict[str, type[Fault]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(BrokerFault)
}
"""Faults of a broker by their names."""


class FaultRefused(ValueError):
    """There is no such fault, or it has no such parameters; the message is for a person."""


@dataclass(frozen=True)
class Injection:
    """A fault and where it is wanted.

    Attributes:
        fault: The fault.
        terminal: Number of the terminal; None: all of them, or a fault of brokers.
        server: Server whose broker it is for; None: all of them, or a fault of terminals.
    """

    fault: Fault
    terminal: int | None = None
    server: str | None = None


def read(asked: Mapping[str, Any], *, strict: bool = True) -> Injection:
    """Make sense of ``name``, ``terminal`` or ``server``, and the fault's own parameters.

    ``account_switched`` has a ``server`` of its own: that of the account.

    Args:
        asked: What was asked for.
        strict: Take no texts for numbers; a command line has nothing but texts.

    Raises:
        FaultRefused: The name, a parameter, or where it is wanted makes no sense.
    """
    if any(_HALF.search(text) for text in _texts(asked)):
        # JSON can write them, and nobody can send them on.
        raise FaultRefused("a fault has texts of valid Unicode, without halves of surrogate pairs")
    rest = dict(asked)
    name = rest.get("name")
    kind = TERMINAL_KINDS.get(str(name)) or BROKER_KINDS.get(str(name))
    where = "terminal" if kind in TERMINAL_KINDS.values() else "server"
    if kind is None:
        known = ", ".join(sorted((*TERMINAL_KINDS, *BROKER_KINDS)))
        said = "a fault needs a name" if name is None else f"no fault is named {brief(repr(name))}"
        raise FaultRefused(f"{said}; there are {known}")
    if where == "server" and "terminal" in rest:
        raise FaultRefused(f"{name} is a fault of brokers: it takes server, not terminal")
    target = rest.pop(where, None)
    fault = _fault(kind, rest, strict=strict)
    try:
        if where == "terminal":
            return Injection(fault, terminal=msgspec.convert(target, int | None, strict=strict))
        return Injection(fault, server=msgspec.convert(target, str | None))
    except msgspec.ValidationError as error:
        raise FaultRefused(f"{where}: {_lower(str(error))}") from None


def brief(text: str) -> str:
    """Return a text somebody gave, cut to what may be repeated in a sentence."""
    return text if len(text) <= _LONGEST_ECHO else f"{text[:_LONGEST_ECHO]}…"


def parameters(kind: type[Fault]) -> tuple[str, ...]:
    """Return the names of a fault's parameters: its own, and how it ends."""
    own = (name for name in kind.__struct_fields__ if name not in Fault.__struct_fields__)
    return (*own, *kind.ends)


def optional(name: str) -> frozenset[str]:
    """Return the parameters of a fault that may be left open, where it is wanted among them.

    To any other parameter ``none`` is a word as good as another, as to ``answer``.
    """
    kind = TERMINAL_KINDS.get(name) or BROKER_KINDS.get(name)
    own = () if kind is None else msgspec.structs.fields(kind)
    where = "terminal" if name in TERMINAL_KINDS else "server"
    return frozenset((where, *(each.name for each in own if type(None) in get_args(each.type))))


def _fault(kind: type[Fault], asked: Mapping[str, Any], *, strict: bool) -> Fault:
    unfit = {"times", "seconds"}.difference(kind.ends).intersection(asked)
    if unfit:
        takes = " and ".join(kind.ends) or "no end: it happens once"
        raise FaultRefused(f"{asked['name']}: takes {takes}, not {' and '.join(sorted(unfit))}")
    try:
        fault = msgspec.convert(asked, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise FaultRefused(f"{asked['name']}: {_reason(kind, str(error))}") from None
    functions = set(catalogue().functions)
    if unknown := [each for each in getattr(fault, "functions", ()) if each not in functions]:
        raise FaultRefused(f"{asked['name']}: the module has no function {unknown[0]!r}")
    symbol = getattr(fault, "symbol", None)
    if symbol is not None and symbol not in INSTRUMENTS:
        raise FaultRefused(f"{asked['name']}: symbol: no symbol is named {symbol!r}")
    return fault


def _texts(asked: object) -> Iterator[str]:
    """Yield all texts of what a decoder found, however deeply it is nested."""
    left = [asked]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, Mapping):
            left += [*each, *each.values()]
        elif isinstance(each, list | tuple):
            left += each


def _reason(kind: type[Fault], text: str) -> str:
    """Say what a decoder found in the words of whoever gave the parameters."""
    if "unknown field" in text:
        names = ", ".join(sorted(parameters(kind)))
        return f"no parameter is named {brief(_quoted(text))}; there are {names}"
    if "missing required field" in text:
        return f"the parameter {_quoted(text)} is missing"
    said, _, place = text.partition(" - at `$.")
    return f"{place.rstrip('`')}: {_lower(said)}" if place else _lower(said)


def _quoted(text: str) -> str:
    return repr(text.split("`")[1])


def _lower(text: str) -> str:
    return (text[:1].lower() + text[1:]).replace("`", "")
