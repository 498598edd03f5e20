"""What it takes to log an account in."""

from dataclasses import dataclass

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.secret import Secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account and its password; the password shows in no repr."""

    identity: AccountIdentity
    password: Secret
