"""Asking the supervisors of terminals whether these are about to end."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import httpx
import msgspec
import structlog

from mt5kit.secret import Secret

log = structlog.get_logger(__name__)

KEY_HEADER: Final = "X-Supervisor-Key"
# A supervisor answers within milliseconds, also while its terminals are frozen.
ANSWER_S: Final = 1.0
# What a container with hundreds of terminals would say of them.
LARGEST_ANSWER: Final = 1 << 18
DRAINING: Final = "draining"


@dataclass(frozen=True, slots=True)
class Peer:
    """What a link is connected to: a numeric address, and the terminal's RPyC port there."""

    address: str
    port: int


class _Terminal(msgspec.Struct, frozen=True):
    port: int
    state: str


class _Terminals(msgspec.Struct, frozen=True):
    terminals: tuple[_Terminal, ...]


class Supervisors:
    """What the supervisors of our terminals say of them.

    They are asked where the links are connected to: the name of a container that is being stopped
    is gone at once, and its connections go on. What is not answered changes nothing.

    Args:
        port: Where supervisors listen; 0 where there are none, and nothing is ever known.
        key: What opens them.
        transport: How requests travel; a test may give its own.
    """

    def __init__(
        self, port: int, key: Secret | None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._port = port
        self._known: dict[str, tuple[Peer, bool]] = {}
        self._silent: set[str] = set()
        self._client = httpx.AsyncClient(
            headers={} if key is None else {KEY_HEADER: key.reveal()},
            timeout=ANSWER_S,
            transport=transport,
            # Never through a proxy of the environment: terminals are on a network of their own.
            trust_env=False,
        )

    def draining(self, terminal_id: str) -> bool | None:
        """Whether a terminal drains, by the last answer; None if nobody has said so far."""
        known = self._known.get(terminal_id)
        return None if known is None else known[1]

    async def look(self, peers: Mapping[str, Peer | None]) -> None:
        """Ask once, each supervisor once.

        Args:
            peers: What our terminals' links are connected to, None for those that are not. The
                others are forgotten.
        """
        if not self._port:
            return
        # Whoever is connected to elsewhere is another terminal under the same name.
        self._known = {
            one: known
            for one, known in self._known.items()
            if one in peers and peers[one] in {None, known[0]}
        }
        by_address: dict[str, dict[int, str]] = {}
        for terminal_id, peer in peers.items():
            if peer is not None:
                by_address.setdefault(peer.address, {})[peer.port] = terminal_id
        self._silent &= by_address.keys()
        await asyncio.gather(*(self._ask(address, ids) for address, ids in by_address.items()))

    async def aclose(self) -> None:
        """Hang up."""
        await self._client.aclose()

    async def _ask(self, address: str, ids: Mapping[int, str]) -> None:
        try:
            terminals = await self._answer(address)
        except (httpx.HTTPError, msgspec.DecodeError, ValueError) as failure:
            if address not in self._silent:
                log.warning("supervisor_silent", address=address, error=repr(failure))
            self._silent.add(address)
            return
        if address in self._silent:
            log.info("supervisor_answers", address=address)
            self._silent.discard(address)
        for terminal in terminals:
            terminal_id = ids.get(terminal.port)
            if terminal_id is not None:
                self._learn(terminal_id, Peer(address, terminal.port), terminal.state == DRAINING)

    def _learn(self, terminal_id: str, peer: Peer, draining: bool) -> None:
        if draining and not self.draining(terminal_id):
            log.info("terminal_drains", terminal_id=terminal_id)
        self._known[terminal_id] = peer, draining

    async def _answer(self, address: str) -> tuple[_Terminal, ...]:
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{self._port}/terminals"
        async with self._client.stream("GET", url) as answer:
            if answer.status_code != HTTPStatus.OK:
                raise ValueError(f"it answered {answer.status_code}")
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > LARGEST_ANSWER:
                    raise ValueError("its answer is too long")
        return msgspec.json.decode(body, type=_Terminals).terminals
