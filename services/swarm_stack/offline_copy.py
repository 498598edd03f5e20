"""The offline copy of secrets: one file, encrypted under a passphrase.

Docker gives no secret back, so whoever loses the swarm has lost its key ring, and with it every
stored password, unless there is such a copy. AES-256-GCM under a key from scrypt (RFC 7914).
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

# 2^16 x 8 x 128 bytes = 64 MiB and about 0.2 s a guess.
SCRYPT_N: Final = 2**16
SCRYPT_R: Final = 8
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32
SHORTEST_PASSPHRASE: Final = 12
FORMAT: Final = "mt5-swarm secrets, scrypt and AES-256-GCM, 1"


class CopyUnreadable(Exception):
    """The file is no offline copy, is damaged, or has another passphrase."""


class _Sealed(msgspec.Struct, frozen=True):
    format: str
    n: int
    r: int
    salt: bytes
    nonce: bytes
    sealed: bytes


def write_copy(path: Path, values: Mapping[str, bytes], passphrase: str) -> None:
    """Write a new file that only its owner reads.

    Args:
        path: Must not exist.
        values: By name.
        passphrase: At least 12 characters.

    Raises:
        ValueError: The passphrase is too short.
        FileExistsError: There is such a file.
    """
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise ValueError(f"the passphrase must have {SHORTEST_PASSPHRASE} characters at least")
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    text = {name: base64.b64encode(value).decode() for name, value in values.items()}
    key = _key(passphrase, salt, SCRYPT_N, SCRYPT_R)
    sealed = AESGCM(key).encrypt(nonce, msgspec.json.encode(text), FORMAT.encode())
    copy = _Sealed(FORMAT, SCRYPT_N, SCRYPT_R, salt, nonce, sealed)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(copy)) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_copy(path: Path, passphrase: str) -> dict[str, bytes]:
    """What `write_copy` was given.

    Raises:
        CopyUnreadable: Not such a file, or another passphrase.
        OSError: It cannot be read.
    """
    try:
        copy = msgspec.json.decode(path.read_bytes(), type=_Sealed)
    except msgspec.DecodeError:
        raise CopyUnreadable(f"{path} is no offline copy of secrets") from None
    # The cost is checked, or a made-up file could have us take all memory.
    if copy.format != FORMAT or (copy.n, copy.r) != (SCRYPT_N, SCRYPT_R):
        raise CopyUnreadable(f"{path} is an offline copy of another version")
    key = _key(passphrase, copy.salt, copy.n, copy.r)
    try:
        text = AESGCM(key).decrypt(copy.nonce, copy.sealed, FORMAT.encode())
    except (InvalidTag, ValueError):
        raise CopyUnreadable(f"{path}: another passphrase, or the file is damaged") from None
    values = msgspec.json.decode(text, type=dict[str, str])
    return {name: base64.b64decode(value) for name, value in values.items()}


def _key(passphrase: str, salt: bytes, n: int, r: int) -> bytes:
    return Scrypt(salt=salt, length=KEY_BYTES, n=n, r=r, p=1).derive(passphrase.encode())
