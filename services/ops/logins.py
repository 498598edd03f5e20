"""The passwords that services log in with, taken from the URLs that they are given."""

import asyncio
import time
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from mt5kit.secret import Secret
from mt5kit.state.postgres import Database, DatabaseUnavailable, RolePasswords

POLL_S: Final = 0.2
"""A server that is starting is asked so often; each asking is one packet."""

OWNER: Final = "mt5_owner"


class UrlRefused(Exception):
    """A database URL is not what it should be; the message names the setting, not the URL."""


class Login(msgspec.Struct, frozen=True):
    """A database URL and the role in it, as a setting gave them."""

    role: str
    dsn: Secret
    password: Secret


def login(setting: str, dsn: str, role: str) -> Login:
    """The URL that a setting gave, if it is one of this role.

    Raises:
        UrlRefused: It is of another role, or has no password, or one that is not ASCII.
    """
    try:
        parts = urlsplit(dsn)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        raise UrlRefused(f"{setting} is malformed") from None
    if parts.scheme not in {"postgresql", "postgres"}:
        raise UrlRefused(f"{setting} is not a postgresql:// URL")
    if user != role:
        raise UrlRefused(f"{setting} is of another user than {role}")
    if not password or not password.isascii():
        raise UrlRefused(f"{setting} needs a password of {role}, in ASCII")
    return Login(role, Secret(dsn), Secret(password))


async def reached(owner: Database, patience_s: float) -> None:
    """Wait until the server answers.

    Raises:
        DatabaseUnavailable: It has not within this time.
        DatabaseFault: It does, and lets the owner not in.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return await owner.ping()
        except DatabaseUnavailable:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(POLL_S)


async def renew(owner: Database, wanted: Login) -> bool:
    """Give a role the password of its URL; whether it had another one.

    Raises:
        UrlRefused: The URL opens nothing even so.
        DatabaseUnavailable: Postgres is away.
        DatabaseFault: Postgres refused.
    """
    passwords = RolePasswords(owner)
    if await passwords.admits(wanted.dsn.reveal()):
        return False
    await passwords.set(wanted.role, wanted.password)
    if not await passwords.admits(wanted.dsn.reveal()):
        raise UrlRefused(f"{wanted.role} is not let in even with the password that it has now")
    return True
