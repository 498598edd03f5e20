"""What clients do besides reading."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Habits:
    """What a watcher does besides reading.

    Args:
        acts: Names of `Watcher`'s acts, chosen from at random; none for one that only reads.
        every_s: Between two of them, at most.
        stall_s: How long it does not read when it stalls, at most.
    """

    acts: tuple[str, ...] = ()
    every_s: float = 2.0
    stall_s: float = 1.5


CALM = Habits()
RESTLESS = Habits(("drop", "leave", "drop", "refresh", "ping"))
SLOW = Habits(("stall", "stall", "refresh", "drop"), every_s=1.0)
# Longer than what the kernel holds of a crowded account's messages lasts.
VERY_SLOW = Habits(("stall",), every_s=1.0, stall_s=15.0)
RUDE = Habits(("flood", "garbage", "refresh", "garbage", "drop"), every_s=1.0)
