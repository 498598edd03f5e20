"""What faults do to calls of the module."""

import math
import os
import random
from typing import NoReturn

from terminal_sim.catalogue import catalogue
from terminal_sim.faults.active import ActiveFaults
from terminal_sim.faults.kinds import CrashInCall, IpcError, Latency
from terminal_sim.module.arguments import Refusal
from terminal_sim.terminal.frozen_sleep import hold_interpreter

CRASH_CODE = 70
"""What a process ends with that was made to crash in a call: ``EX_SOFTWARE``."""
# The tails of some distributions know no end.
_LONGEST_MS = 3_600_000.0


class Mischance:
    """Asks the faults that are on what befalls a call.

    Args:
        faults: Those that are on.
        seed: Of their chances.
    """

    def __init__(self, faults: ActiveFaults, seed: str) -> None:
        self._faults = faults
        self._random = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret

    def before(self, function: str) -> None:
        """Delay a call, or refuse it.

        Raises:
            Refusal: With an IPC code.
        """
        late = self._faults.take(Latency, lambda fault: _meant(fault.functions, function))
        if late:
            hold_interpreter(delay_ms(late, self._random) / 1000)
        broken = self._faults.take(IpcError, lambda fault: _meant(fault.functions, function))
        if broken:
            text = catalogue().error_messages[broken.code]
            raise Refusal((broken.code, text.replace("%S", "connection lost")))

    def after(self, function: str) -> None:
        """End the process when its work is done and its caller has not been told."""
        if self._faults.take(CrashInCall, lambda fault: _meant(fault.functions, function)):
            _crash()


def delay_ms(fault: Latency, chance: random.Random) -> float:
    """Draw one delay in milliseconds, from 0 to an hour."""
    middle, spread = fault.ms, fault.spread_ms
    drawn = middle
    if fault.distribution == "uniform":
        drawn = chance.uniform(middle - spread, middle + spread)
    elif fault.distribution == "normal":
        drawn = chance.gauss(middle, spread)
    elif fault.distribution == "lognormal" and middle:
        drawn = chance.lognormvariate(math.log(middle), lognormal_sigma(middle, spread))
    elif fault.distribution == "exponential" and middle:
        drawn = chance.expovariate(1 / middle)
    return min(max(drawn, 0.0), _LONGEST_MS)


def lognormal_sigma(median: float, deviation: float) -> float:
    """Return the shape of a lognormal distribution from its median and standard deviation.

    With ``x = exp(sigma**2)`` its variance is ``median**2 * x * (x - 1)``, solved for ``x``.
    """
    return math.sqrt(math.log((1 + math.sqrt(1 + 4 * (deviation / median) ** 2)) / 2))


def _meant(functions: tuple[str, ...], function: str) -> bool:
    return not functions or function in functions


def _crash() -> NoReturn:
    os._exit(CRASH_CODE)
