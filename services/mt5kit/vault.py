"""Envelope encryption of account passwords, and keyed hashes of tokens.

Each seal has a data key of its own, which a key-encryption key of the ring wraps. Both layers are
AES-256-GCM, and both are bound to the account by associated data: a ciphertext moved to another
row, or kept under a changed login, does not open.
"""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Self
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mt5kit.errors import VaultFault
from mt5kit.key_ring import KEY_BYTES, KeyMissing, KeyRing, KeyRingFile, KeyRingInvalid
from mt5kit.secret import Secret

__all__ = [
    "AccountBinding",
    "KeyMissing",
    "KeyRing",
    "KeyRingFile",
    "KeyRingInvalid",
    "SealBroken",
    "Sealed",
    "Vault",
    "VaultFault",
    "keyed_hash",
]

_NONCE_BYTES = 12
"""What GCM is specified for. Random ones are safe for 2^32 wraps under one key of the ring."""

_HASH_KEY_BYTES = 16
"""Shorter HMAC keys can be guessed."""


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


class Vault:
    """Seals and opens secrets with a key ring, or with the one a file holds; safe in any thread."""

    def __init__(self, ring: KeyRing | KeyRingFile) -> None:
        self._source = ring

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """A vault that follows the key ring in a file. Blocks for the first reading.

        Raises:
            KeyRingInvalid: The file cannot be used.
        """
        return cls(KeyRingFile(path))

    def seal(self, secret: Secret, binding: AccountBinding) -> Sealed:
        """Seal a secret for an account, under the active key and a new data key."""
        data_key = secrets.token_bytes(KEY_BYTES)
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
        ring = self._ring
        layer = binding.associated_data(f"key {ring.active}")
        return Sealed(ciphertext, _encrypt(ring.key(ring.active), data_key, layer), ring.active)

    def _unwrap(self, sealed: Sealed, binding: AccountBinding) -> bytes:
        layer = binding.associated_data(f"key {sealed.key_id}")
        return _decrypt(self._key(sealed.key_id), sealed.wrapped_key, layer)

    @property
    def _ring(self) -> KeyRing:
        source = self._source
        return source.current() if isinstance(source, KeyRingFile) else source

    def _key(self, key_id: str) -> bytes:
        try:
            return self._ring.key(key_id)
        except KeyMissing:
            if not isinstance(self._source, KeyRingFile):
                raise
            # Another process may have sealed under a key that is a moment old.
            return self._source.refresh().key(key_id)


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
