"""Capped exponential back-off with full jitter."""

import random
from dataclasses import dataclass, field

# Doubling past this changes nothing: the cap has been reached long before.
_MOST_DOUBLINGS = 20


@dataclass(slots=True)
class Backoff:
    """Delays that double up to a cap, each drawn at random between half of it and all.

    Args:
        first_s: The first delay.
        cap_s: The longest.
        rng: Where the jitter comes from; seed it in a test.
    """

    first_s: float = 0.1
    cap_s: float = 5.0
    rng: random.Random = field(default_factory=random.Random)
    _failures: int = 0

    def next_s(self) -> float:
        """Seconds to wait after one more failure."""
        full = min(self.cap_s, self.first_s * 2.0 ** min(self._failures, _MOST_DOUBLINGS))
        self._failures += 1
        return full * self.rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin anew after a success."""
        self._failures = 0
