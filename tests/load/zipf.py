"""Zipf-distributed demand: who is read when, and the least mean age that refreshing can give."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Of readers of web pages, and what issue 4 names.
EXPONENT = 1.1


@dataclass(frozen=True)
class Arrivals:
    """Requests to come.

    Attributes:
        at_s: Their instants in seconds after the start, ascending.
        account: The number of the account that each asks for.
    """

    at_s: NDArray[np.float64]
    account: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.at_s)


class Demand:
    """How much each account is read; the same seed gives the same demand and arrivals.

    Which account is the popular one is drawn, too: in the order of their popularity, accounts
    would be placed on the terminals more evenly than chance does it.

    Args:
        accounts: How many.
        seed: Of who is popular and of every draw.
    """

    def __init__(self, accounts: int, seed: int) -> None:
        self._seed = seed
        ranked = np.arange(1, accounts + 1, dtype=np.float64) ** -EXPONENT
        order = np.random.default_rng(seed).permutation(accounts)
        self.shares: NDArray[np.float64] = (ranked / ranked.sum())[order]

    def arrivals(self, rate: float, seconds: float) -> Arrivals:
        """Draw requests that come on their own, whatever became of earlier ones (Poisson).

        Args:
            rate: Requests a second.
            seconds: For how long.
        """
        draw = np.random.default_rng((self._seed, round(rate * 1000), round(seconds * 1000)))
        count = draw.poisson(rate * seconds)
        at_s = np.sort(draw.uniform(0, seconds, count))
        return Arrivals(at_s, draw.choice(len(self.shares), count, p=self.shares))

    def bound_s(self, terminals: int, switch_s: float) -> float:
        """The least demand-weighted mean age in seconds of any refreshing: (Σ√pᵢ)² / 2C.

        Args:
            terminals: How many switch at the same time; any account may be on any of them.
            switch_s: What a switch takes, so that C = terminals / switch_s.
        """
        return float(np.sqrt(self.shares).sum() ** 2 * switch_s / (2 * terminals))

    def placed_bound_s(self, placed: Iterable[Sequence[int]], switch_s: float) -> float:
        """The same where each terminal refreshes its own accounts only.

        Args:
            placed: The numbers of the accounts of each terminal.
            switch_s: What a switch takes.
        """
        roots = np.sqrt(self.shares)
        return sum(float(roots[list(numbers)].sum()) ** 2 for numbers in placed) * switch_s / 2
