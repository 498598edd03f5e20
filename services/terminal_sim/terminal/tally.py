"""How often faults have acted, told to the supervisor without a message for each call."""

import logging
import threading
from collections import Counter
from collections.abc import Callable

from terminal_sim.faults.kinds import CrashInCall, Fault
from terminal_sim.process.wire import Acted

_LOG = logging.getLogger("terminal_sim")


class Tally:
    """Counts; what is limited in number is told at once, the rest when :meth:`flush` is called.

    Whoever restarts a crashed process has to know how many times a fault has left.

    Args:
        send: Sends a message; raises ``OSError`` when it cannot.
    """

    def __init__(self, send: Callable[[Acted], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._counts: Counter[int] = Counter()
        self._limited: set[int] = set()

    def begin(self, fault_id: int, fault: Fault) -> None:
        """Note whether a fault's every act has to be told at once."""
        if fault.times is not None or isinstance(fault, CrashInCall):
            self._limited.add(fault_id)

    def __call__(self, fault_id: int) -> None:
        """Count one act."""
        with self._lock:
            self._counts[fault_id] += 1
        if fault_id in self._limited:
            self.flush()

    def flush(self) -> None:
        """Tell what has not been told; what cannot be told now waits for the next time."""
        with self._lock:
            for fault_id, count in list(self._counts.items()):
                try:
                    self._send(Acted(fault_id, count))
                except OSError as error:
                    _LOG.warning("acts of fault %d are told later: %s", fault_id, error)
                    return
                del self._counts[fault_id]
