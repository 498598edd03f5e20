"""How many sockets there may be."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.close_codes import CloseCode


class Refused(Exception):
    """A socket that is closed before it sees anything.

    Args:
        code: The close code.
        reason: A sentence for a person.
    """

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Admission:
    """Counts the sockets of this replica, in all and by user.

    Args:
        most: Sockets this replica serves.
        most_per_user: Of them, how many one user may have.
        metrics: Shows the count.
    """

    def __init__(self, most: int, most_per_user: int, metrics: StreamMetrics) -> None:
        self._most = most
        self._most_per_user = most_per_user
        self._metrics = metrics
        self._count = 0
        self._by_user: Counter[str] = Counter()

    @contextmanager
    def socket(self) -> Iterator[None]:
        """Room for one socket, known or unknown.

        Raises:
            Refused: There is none.
        """
        if self._count >= self._most:
            raise Refused(CloseCode.OVERLOADED, "this replica has no room")
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    @contextmanager
    def user(self, user_id: str) -> Iterator[None]:
        """Room for one more socket of a user.

        Raises:
            Refused: The user has too many.
        """
        if self._by_user[user_id] >= self._most_per_user:
            raise Refused(CloseCode.TOO_MANY, f"at most {self._most_per_user} connections a user")
        self._by_user[user_id] += 1
        try:
            yield
        finally:
            self._by_user[user_id] -= 1
            if not self._by_user[user_id]:
                del self._by_user[user_id]

    def _change(self, by: int) -> None:
        self._count += by
        self._metrics.connections.set(self._count)
