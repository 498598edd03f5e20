"""Turns of one terminal that several accounts share: who is in, who is next, what is refreshed."""

from mt5kit.terminal.chunks import Chunk, Done, More
from mt5kit.terminal.scheduling.parts import (
    Entrant,
    LoginBudget,
    RefreshSource,
    SchedulerEvents,
    SchedulerParts,
    SchedulerRules,
    Turn,
)
from mt5kit.terminal.scheduling.refusals import RefusalMemory
from mt5kit.terminal.scheduling.scheduler import TerminalScheduler

__all__ = [
    "Chunk",
    "Done",
    "Entrant",
    "LoginBudget",
    "More",
    "RefreshSource",
    "RefusalMemory",
    "SchedulerEvents",
    "SchedulerParts",
    "SchedulerRules",
    "TerminalScheduler",
    "Turn",
]
