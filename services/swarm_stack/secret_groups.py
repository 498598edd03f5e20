"""The stack's secrets: which there are, and how each is made.

What belongs together is made together: a password and the hash of it, or the URL that holds it.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mt5kit.key_ring import KeyRing
from mt5kit.secret import Secret
from mt5kit.state.redis.users import BACKUP, EXPORTER, POOLS, acl_file

DATABASE: Final = "postgres:5432/mt5"
REDIS: Final = "redis:6379/0"
EXPORTED_REDIS: Final = f"redis://{EXPORTER}@redis:6379"

Values = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Group:
    """Secrets that are made together.

    Args:
        name: Of the group.
        members: Names of the secrets that services get.
        make: Makes the members, and what only the operator gets (`offline`).
        offline: What the operator gets besides; in the offline copy and nowhere else.
    """

    name: str
    members: tuple[str, ...]
    make: Callable[[], Values]
    offline: tuple[str, ...] = ()


def token() -> str:
    """256 random bits, safe in URLs, files and quotes."""
    return secrets.token_urlsafe(32)


def _single(name: str) -> Group:
    return Group(name, (name,), lambda: {name: token().encode()})


def _database_role(name: str, role: str) -> Group:
    return Group(name, (name,), lambda: {name: _database_url(role, token())})


def _database_url(role: str, password: str) -> bytes:
    return f"postgresql://{role}:{password}@{DATABASE}".encode()


def _owner() -> Values:
    password = token()
    return {
        "mt5_owner_password": password.encode(),
        "owner_database_url": _database_url("mt5_owner", password),
    }


def _redis() -> Values:
    passwords = {user: token() for user in (POOLS, EXPORTER, BACKUP)}
    acl = acl_file({user: Secret(password) for user, password in passwords.items()})
    return {
        "redis_acl": acl.encode(),
        "redis_url": f"redis://{POOLS}:{passwords[POOLS]}@{REDIS}".encode(),
        # What the exporter wants: passwords by the address it asks.
        "redis_exporter_passwords": json.dumps({EXPORTED_REDIS: passwords[EXPORTER]}).encode(),
        "redis_backup_password": passwords[BACKUP].encode(),
    }


def _api_key() -> Values:
    key = token()
    return {
        "api_keys": json.dumps({"operator": _digest(key)}).encode(),
        "console_api_key": key.encode(),
        "api_key": key.encode(),
    }


def _admin_api_key() -> Values:
    key = token()
    return {
        "admin_api_keys": json.dumps({"operator": _digest(key)}).encode(),
        "admin_api_key": key.encode(),
    }


def _s3() -> Values:
    """Nothing is stored with these: they have to be given, where there is a second place."""
    return {"s3_access_key_id": token().encode(), "s3_secret_access_key": token().encode()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


GROUPS: Final = (
    Group("key_ring", ("key_ring",), lambda: {"key_ring": KeyRing.generate().dump()}),
    Group("api_keys", ("api_keys", "console_api_key"), _api_key, offline=("api_key",)),
    Group("admin_api_keys", ("admin_api_keys",), _admin_api_key, offline=("admin_api_key",)),
    _single("internal_key"),
    _single("supervisor_key"),
    # Nobody can sign with a secret that nobody knows: tokens are refused until it is given.
    _single("jwt_secret"),
    _single("operator_password"),
    _single("console_session_secret"),
    _single("vnc_password"),
    _single("grafana_password"),
    _single("postgres_password"),
    Group("owner_database_url", ("owner_database_url", "mt5_owner_password"), _owner),
    _database_role("database_url", "mt5_app"),
    _database_role("worker_database_url", "mt5_worker"),
    _database_role("keys_database_url", "mt5_keys"),
    _single("mt5_backup_password"),
    _single("mt5_exporter_password"),
    Group("s3", ("s3_access_key_id", "s3_secret_access_key"), _s3),
    Group(
        "redis",
        ("redis_acl", "redis_url", "redis_exporter_passwords", "redis_backup_password"),
        _redis,
    ),
)

ALL: Final = tuple(member for group in GROUPS for member in group.members)


def group_of(name: str) -> Group:
    """The group by its own name or by one of its secrets' names.

    Raises:
        KeyError: There is none.
    """
    for group in GROUPS:
        if name == group.name or name in group.members:
            return group
    raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Made:
    """What a run has made: for the swarm, and for the offline copy."""

    swarm: Mapping[str, bytes]
    offline: Mapping[str, bytes]


def made(existing: frozenset[str], given: Mapping[str, bytes], renew: frozenset[str]) -> Made:
    """Whatever is missing, given or to be renewed.

    Args:
        existing: Names of the secrets that the swarm has.
        given: Values from the operator, by name; they win.
        renew: Names of groups to be made anew.

    Raises:
        KeyError: A name that there is not.
        ValueError: A group is given in part: its members would not fit each other. An empty value
            is given. Or a key ring that is in use is to be made anew.
    """
    for name, value in given.items():
        if not value:
            raise ValueError(f"the secret {name} is empty")
    wanted = {group_of(name).name for name in renew}
    if "key_ring" in wanted and "key_ring" in existing:
        raise ValueError(
            "a new key ring would not open the passwords that are stored: add a key to the one"
            " that there is (docs/operations.md, rotating keys)"
        )
    swarm: Values = {}
    offline: Values = {}
    for group in GROUPS:
        own = {name: given[name] for name in group.members if name in given}
        if own and len(own) < len(group.members):
            lacking = ", ".join(sorted(set(group.members) - set(own)))
            raise ValueError(f"{', '.join(sorted(own))} must come together with {lacking}")
        if own:
            swarm |= own
            offline |= own
        elif group.name in wanted or not existing.issuperset(group.members):
            values = group.make()
            swarm |= {name: values[name] for name in group.members}
            offline |= values
    unknown = given.keys() - set(ALL)
    if unknown:
        raise KeyError(", ".join(sorted(unknown)))
    return Made(swarm, offline)
