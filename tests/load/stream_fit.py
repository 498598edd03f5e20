"""What a replica's processor time goes to: making messages, and delivering them. Pure.

The difference of two runs does not tell it. How often terminals are looked at depends on what
the machine has to spare at the time, and the owner's work with it. So both are fitted to
all runs of one replica, by the messages that were made and the deliveries of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tests.load.stream_stage import Costs


@dataclass(frozen=True)
class Shares:
    """Least squares over several runs.

    Attributes:
        message_s: Processor seconds of a message, its looks, encoding and Redis in it.
        delivery_s: Processor seconds of one delivery of it.
        error: Root mean square of what the fit misses, of the mean of what was measured.
    """

    message_s: float
    delivery_s: float
    error: float


def shares_of(runs: Sequence[Costs]) -> Shares | None:
    """The shares, or None where these runs do not tell them apart (a share is not positive)."""
    made = [[one.rate / one.watchers * one.accounts, one.rate] for one in runs]
    cores = np.array([one.cores for one in runs])
    if len(runs) < len(made[0]) + 1:
        return None
    (message_s, delivery_s), _, rank, _ = np.linalg.lstsq(np.array(made), cores, rcond=None)
    if rank < len(made[0]) or min(message_s, delivery_s) <= 0:
        return None
    missed = np.array(made) @ np.array([message_s, delivery_s]) - cores
    error = float(np.sqrt(np.mean(missed**2)) / cores.mean())
    return Shares(float(message_s), float(delivery_s), error)
