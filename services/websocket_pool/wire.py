"""What a server offers a session beyond ASGI: whole frames, written at once or not at all."""

from typing import Final, NamedTuple, Protocol

WIRE_EXTENSION: Final = "mt5.wire"
"""In the scope's `extensions`: a `Wire`, if the server has one."""


class Flow(NamedTuple):
    """How far a client has got.

    Args:
        taken: Grows whenever the client takes something; compare it, it has no unit.
        waiting: Whether it has been handed something that it has not taken.
    """

    taken: int
    waiting: bool


class Wire(Protocol):
    """A connection to a client."""

    def offer(self, frame: bytes) -> bool:
        """Write a whole frame, unless the client has to take something first or has gone."""

    async def drained(self) -> bool:
        """Wait until a frame may be offered; False if the client has gone."""

    def flow(self) -> Flow:
        """How far the client has got, in bytes that its machine has acknowledged."""

    def abort(self) -> None:
        """Cut the connection; what has not been sent is lost."""
