"""Follows one account's WebSocket for as long as somebody looks at it."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final, NoReturn
from urllib.parse import quote

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from console.account_model import DEGRADED, NUMBERED, AccountModel, Frame
from console.api_client import ApiFailure, Problem
from mt5kit.backoff import Backoff

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 15.0
# The server says something every `heartbeat_s`; two of them missed and a bit is silence.
HEARTBEATS_MISSED: Final = 2
PATIENCE_MARGIN_S: Final = 5.0
DEFAULT_HEARTBEAT_S: Final = 15.0
# The server's resume tickets live two minutes; an older one would only cost a refused handshake.
RESUME_TICKET_S: Final = 110.0
# A snapshot of a thousand positions is half a megabyte.
LARGEST_MESSAGE: Final = 8 * 1024 * 1024
OPEN_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 2.0

_CLOSED: Final = {
    1009: "The stream refused a message as too long.",
    1011: "The stream has met a fault of its own.",
    1012: "The stream moves to another replica.",
    1013: "The streams are full or unavailable at the moment.",
    4400: "The stream did not understand the console.",
    4401: "The stream's ticket has expired.",
    4403: "The stream is not open to the console.",
    4404: "The stream knows no such account.",
    4408: "The stream was cut: it was read too slowly.",
    4409: "The account was disconnected or deleted.",
    4429: "This user, or the console, has too many streams open.",
}
# The right to watch has ended, and with it that of the resume ticket.
_RENEW: Final = 4401
# Closes after which an `error` message's `retry_after_s` counts.
_LATER: Final = frozenset({1013, 4429})
_ADVICE: Final = re.compile(r"reconnect after (\d{1,9}) ms", re.ASCII)
# No server of ours asks for more; a longer wait would only look like a dead page.
LONGEST_ADVICE_S: Final = 60.0
_DEAF: Final = "The stream hears nothing of the account at the moment."

# At debug level the library logs the address it connects to, ticket and all.
_library_log = logging.getLogger("console.stream_client.websockets")
_library_log.setLevel(logging.INFO)


class Phase(StrEnum):
    """How the stream itself does."""

    CONNECTING = "connecting"
    LIVE = "live"
    # Connected to a replica that cannot follow the account just now.
    DEGRADED = "degraded"
    RECONNECTING = "reconnecting"


class Link(msgspec.Struct, frozen=True):
    """The stream's phase, what went wrong last, and the replica that serves it."""

    phase: Phase = Phase.CONNECTING
    problem: Problem | None = None
    instance_id: str | None = None


class _Greeting(msgspec.Struct, frozen=True):
    instance_id: str | None = None
    heartbeat_s: float = DEFAULT_HEARTBEAT_S
    resume_ticket: str | None = None


class _Trouble(msgspec.Struct, frozen=True):
    retry_after_s: float | None = None


