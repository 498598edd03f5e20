"""Faults that a scenario plans."""

from typing import Any

from terminal_sim.faults.injection import Injection, read

_LATEST_S = 86_400 * 365


class PlannedFault:
    """A fault and when it begins; a type of its own for the decoder.

    Attributes:
        after_s: Seconds after everything listens.
        injection: The fault, and where it is wanted.
    """

    __slots__ = ("after_s", "injection")

    def __init__(self, after_s: float, injection: Injection) -> None:
        self.after_s = after_s
        self.injection = injection

    def __repr__(self) -> str:
        return f"PlannedFault({self.after_s}, {self.injection})"

    def __eq__(self, other: object) -> bool:
        mine = self.after_s, self.injection
        return isinstance(other, PlannedFault) and mine == (other.after_s, other.injection)

    def __hash__(self) -> int:
        return hash((self.after_s, self.injection))


def parse(value: Any) -> PlannedFault:  # noqa: ANN401 - what a TOML or JSON decoder found
    """Read an entry of ``[[faults]]``: ``after_s`` beside what the control API takes.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a fault is a table, not {value!r}")  # noqa: TRY004 - the decoder reports ValueError with its place
    rest = dict(value)
    after_s = rest.pop("after_s", 0)
    if isinstance(after_s, bool) or not isinstance(after_s, (int, float)):
        raise ValueError(f"after_s: seconds are a number, not {after_s!r}")  # noqa: TRY004 - likewise
    if not 0 <= after_s <= _LATEST_S:
        raise ValueError(f"after_s: must be from 0 to {_LATEST_S}")
    return PlannedFault(float(after_s), read(rest))
