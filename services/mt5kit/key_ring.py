"""Keys that wrap keys: a ring of them, and the file it comes from."""

import base64
import binascii
import datetime as dt
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, Self

import structlog

from mt5kit.errors import VaultFault

log = structlog.get_logger(__name__)

KEY_BYTES = 32
"""AES-256."""

RING_CHECK_S = 1.0
"""How long a process may seal under the key that was active before; a rotation waits for it."""

_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
"""Ids stand in log lines and a column; a key in base64 is longer, so it cannot pass for one."""


class KeyRingInvalid(VaultFault):
    """The key ring cannot be used as it stands; names the file and the key id, never a key."""


class KeyMissing(VaultFault):
    """The ring lacks the key that something was sealed under; names its id."""


class KeyRing:
    """Key-encryption keys by id; the active one wraps, all of them unwrap.

    Args:
        active: Id of the key that new seals are made under.
        keys: 32 bytes each.

    Raises:
        KeyRingInvalid: A key has another length or stands twice, an id has strange characters,
            or the active id is not among them.
    """

    __slots__ = ("__keys", "active")

    def __init__(self, active: str, keys: Mapping[str, bytes]) -> None:
        for key_id, key in keys.items():
            if not _KEY_ID.fullmatch(key_id):
                raise KeyRingInvalid("a key id is not 1 to 32 of A-Z a-z 0-9 . _ -")
            if len(key) != KEY_BYTES:
                raise KeyRingInvalid(f"key {_shown(key_id)} has {len(key)} bytes, not {KEY_BYTES}")
        if len(set(keys.values())) != len(keys):
            raise KeyRingInvalid("two key ids stand for the same key")
        if active not in keys:
            raise KeyRingInvalid(f"the active key {_shown(active)} is not among the keys")
        self.active = active
        self.__keys = dict(keys)

    @classmethod
    def generate(cls, key_id: str | None = None) -> Self:
        """A ring with one new random key; its id is today's date (UTC) if none is given."""
        key_id = key_id or f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
        return cls(key_id, {key_id: secrets.token_bytes(KEY_BYTES)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """The ring in a secret file: `{"active": "<id>", "keys": {"<id>": "<base64>"}}`.

        Raises:
            KeyRingInvalid: The file is missing, unreadable, or not such a ring.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            raise KeyRingInvalid(f"key ring {path}: {error.strerror}") from None
        try:
            return cls(*_parse_ring(text))
        except KeyRingInvalid as error:
            raise KeyRingInvalid(f"key ring {path}: {error.message}") from None

    def with_key(self, key_id: str, *, active: bool) -> Self:
        """This ring and a new random key in it.

        Raises:
            KeyRingInvalid: The id is taken, or has strange characters.
        """
        if key_id in self.__keys:
            raise KeyRingInvalid(f"the key ring has a key {_shown(key_id)} already")
        keys = {**self.__keys, key_id: secrets.token_bytes(KEY_BYTES)}
        return type(self)(key_id if active else self.active, keys)

    def activating(self, key_id: str) -> Self:
        """This ring with another of its keys active.

        Raises:
            KeyRingInvalid: It is not among the keys.
        """
        return type(self)(key_id, self.__keys)

    def without_key(self, key_id: str) -> Self:
        """This ring without one of its keys.

        Raises:
            KeyMissing: The ring has none of that id.
            KeyRingInvalid: It is the active one.
        """
        self.key(key_id)
        keys = {one: key for one, key in self.__keys.items() if one != key_id}
        return type(self)(self.active, keys)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, sorted."""
        return tuple(sorted(self.__keys))

    def dump(self) -> bytes:
        """What `load` reads. Holds the keys: write it to a file that only its owner reads."""
        keys = {key_id: base64.b64encode(key).decode() for key_id, key in self.__keys.items()}
        return json.dumps({"active": self.active, "keys": keys}, indent=2).encode() + b"\n"

    def key(self, key_id: str) -> bytes:
        """The key of that id.

        Raises:
            KeyMissing: The ring has none.
        """
        try:
            return self.__keys[key_id]
        except KeyError:
            raise KeyMissing(f"the key ring has no key {key_id!r}") from None

    def __repr__(self) -> str:
        return f"KeyRing(active={self.active!r}, ids={sorted(self.__keys)})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key ring is not pickled")


class KeyRingFile:
    """The ring in a file that may gain and lose keys while we run.

    A changed file is noticed by its change time, inode and size. One that cannot be used costs an
    error in the log, once, and the ring of before stays. Asking is cheap enough for an event loop
    (a `stat` of a local file is 2 µs); the file is read, in some 20 µs, only when it has changed.

    Args:
        path: The file; read here for the first time, blocking.
        clock: Seconds, monotonic.

    Raises:
        KeyRingInvalid: The file cannot be used.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._seen = _signature(path)
        self._ring = KeyRing.load(path)
        self._checked_s = clock()

    def current(self) -> KeyRing:
        """The ring as the file had it a second ago at most."""
        if self._clock() - self._checked_s >= RING_CHECK_S:
            self.refresh()
        return self._ring

    def refresh(self) -> KeyRing:
        """The ring as the file has it now."""
        self._checked_s = self._clock()
        # Taken before the reading: what is written during it is seen as a change the next time.
        seen = _signature(self._path)
        if seen == self._seen:
            return self._ring
        self._seen = seen
        try:
            self._ring = KeyRing.load(self._path)
        except KeyRingInvalid as broken:
            log.error("key_ring_not_read", error=broken.message, kept=repr(self._ring))  # noqa: TRY400 - a traceback of the parser would tell too much
        else:
            log.info("key_ring_read", ring=repr(self._ring))
        return self._ring


def _parse_ring(text: bytes) -> tuple[str, dict[str, bytes]]:
    complaint = None
    try:
        ring = json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        complaint = f"line {error.lineno} column {error.colno} is not JSON"
    except (UnicodeDecodeError, RecursionError):
        complaint = "it is not JSON"
    if complaint is not None:
        # Out here, because the decoder's exceptions carry the whole text.
        raise KeyRingInvalid(complaint)
    if not isinstance(ring, dict) or set(ring) != {"active", "keys"}:
        raise KeyRingInvalid('it must be an object with "active" and "keys"')
    if not isinstance(ring["active"], str) or not isinstance(ring["keys"], dict):
        raise KeyRingInvalid('"active" must be a key id and "keys" an object of keys by id')
    return ring["active"], {key_id: _parse_key(key_id, key) for key_id, key in ring["keys"].items()}


def _parse_key(key_id: str, text: object) -> bytes:
    if isinstance(text, str):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            text = None
    raise KeyRingInvalid(f"key {_shown(key_id)} is not base64")


def _signature(path: Path) -> tuple[int, ...] | None:
    """What changes with a file's content; None while there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    # The change time cannot be set, as the modification time can.
    return (status.st_ctime_ns, status.st_mtime_ns, status.st_ino, status.st_size)


def _shown(key_id: str) -> str:
    """An id for a message, unless it may be a key that was put in an id's place."""
    return repr(key_id) if _KEY_ID.fullmatch(key_id) else "(not an id)"


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # JSON parsers keep the last of two equal names: which key was meant cannot be known.
    for name in (names := [name for name, _ in pairs]):
        if names.count(name) > 1:
            raise KeyRingInvalid(f"{_shown(name)} stands twice")
    return dict(pairs)
