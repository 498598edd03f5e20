"""What terminals look at the market through, kept between logins: tapes, wall clocks, bars."""

from dataclasses import dataclass

from terminal_sim.broker.values import Terms
from terminal_sim.market.bars import Bars
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.prices import Market
from terminal_sim.market.tape import Tape


@dataclass(frozen=True, slots=True)
class View:
    """A market on a server's clock.

    Attributes:
        tape: Newest ticks.
        wall: The server's wall clock, with the shifts it was put through.
        bars: Bars on that clock.
    """

    tape: Tape
    wall: WallClock
    bars: Bars


class Views:
    """Keeps one tape of each market, and the view of each server on its clock as it is now."""

    def __init__(self) -> None:
        self._tapes: dict[int, Tape] = {}
        self._views: dict[str, tuple[Terms, View]] = {}

    def of(self, terms: Terms) -> View:
        """Return the view under a server's terms."""
        known = self._views.get(terms.server)
        if known and known[0] == terms:
            return known[1]
        tape = self._tapes.setdefault(terms.seed, Tape(Market(terms.seed)))
        wall = WallClock(terms.clock).shifted(terms.shifts)
        view = View(tape, wall, Bars(tape.market, wall))
        self._views[terms.server] = terms, view
        return view
