"""Whether a client takes what waits for it."""

from websocket_pool.wire import Flow


class Stall:
    """Notices a client that takes nothing.

    A client takes something when its machine acknowledges a byte. So one that reads a byte now and
    then is slow and stays; and bytes its own machine keeps for it count as taken.

    Args:
        patience_s: How long it may take nothing while something waits for it.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since_s = 0.0
        self._most = 0
        self.waits = False

    def noticed(self, flow: Flow, now_s: float) -> bool:
        """Whether it has taken nothing for too long; to be asked now and then.

        Args:
            flow: How far it is.
            now_s: The time, on any one clock.
        """
        # What has been taken may seem to shrink: control frames of the server's are waited for
        # but were not counted when they were handed over.
        if flow.taken > self._most or not (flow.waiting and self.waits):
            self._most = flow.taken
            self._since_s = now_s
        self.waits = flow.waiting
        return self.waits and now_s - self._since_s >= self._patience_s
