"""What it takes to log an account in."""

from dataclasses import dataclass

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.secret import Secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account and its password; the password shows in no repr.

    `seal` is a digest of the password's sealed form where it is a stored one, and empty where
    somebody has just typed it: it tells two connects apart, and nothing of the password.
    """

    identity: AccountIdentity
    password: Secret
    seal: bytes = b""
