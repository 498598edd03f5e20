"""The supervisor's connection to a broker it runs."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from terminal_sim.broker.messages import (
    LENGTH_BYTES,
    MAX_MESSAGE,
    Act,
    Answer,
    Inject,
    Look,
    Mend,
    Refused,
    Spent,
)
from terminal_sim.supervisor.member import Member

_LOG = logging.getLogger("terminal_sim.supervisor")
_RETRY_S = 0.1
_TIMEOUT_S = 10.0
# A broker that has ended is back in much less.
_PATIENCE_S = 3.0
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Answer).decode
Asking = Act | Look | Inject | Mend
A = TypeVar("A")


class BrokerDown(Exception):
    """The broker cannot be asked now, or did not answer: what was asked may have been done."""


class BrokerRefused(Exception):
    """The broker refuses to do what it was asked.

    Attributes:
        reason: See :class:`~terminal_sim.broker.messages.Refused`.
    """

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.text)
        self.reason = refused.reason


class BrokerLink:
    """Asks one broker; connects again whenever it was started again.

    Args:
        member: The broker's process.
        address: Where it listens.
        key: What proves that we are its supervisor.
        timeout_s: How long an answer may take.

    Attributes:
        connected: Set while the broker can be asked.
        on_connected: Awaited whenever the connection stands, before anybody else may ask.
        on_spent: Called with the id of a fault that has acted.
    """

    def __init__(
        self,
        member: Member,
        address: tuple[str, int],
        key: str | None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self.connected = asyncio.Event()
        self.on_connected: Callable[[], Awaitable[None]] = _nothing
        self.on_spent: Callable[[int], None] = _no_one
        self._member = member
        self._address = address
        self._key = key
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._stopped = asyncio.Event()

    async def keep(self) -> None:
        """Stay connected until :meth:`stop`."""
        stopped = asyncio.create_task(self._stopped.wait())
        while not stopped.done():
            talking = asyncio.create_task(self._talk())
            await asyncio.wait((stopped, talking), return_when=asyncio.FIRST_COMPLETED)
            talking.cancel()
            await asyncio.wait((talking,))
            if not talking.cancelled() and (error := talking.exception()):
                _LOG.error("the link to %s failed", self._member.name, exc_info=error)
            await asyncio.wait((stopped,), timeout=_RETRY_S)

    async def stop(self) -> None:
        """End the connection for good."""
        self._stopped.set()

    async def ask(self, make: Callable[[int, str | None], Asking], kind: type[A]) -> A:
        """Send what ``make`` makes of an id and the key, and return the answer.

        Waits a moment for a broker that is just being started again. That a fault is on, a broker
        that is held up says later: this answer has as long as the connection lasts.

        Raises:
            BrokerDown: There is no connection, or no answer in time.
            BrokerRefused: The broker refuses.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self.connected.wait(), _PATIENCE_S)
        return await self.ask_at_once(make, kind)

    async def ask_at_once(self, make: Callable[[int, str | None], Asking], kind: type[A]) -> A:
        """Do what :meth:`ask` does, also before the connection is open to all.

        Raises:
            BrokerDown: There is no connection, or no answer in time.
            BrokerRefused: The broker refuses.
        """
        if self._writer is None:
            raise BrokerDown("is not connected")
        number = next(self._ids)
        request = make(number, self._key)
        body = _encode(request)
        timeout_s = None if isinstance(request, Inject) else self._timeout_s
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)
        try:
            told = await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            raise BrokerDown("did not answer in time") from None
        finally:
            self._waiting.pop(number, None)
        if isinstance(told, Refused):
            raise BrokerRefused(told)
        if not isinstance(told, kind):
            raise BrokerDown(f"answered {type(told).__name__}")
        return told

    async def _talk(self) -> None:
        """Connect and read until the connection ends."""
        await self._member.listening.wait()
        try:
            reader, writer = await asyncio.open_connection(*self._address)
        except OSError:  # it has just ended; it is started again
            return
        self._writer = writer
        greeting = asyncio.create_task(self._greet())
        try:
            while True:
                self._take(await _message(reader))
        except (OSError, EOFError, msgspec.DecodeError) as error:
            _LOG.warning("%s: the supervisor's connection ended: %r", self._member.name, error)
        finally:
            greeting.cancel()
            self.connected.clear()
            self._writer = None
            writer.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(BrokerDown("ended before it answered"))

    async def _greet(self) -> None:
        await self.on_connected()
        self.connected.set()

    def _take(self, message: Answer) -> None:
        if isinstance(message, Spent):
            self.on_spent(message.fault_id)
            return
        answer = self._waiting.get(getattr(message, "id", 0))
        if answer and not answer.done():
            answer.set_result(message)


async def _message(reader: asyncio.StreamReader) -> Answer:
    size = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if size > MAX_MESSAGE:
        raise msgspec.DecodeError(f"a message of {size} bytes")
    answer: Answer = _decode(await reader.readexactly(size))
    return answer


async def _nothing() -> None:
    """Nobody has to be told."""


def _no_one(_fault_id: int) -> None:
    """Nobody has to be told."""
