"""Envelope encryption of account passwords, and keyed hashes of tokens.

Each seal has a data key of its own, which a key-encryption key of the ring wraps. Both layers are
AES-256-GCM, and both are bound to the account by associated data: a ciphertext moved to another
row, or kept under a changed login, does not open.
"""

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, Self
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mt5kit.errors import VaultFault
from mt5kit.secret import Secret

_KEY_BYTES = 32
"""AES-256."""

_NONCE_BYTES = 12
"""What GCM is specified for. Random ones are safe for 2^32 wraps under one key of the ring."""

_HASH_KEY_BYTES = 16
"""Shorter HMAC keys can be guessed."""

_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
"""Ids stand in log lines and a column; a key in base64 is longer, so it cannot pass for one."""


class KeyRingInvalid(VaultFault):
    """The key ring cannot be used as it stands; names the file and the key id, never a key."""


class KeyMissing(VaultFault):
    """The ring lacks the key that something was sealed under; names its id."""


class SealBroken(VaultFault):
    """What was to be opened is not what was sealed, or not for this account."""


class Sealed(msgspec.Struct, frozen=True):
    """A sealed secret, as its row holds it. Both byte strings are nonce, ciphertext and tag."""

    ciphertext: bytes
    wrapped_key: bytes
    key_id: str


class AccountBinding(msgspec.Struct, frozen=True):
    """What a sealed password belongs to."""

    account_uuid: UUID
    login: int
    server: str

    def associated_data(self, layer: str) -> bytes:
        """Canonical bytes of the binding: each part after its length, so that none can shift."""
        parts = (
            b"mt5-swarm account password 1",
            layer.encode(),
            self.account_uuid.bytes,
            str(self.login).encode(),
            self.server.encode(),
        )
        return b"".join(len(part).to_bytes(4) + part for part in parts)


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
            if len(key) != _KEY_BYTES:
                raise KeyRingInvalid(f"key {_shown(key_id)} has {len(key)} bytes, not {_KEY_BYTES}")
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
        return cls(key_id, {key_id: secrets.token_bytes(_KEY_BYTES)})

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


class Vault:
    """Seals and opens secrets with a key ring. Stateless otherwise; safe in any thread."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def seal(self, secret: Secret, binding: AccountBinding) -> Sealed:
        """Seal a secret for an account, under the active key and a new data key."""
        data_key = secrets.token_bytes(_KEY_BYTES)
        ciphertext = _encrypt(data_key, secret.reveal().encode(), binding.associated_data("data"))
        return self._wrapped(data_key, ciphertext, binding)

    def open(self, sealed: Sealed, binding: AccountBinding) -> Secret:
        """The secret that was sealed for this account.

        Raises:
            KeyMissing: It was sealed under a key that the ring lacks.
            SealBroken: It was altered, or sealed for another account.
        """
        data_key = self._unwrap(sealed, binding)
        return Secret(
            _decrypt(data_key, sealed.ciphertext, binding.associated_data("data")).decode()
        )

    def rewrap(self, sealed: Sealed, binding: AccountBinding) -> Sealed:
        """The same seal under the active key; the ciphertext stays as it is.

        Raises:
            KeyMissing: It was sealed under a key that the ring lacks.
            SealBroken: The wrapped key was altered, or is another account's.
        """
        return self._wrapped(self._unwrap(sealed, binding), sealed.ciphertext, binding)

    def _wrapped(self, data_key: bytes, ciphertext: bytes, binding: AccountBinding) -> Sealed:
        key_id = self._ring.active
        layer = binding.associated_data(f"key {key_id}")
        return Sealed(ciphertext, _encrypt(self._ring.key(key_id), data_key, layer), key_id)

    def _unwrap(self, sealed: Sealed, binding: AccountBinding) -> bytes:
        layer = binding.associated_data(f"key {sealed.key_id}")
        return _decrypt(self._ring.key(sealed.key_id), sealed.wrapped_key, layer)


def keyed_hash(key: bytes, value: str) -> str:
    """HMAC-SHA256 in hex: what is stored of an API key or a ticket.

    Raises:
        ValueError: The key has fewer than 16 bytes.
    """
    if len(key) < _HASH_KEY_BYTES:
        raise ValueError(f"a hash key needs at least {_HASH_KEY_BYTES} bytes, not {len(key)}")
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()


def _encrypt(key: bytes, plain: bytes, associated: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, associated)


def _decrypt(key: bytes, blob: bytes, associated: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], associated)
    except (InvalidTag, ValueError):
        raise SealBroken("a stored secret does not open for this account") from None


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


def _shown(key_id: str) -> str:
    """An id for a message, unless it may be a key that was put in an id's place."""
    return repr(key_id) if _KEY_ID.fullmatch(key_id) else "(not an id)"


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # JSON parsers keep the last of two equal names: which key was meant cannot be known.
    for name in (names := [name for name, _ in pairs]):
        if names.count(name) > 1:
            raise KeyRingInvalid(f"{_shown(name)} stands twice")
    return dict(pairs)
