"""A witness inside a simulated terminal: under which fencing tokens was MetaTrader really called?

It sits between our agent and the module, and takes the token of each call from the agent's own
stack, so it believes neither the agent's check nor the agent's lock.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import rpyc
from rpyc.core.service import ClassicClient

from local_stack.simulator import PlacedTerminal

# Runs in the terminal. A call without the agent's frame above it is nobody's of ours.
_SOURCE = """
import json, sys, threading
import MetaTrader5 as mt5

def token_above():
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "perform" and "token" in frame.f_locals:
            return frame.f_locals["token"]
        frame = frame.f_back
    return None

def watched(name, original):
    def call(*args, **kwargs):
        token = token_above()
        if token is not None:
            note(name, token)
        return original(*args, **kwargs)
    return call

def note(name, token):
    with lock:
        seen["calls"] += 1
        if token not in seen["tokens"]:
            seen["tokens"].append(token)
        if token < max(seen["tokens"]):
            seen["stale"].append((name, token, max(seen["tokens"])))

def tell():
    return json.dumps(seen)

lock, seen = threading.Lock(), {"calls": 0, "tokens": [], "stale": []}
for name in ("account_info", "positions_get", "orders_get", "terminal_info", "login"):
    setattr(mt5, name, watched(name, getattr(mt5, name)))
"""
# In a module of its own: what a connection defines may end with it.
_INSTALL = f"""
import sys, types
witness = types.ModuleType("_cluster_witness")
exec({_SOURCE!r}, witness.__dict__)
sys.modules["_cluster_witness"] = witness
"""


class Testimony(msgspec.Struct, frozen=True):
    """What a witness saw.

    Attributes:
        calls: Of MetaTrader by agents of ours.
        tokens: Under which, in the order of their first call.
        stale: (function, token, highest token before it) of each call under an old token.
    """

    calls: int
    tokens: tuple[int, ...]
    stale: tuple[tuple[str, int, int], ...]


def install(terminal: PlacedTerminal) -> None:
    """Put a witness into a terminal; it sees nothing of what was before, nor after a restart."""
    with _connected(terminal) as connection:
        connection.execute(_INSTALL)


def evidence(terminal: PlacedTerminal) -> Testimony:
    """What the witness in a terminal has seen.

    Raises:
        KeyError: There is none; the process has been started again since.
    """
    with _connected(terminal) as connection:
        told = connection.eval("__import__('sys').modules['_cluster_witness'].tell()")
        return msgspec.json.decode(str(told), type=Testimony)


@contextmanager
def _connected(terminal: PlacedTerminal) -> Iterator[Any]:
    connection = rpyc.connect(terminal.host, terminal.port, service=ClassicClient)
    try:
        yield connection
    finally:
        connection.close()
