"""The shape of the real MetaTrader5 module, read from the JSON shipped beside this file."""

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import numpy as np


class Catalogue(msgspec.Struct, frozen=True):
    """What the real module exports.

    Attributes:
        constants: Name to value of every constant.
        structs: Struct name to its field names, in order.
        functions: Names of the module's functions.
        error_messages: Texts of ``last_error()`` by code.
        rates_dtype: Name and format of each column of ``copy_rates_*``.
        ticks_dtype: Name and format of each column of ``copy_ticks_*``.
    """

    constants: dict[str, int]
    structs: dict[str, tuple[str, ...]]
    functions: tuple[str, ...]
    error_messages: dict[int, str]
    rates_dtype: tuple[tuple[str, str], ...]
    ticks_dtype: tuple[tuple[str, str], ...]

    def rates(self) -> np.dtype[Any]:
        """Return the dtype of a bar."""
        return np.dtype(list(self.rates_dtype))

    def ticks(self) -> np.dtype[Any]:
        """Return the dtype of a tick."""
        return np.dtype(list(self.ticks_dtype))


@cache
def catalogue() -> Catalogue:
    """Read the catalogue once per process."""
    raw = files("terminal_sim").joinpath("mt5_api.json").read_bytes()
    return msgspec.json.decode(raw, type=Catalogue, strict=False)
