"""Service keys: several, named, stored as hashes."""

import hashlib
from collections.abc import Mapping

from mt5kit.errors import Unauthenticated


class ApiKeys:
    """Knows who a presented key belongs to.

    Keys are long random strings, so a plain SHA-256 hides them; and because the look-up is by
    the hash, its timing tells nothing of a key.

    Args:
        header: Where the keys are presented, for the message.
        hashes: SHA-256 hex digests by the key's name.
    """

    def __init__(self, header: str, hashes: Mapping[str, str]) -> None:
        self._header = header
        self._names = {digest.lower(): name for name, digest in hashes.items()}

    def name_of(self, presented: bytes | None) -> str:
        """The name of the key.

        Raises:
            Unauthenticated: There is none, or it is not one of ours.
        """
        if presented is None:
            raise Unauthenticated(f"the {self._header} header is missing")
        name = self._names.get(hashlib.sha256(presented).hexdigest())
        if name is None:
            raise Unauthenticated(f"the {self._header} is not valid")
        return name
