"""How large the stack may become: `config/stack.toml`."""

from pathlib import Path
from typing import Annotated, Final

import msgspec

FILE: Final = Path("config/stack.toml")

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Pool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Replicas of a pool."""

    min: Positive
    max: Positive


class TerminalSizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Terminals in a container of each role, and the memory of one in GB."""

    stream: Positive
    api: Positive
    market: Positive
    reserved_gb: float
    limit_gb: float


class Networks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Subnets of the overlay networks."""

    edge: str
    services: str
    terminals: str
    monitoring: str


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    pools: dict[str, Pool]
    terminals: TerminalSizes
    networks: Networks


def read_sizes(path: Path = FILE) -> Sizes:
    """The sizes of a file.

    Raises:
        msgspec.ValidationError: Something is missing or of another kind.
        OSError: It cannot be read.
    """
    return msgspec.toml.decode(path.read_bytes(), type=Sizes)
