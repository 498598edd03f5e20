"""Signed tokens on the wire: three parts, each in the one spelling it has."""

import base64
import json
import re
from typing import Final, NoReturn

from mt5kit.errors import Unauthenticated

LARGEST_TOKEN: Final = 4096
"""Supabase's have 700 to 1,500 characters; an `auth` message of 4 KiB holds no more anyway."""

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)

Document = dict[str, object]


def header_of(token: str) -> Document:
    """What a token says of itself; nothing of it is proven.

    Raises:
        Unauthenticated: It is too long or is not spelt as a signed token is.
    """
    if len(token) > LARGEST_TOKEN:
        raise Unauthenticated(f"the token is longer than {LARGEST_TOKEN} characters")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise malformed()
    try:
        header, *_ = [_decode(part) for part in parts.groups()]
        return document(header)
    except ValueError:
        refusal = malformed()
    # Without a context: what the exceptions of decoders hold is the token.
    raise refusal


def document(text: bytes) -> Document:
    """A JSON object in which no name stands twice.

    Raises:
        ValueError: It is none.
    """
    try:
        found = json.loads(text, object_pairs_hook=_unambiguous, parse_constant=_refuse)
    except RecursionError as deep:
        raise ValueError("too deep") from deep
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004 - as for any other text that is none
    return found


def malformed() -> Unauthenticated:
    """The refusal of what is not a token."""
    return Unauthenticated("this is not a signed token (JWT)")


def _decode(part: str) -> bytes:
    """The bytes of a part; decoders let pass what would make two spellings of one token."""
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode():
        raise ValueError("spelt otherwise")
    return decoded


def _unambiguous(pairs: list[tuple[str, object]]) -> Document:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _refuse(_constant: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")
