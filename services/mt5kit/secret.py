"""A string that does not show itself."""

import hmac
from typing import NoReturn, final

_SHOWN = "Secret(…)"


@final
class Secret:
    """Holds a password or token so that no log line, repr or pickle carries it by accident.

    Comparing takes the same time wherever two values of one length differ. It has no hash: a
    dictionary would compare by it, and keep it.

    Raises:
        ValueError: The text holds half a surrogate pair and has no bytes.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        if any("\ud800" <= character <= "\udfff" for character in value):
            # Encoding would say so too, in an exception that carries the whole text.
            raise ValueError("a secret must be valid Unicode")
        self.__value = value

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self.__value

    def __repr__(self) -> str:
        return _SHOWN

    def __str__(self) -> str:
        return _SHOWN

    def __format__(self, format_spec: str) -> str:
        return _SHOWN

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value.encode(), other.__value.encode())

    __hash__ = None  # type: ignore[assignment]  # unhashable on purpose; see the class

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "Secret":
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled")
