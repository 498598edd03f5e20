"""The numbers of `config/stack.toml`, from which everything else of the stack is made."""

import tomllib
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec

PATH: Final = Path("config/stack.toml")

Count = Annotated[int, msgspec.Meta(ge=1)]
Gigabytes = Annotated[float, msgspec.Meta(gt=0)]


class SizesInvalid(ValueError):
    """The file is not what it has to be; the message says where."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A misspelt name is refused, not ignored."""


class Pool(_Strict, frozen=True):
    """How many replicas a pool may have."""

    min: Count
    max: Count

    def __post_init__(self) -> None:
        """Refuse what the annotations cannot."""
        if self.max < self.min:
            raise ValueError(f"max {self.max} is below min {self.min}")


class Pools(_Strict, frozen=True):
    """The pools that are scaled."""

    api: Pool
    websocket: Pool

    def of(self, service: str) -> Pool:
        """By the name of the service.

        Raises:
            KeyError: It is no pool.
        """
        return {"api-pool": self.api, "websocket-pool": self.websocket}[service]


class Terminals(_Strict, frozen=True):
    """What a container of each role holds, and the memory of each terminal, in GB.

    Attributes:
        stream: Terminals in a container of the role.
        api: Likewise.
        market: Likewise.
        reserved_gb: What the scheduler keeps free for each.
        limit_gb: At which it is killed.
    """

    stream: Count
    api: Count
    market: Count
    reserved_gb: Gigabytes
    limit_gb: Gigabytes


class Networks(_Strict, frozen=True):
    """IPv4 networks in CIDR notation."""

    edge: str
    services: str
    terminals: str
    monitoring: str

    def __post_init__(self) -> None:
        """Refuse what is no network, or has bits set beside it."""
        for field in self.__struct_fields__:
            IPv4Network(getattr(self, field))


class Sizes(_Strict, frozen=True):
    """The whole file."""

    pools: Pools
    terminals: Terminals
    networks: Networks

    @classmethod
    def read(cls, path: Path = PATH) -> Self:
        """The sizes in a file.

        Raises:
            SizesInvalid: It is no TOML, or not of this shape.
            OSError: It cannot be read.
        """
        try:
            return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), cls)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as wrong:
            raise SizesInvalid(f"{path}: {wrong}") from wrong