class StreamClient:
    """Keeps `model` at what the stream last told; reconnects by itself.

    `link` says how it does, `turned` is set whenever its phase changes, and `heard_at` is the
    clock's time of the last message.

    Args:
        assign: Gives a WebSocket address with a single-use ticket; raises `ApiFailure`.
        backoff: Delays between connections.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        assign: Callable[[], Awaitable[str]],
        *,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = AccountModel()
        self.link = Link()
        self.heard_at: float | None = None
        self.turned = asyncio.Event()
        self._assign = assign
        self._backoff = backoff or Backoff(FIRST_WAIT_S, LONGEST_WAIT_S)
        self._clock = clock
        self._address = ""
        self._ticket: tuple[str, float] | None = None
        self._patience_s = DEFAULT_HEARTBEAT_S
        self._retry_after_s = 0.0

    async def run(self) -> NoReturn:
        """Follow the account until cancelled."""
        while True:
            least_wait = 0.0
            try:
                await self._follow()
            except ApiFailure as refused:
                problem, least_wait = refused.problem, refused.retry_after_s or 0.0
            except ConnectionClosed as closed:
                problem, least_wait = self._closed(closed)
            except msgspec.DecodeError:
                problem = Problem("The stream is not understood.", "STREAM_NOT_UNDERSTOOD")
            except TimeoutError:
                problem = Problem("The stream has fallen silent.", "STREAM_SILENT")
            except (OSError, InvalidHandshake, InvalidURI):
                problem = Problem("The stream cannot be reached.", "STREAM_UNREACHABLE")
            self._turn(Link(Phase.RECONNECTING, problem, self.link.instance_id))
            await asyncio.sleep(max(self._backoff.next_s(), least_wait))

    async def _follow(self) -> NoReturn:
        opening = connect(
            await self._next_address(),
            proxy=None,
            max_size=LARGEST_MESSAGE,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            logger=_library_log,
        )
        async with opening as socket:
            # Single-use: whatever comes of this connection, the ticket is spent.
            self._ticket = None
            self._patience_s = DEFAULT_HEARTBEAT_S
            self._retry_after_s = 0.0
            while True:
                async with asyncio.timeout(self._patience_s):
                    text = await socket.recv()
                await self._hear(msgspec.json.decode(text, type=Frame), socket)

    async def _next_address(self) -> str:
        if self._ticket is None or self._clock() > self._ticket[1]:
            self._ticket = None
            address = await self._assign()
            self._address = address.partition("?")[0]
            return f"{address}{self._since()}"
        return f"{self._address}?ticket={quote(self._ticket[0])}{self._since()}"

    def _since(self) -> str:
        usable = self.model.based and not self.model.broken
        return f"&since={self.model.epoch}:{self.model.seq}" if usable else ""

    async def _hear(self, frame: Frame, socket: ClientConnection) -> None:
        was_broken = self.model.broken
        self.model = self.model.apply(frame)
        self.heard_at = self._clock()
        if frame.type in ("connected", "heartbeat"):
            self._greeted(msgspec.json.decode(frame.data, type=_Greeting), frame.type)
        elif frame.type == "error":
            told = msgspec.json.decode(frame.data, type=_Trouble)
            self._retry_after_s = told.retry_after_s or 0.0
        else:
            self._stand()
        if frame.type == "snapshot" or frame.type in NUMBERED:
            # Only now: a server that greets and hangs up would be asked without pause.
            self._backoff.reset()
        if self.model.broken and not was_broken:
            await socket.send('{"type":"refresh"}')

    def _greeted(self, greeting: _Greeting, kind: str) -> None:
        if greeting.resume_ticket is not None:
            self._ticket = (greeting.resume_ticket, self._clock() + RESUME_TICKET_S)
        if kind == "connected":
            self._patience_s = greeting.heartbeat_s * HEARTBEATS_MISSED + PATIENCE_MARGIN_S
            self._turn(Link(Phase.LIVE, None, greeting.instance_id))

    def _stand(self) -> None:
        """Say whether the replica hears of the account."""
        status, link = self.model.status, self.link
        if status is not None and status.state == DEGRADED:
            if link.phase is Phase.LIVE:
                problem = Problem(status.reason or _DEAF, "STREAM_DEGRADED")
                self._turn(Link(Phase.DEGRADED, problem, link.instance_id))
        elif link.phase is Phase.DEGRADED:
            self._turn(Link(Phase.LIVE, None, link.instance_id))

    def _closed(self, closed: ConnectionClosed) -> tuple[Problem, float]:
        """What a close says, and the seconds to wait at least."""
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
        problem = Problem(_CLOSED.get(code, "The stream was interrupted."), f"WS_{code}")
        if code == _RENEW:
            self._ticket = None
        advice = _ADVICE.search(reason)
        advised_s = min(int(advice[1]) / 1000, LONGEST_ADVICE_S) if advice else 0.0
        return problem, max(advised_s, self._retry_after_s if code in _LATER else 0.0)

    def _turn(self, link: Link) -> None:
        if link.phase is not self.link.phase:
            self.turned.set()
        self.link = link
