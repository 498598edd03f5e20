"""Imported once by the parent of brokers and terminals, so that they share its memory.

Freezing the garbage collector here keeps collections in a terminal from touching, and thereby
copying, the pages of the objects imported so far. The parent ends with the supervisor, and the
terminals with their parent.
"""

import gc

import terminal_sim.broker.process
import terminal_sim.terminal.process  # noqa: F401 - imported for its memory
from terminal_sim.process.ties import end_with_parent, take_name

take_name("mt5-terminals")
end_with_parent()
gc.collect()
gc.freeze()
