import copy
import pickle

import pytest

from terminal_sim.catalogue import catalogue
from terminal_sim.module.structs import struct


@pytest.mark.parametrize("name", sorted(catalogue().structs))
def test_a_struct_is_a_tuple_with_names(name: str) -> None:
    cls, fields = struct(name), catalogue().structs[name]
    row = cls(range(len(fields)))
    assert row == tuple(range(len(fields)))
    assert (row[0], row[-1], len(row)) == (0, len(fields) - 1, len(fields))
    assert [getattr(row, field) for field in fields] == list(row)
    assert list(row._asdict()) == list(fields)
    assert (cls.__module__, cls.__name__, cls.__qualname__) == ("builtins", name, name)
    assert not hasattr(row, "_fields")
    assert not hasattr(row, "__dict__")


def test_its_repr_names_every_field() -> None:
    row = struct("BookInfo")((1, 1.5, 2, 2.0))
    assert repr(row) == "BookInfo(type=1, price=1.5, volume=2, volume_dbl=2.0)"


def test_asdict_is_shallow() -> None:
    request = struct("TradeRequest")(range(17))
    result = struct("OrderCheckResult")((*range(8), request))
    assert result._asdict()["request"] is request


def test_it_cannot_be_pickled_or_copied() -> None:
    row = struct("BookInfo")((1, 1.5, 2, 2.0))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot pickle 'BookInfo' object"):
            pickle.dumps(row, protocol)
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.copy(row)


def test_it_cannot_be_changed_or_built_short() -> None:
    row = struct("BookInfo")((1, 1.5, 2, 2.0))
    with pytest.raises(AttributeError):
        row.price = 2  # type: ignore[attr-defined]  # that it cannot is the point
    with pytest.raises(AttributeError, match="has no attribute 'prize'"):
        _ = row.prize
    with pytest.raises(TypeError, match="4-sequence"):
        struct("BookInfo")((1, 2))


def test_an_unknown_struct_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        struct("NoSuch")
