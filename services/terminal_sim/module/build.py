"""The module named ``MetaTrader5`` of a terminal's process."""

import sys
from types import ModuleType

from terminal_sim.catalogue import catalogue
from terminal_sim.module.connection import ConnectionFunctions
from terminal_sim.module.depth import DepthFunctions
from terminal_sim.module.history import HistoryFunctions
from terminal_sim.module.holdings import HoldingFunctions
from terminal_sim.module.quotes import QuoteFunctions
from terminal_sim.module.shortcuts import Shortcuts
from terminal_sim.module.structs import struct
from terminal_sim.module.trading import TradeFunctions
from terminal_sim.terminal.session import Terminal

NAME = "MetaTrader5"
# The wheel whose constants and structs these are.
_ABOUT = {"__version__": "5.0.6231", "__author__": "MetaQuotes Ltd."}


def build(terminal: Terminal) -> ModuleType:
    """Return a module with the constants, structs and functions of the real one."""
    module = ModuleType(NAME, "Simulated MetaTrader 5.")
    vars(module).update(_ABOUT)
    vars(module).update(catalogue().constants)
    vars(module).update({name: struct(name) for name in catalogue().structs})
    groups = (
        ConnectionFunctions(terminal),
        HoldingFunctions(terminal),
        HistoryFunctions(terminal),
        QuoteFunctions(terminal),
        DepthFunctions(terminal),
        TradeFunctions(terminal),
    )
    for name in catalogue().functions:
        group = next(group for group in groups if hasattr(group, name))
        setattr(module, name, getattr(group, name))
    vars(module).update(Shortcuts(module).functions())
    return module


def install(terminal: Terminal) -> ModuleType:
    """Make ``import MetaTrader5`` of this process give the simulated module."""
    module = build(terminal)
    sys.modules[NAME] = module
    return module
