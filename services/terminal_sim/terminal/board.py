"""What a terminal tells its supervisor through shared memory, readable while it is frozen."""

from multiprocessing.context import ForkServerContext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableSequence

_LOGIN_UNTIL, _LOGIN = 0, 1


class SharedBoard:
    """Two numbers in memory shared by a terminal and its supervisor.

    Args:
        context: Makes the memory, and passes it to the processes it starts.
    """

    def __init__(self, context: ForkServerContext) -> None:
        self._cells: MutableSequence[int] = context.RawArray("q", 2)

    def login_until(self, until_ms: int) -> None:
        """Post until when (UTC epoch milliseconds) a login may hold the interpreter; 0: none."""
        self._cells[_LOGIN_UNTIL] = until_ms

    def logged_in(self, login: int) -> None:
        """Post which account is logged in; 0: none."""
        self._cells[_LOGIN] = login

    def read(self) -> tuple[int, int]:
        """Return until when a login may take, and the account that is logged in; 0: none."""
        return self._cells[_LOGIN_UNTIL], self._cells[_LOGIN]

    def clear(self) -> None:
        """Forget what a terminal posted that has ended."""
        self._cells[_LOGIN_UNTIL] = self._cells[_LOGIN] = 0
