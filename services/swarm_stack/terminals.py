"""Where the terminals of a stack are: by slot names, up to the maximum of their pool."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from swarm_stack.sizes import Sizes

FIRST_PORT: Final = 8001


class Terminal(msgspec.Struct, frozen=True):
    """One terminal process, as the pools' settings have it."""

    terminal_id: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Slots:
    """The containers of a role and the terminals in each.

    Args:
        service: Name of the service; its slots are `<service>-1` and so on.
        most: Slots at most.
        each: Terminals in a container.
    """

    service: str
    most: int
    each: int

    def terminals(self) -> tuple[Terminal, ...]:
        """All terminals there can be."""
        return tuple(
            Terminal(terminal_id, f"{self.service}-{slot}", FIRST_PORT + number)
            for slot in range(1, self.most + 1)
            for number, terminal_id in enumerate(self.ids(str(slot)))
        )

    def ids(self, slot: str) -> Iterator[str]:
        """The terminals' ids in a slot; a container's only terminal has the slot's name."""
        name = f"{self.service}-{slot}"
        if self.each == 1:
            yield name
        else:
            yield from (f"{name}-{number}" for number in range(1, self.each + 1))


def api_slots(sizes: Sizes) -> Slots:
    """Of the API pool: a container for each replica."""
    return Slots("mt5-api", sizes.pools.api.max, sizes.terminals.api)


def stream_slots(sizes: Sizes) -> Slots:
    """Of the WebSocket pool: a container for each replica."""
    return Slots("mt5-stream", sizes.pools.websocket.max, sizes.terminals.stream)


def generated_configs(sizes: Sizes) -> dict[str, bytes]:
    """The configs that are made from the sizes, by name: which terminals there are."""
    stream = stream_slots(sizes).terminals()
    return {
        "api_terminals": _lines(api_slots(sizes).terminals()),
        "stream_terminals": _lines(stream),
        "stream_terminal_ids": _lines(tuple(one.terminal_id for one in stream)),
    }


def _lines(values: tuple[object, ...]) -> bytes:
    return b"[\n" + b",\n".join(msgspec.json.encode(value) for value in values) + b"\n]\n"
