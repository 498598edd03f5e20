"""What the console needs to know; every NAME may be NAME_FILE."""

from uuid import UUID

from pydantic import Field, SecretStr

from mt5kit.settings import ServiceSettings

# Half of what SHA-256 gives: a shorter one would be the weak part of a session's signature.
SHORTEST_SESSION_SECRET = 16


class ConsoleSettings(ServiceSettings):
    """Settings of the console.

    Args:
        api_url: Where the public API is reached from here, e.g. `http://127.0.0.1:8080`.
        api_key: A service key of that API.
        user_id: The user whose accounts are shown first.
        operator_password: Signs in by the form; no form when None.
        one_time_token: Signs in by `/console/login?token=…`, once; no link when None.
        session_secret: Signs the session cookies; the same on every replica.
    """

    api_url: str
    api_key: SecretStr
    user_id: UUID
    operator_password: SecretStr | None = Field(default=None, min_length=1)
    one_time_token: SecretStr | None = Field(default=None, min_length=16)
    session_secret: SecretStr = Field(min_length=SHORTEST_SESSION_SECRET)
