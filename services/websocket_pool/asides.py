"""What one socket is told besides the account's line: messages that advance nothing."""

from collections.abc import Iterator

from mt5kit.domain.accounts import AccountState
from mt5kit.domain.instants import now_ms
from mt5kit.errors import LoginRefused, TerminalUnavailable
from websocket_pool.messages import Message, encode
from websocket_pool.resume import ResumeTicket
from websocket_pool.source import AccountSource


class Asides:
    """Makes them, at the place where the line stands now.

    Args:
        source: The line.
        ticket: Opens the socket's next connection.
    """

    def __init__(self, source: AccountSource, ticket: ResumeTicket) -> None:
        self._source = source
        self._ticket = ticket

    def connected(self, instance_id: str, heartbeat_s: float, *, resumed: bool) -> Message:
        """The first message of all."""
        return self._of(
            "connected",
            instance_id=instance_id,
            heartbeat_s=heartbeat_s,
            resumed=resumed,
            resume_ticket=self._ticket.value,
            status=self._source.status,
        )

    def trouble(self) -> Iterator[Message]:
        """Tell who comes late what its `status` message has told the others."""
        status = self._source.status
        if status.state is AccountState.LOGIN_FAILED:
            yield self.error(LoginRefused.code, status.reason or status.state)
        elif status.state is not AccountState.CONNECTED:
            yield self.error(TerminalUnavailable.code, status.reason or status.state)

    def heartbeat(self) -> Message:
        """It brings the renewed ticket."""
        return self._of("heartbeat", resume_ticket=self._ticket.value)

    def pong(self) -> Message:
        """The answer to a ping."""
        return self._of("pong")

    def error(self, code: str, text: str) -> Message:
        """What went wrong, which closes nothing."""
        return self._of("error", code=code, message=text, retry_after_s=None)

    def _of(self, kind: str, **data: object) -> Message:
        return encode(kind, self._source.place, now_ms(), data)
