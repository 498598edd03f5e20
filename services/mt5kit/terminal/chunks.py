"""What one step of long work on a terminal gives: more to do, or the result.

Work longer than a turn may take is cut into steps of bounded terminal time. Each step holds the
terminal alone; between two steps, more urgent work goes first.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class More:
    """There is another step to take, not sooner than `pause_s` seconds from now."""

    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Done(Generic[T_co]):
    """The work is over, with this value."""

    value: T_co


Chunk: TypeAlias = More | Done[T]
Step: TypeAlias = Callable[[int], Awaitable[Chunk[T]]]
"""Takes the fencing token of this moment; raises what the terminal raises."""
