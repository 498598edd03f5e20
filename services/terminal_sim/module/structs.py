"""Tuple-like results with the manners of the real module's PyStructSequences."""

from collections.abc import Callable, Iterable
from functools import cache
from operator import itemgetter
from typing import Any, ClassVar, NoReturn, Self, SupportsIndex, cast

from terminal_sim.catalogue import catalogue


class StructSequence(tuple[Any, ...]):
    """A tuple whose items are also attributes; the base of every result struct.

    Raises:
        TypeError: When built from a sequence of another length, or pickled.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, values: Iterable[Any]) -> Self:
        """Take the fields' values in order."""
        self = super().__new__(cls, values)
        if len(self) != len(cls.__match_args__):
            message = f"{cls.__name__}() takes a {len(cls.__match_args__)}-sequence"
            raise TypeError(f"{message} ({len(self)}-sequence given)")
        return self

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a field may hold anything
        """Reached only for names that are no field."""
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def _asdict(self) -> dict[str, Any]:
        """Return field names to values, without descending into nested structs."""
        return dict(zip(self.__match_args__, self, strict=True))

    def __repr__(self) -> str:
        pairs = zip(self.__match_args__, self, strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"cannot pickle '{type(self).__name__}' object")


@cache
def struct(name: str) -> type[StructSequence]:
    """Return the class of a result struct, for example ``AccountInfo``.

    Raises:
        KeyError: The real module has no such struct.
    """
    fields = catalogue().structs[name]
    body: dict[str, Any] = {field: property(itemgetter(i)) for i, field in enumerate(fields)}
    body |= {
        "__slots__": (),
        "__module__": "builtins",
        "__match_args__": fields,
        "__doc__": f"{name} of the MetaTrader5 module.",
        "n_fields": len(fields),
        "n_sequence_fields": len(fields),
        "n_unnamed_fields": 0,
    }
    return cast("type[StructSequence]", type(name, (StructSequence,), body))


def maker(name: str) -> Callable[[Iterable[Any]], StructSequence]:
    """Return a constructor that trusts its caller about the length; for long lists of rows."""
    cls = struct(name)

    def make(values: Iterable[Any]) -> StructSequence:
        return tuple.__new__(cls, values)

    return make
