"""What account sessions are measured with, and what was measured."""

from dataclasses import dataclass, field

from tests.load.baselines import Baseline
from tests.load.session_reads import Figures
from tests.load.zipf import Demand

SEED = 20260105
# A login of a real terminal takes this and more.
SWITCH_S = 1.5
NAIVE_RATE = 100.0
REPLICAS = 2
# The rates at which the default freshness is measured; the promises are about these rows.
ORDINARY, RATES = "default freshness", (100.0, 500.0)
ALWAYS, WHEN_NEEDED, ROUND_ROBIN = "always", "when-needed", "round-robin"


@dataclass(frozen=True)
class Size:
    """How many accounts share how many terminals."""

    accounts: int
    terminals: int

    def __str__(self) -> str:
        return f"{self.accounts} on {self.terminals}"

    @property
    def cycle_s(self) -> float:
        """What it takes to see every account once."""
        return self.accounts / self.terminals * SWITCH_S

    @property
    def demand(self) -> Demand:
        """Who is read how much."""
        return Demand(self.accounts, SEED + self.accounts)

    @property
    def bound_s(self) -> float:
        """The least mean age that refreshing alone can give."""
        return self.demand.bound_s(self.terminals, SWITCH_S)


@dataclass(frozen=True)
class Run:
    """Reads of a size, and what became of them."""

    size: Size
    title: str
    rate: float
    figures: Figures


@dataclass(frozen=True)
class Measured:
    """Everything; grows while it is measured.

    Attributes:
        sizes: In the order of their rows.
        baselines: By size and kind.
        runs: Of ours.
    """

    sizes: tuple[Size, ...]
    baselines: dict[tuple[Size, str], Baseline] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    def ordinary(self, size: Size, rate: float) -> Figures:
        """At the default freshness."""
        wanted = (size, ORDINARY, rate)
        return next(run.figures for run in self.runs if (run.size, run.title, run.rate) == wanted)

    def naive_per_s(self, size: Size) -> float:
        """Requests a second of the better of the naive fronts."""
        return max(self.baselines[size, kind].per_s for kind in (ALWAYS, WHEN_NEEDED))
