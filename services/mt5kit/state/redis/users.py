"""Who may do what in Redis: the users, and the file that a server reads them from."""

import hashlib
from collections.abc import Mapping
from typing import Final

from mt5kit.secret import Secret

POOLS: Final = "mt5"
BACKUP: Final = "mt5_backup"
EXPORTER: Final = "mt5_exporter"

RULES: Final[Mapping[str, str]] = {
    # Our keys, and nothing of the server's. Channels are open, since a pattern may be subscribed to
    # only as it stands here. INFO tells scripts Redis' run id.
    POOLS: (
        "resetkeys ~mt5:* allchannels -@all +@read +@write +@connection +eval +evalsha"
        " +publish +subscribe +unsubscribe +psubscribe +punsubscribe +time -@dangerous +info"
        " +client|setinfo"
    ),
    # A replica that takes one copy; no command reads a key.
    BACKUP: "resetkeys resetchannels -@all +ping +psync +sync +replconf",
    EXPORTER: (
        "resetkeys resetchannels -@all +ping +info +config|get +latency|latest"
        " +latency|histogram +slowlog|len +slowlog|get +client|setname"
    ),
}
"""What comes after name and password, in the words of Redis 6.2 to 8."""

HEALTH: Final = "user mt5_health on nopass resetkeys resetchannels -@all +ping"
"""Health checks have no password to put into a command: this one says PING, and nothing else."""


def users(passwords: Mapping[str, Secret]) -> list[str]:
    """The lines of an ACL file: users with the SHA-256 of their passwords, and one without.

    Args:
        passwords: By user. Random ones of 32 bytes: a hash without salt hides no weak one.

    Raises:
        KeyError: There are no rules for one of them.
    """
    lines = [HEALTH]
    for name, password in sorted(passwords.items()):
        digest = hashlib.sha256(password.reveal().encode()).hexdigest()
        lines.append(f"user {name} on #{digest} {RULES[name]}")
    return lines


def acl_file(passwords: Mapping[str, Secret]) -> str:
    """The whole file: `users`, and nobody without a name.

    Raises:
        KeyError: As `users`.
    """
    return "\n".join(["user default off", *users(passwords)]) + "\n"
