"""What the running PostgreSQL says of itself."""

import json
from dataclasses import dataclass
from typing import Final

from backup.barman import SLOT
from backup.commands import Commands

PLACE: Final = "host=postgres user=mt5_backup dbname=mt5 require_auth=scram-sha-256"


@dataclass(frozen=True, slots=True)
class ServerState:
    """How the server stands to the backup.

    Args:
        timeline: That it writes; another after each restore.
        receiving: Whether its log is being received, and without pause.
        slot: `reserved` while it keeps what was not received; None without a slot, `lost` if it
            kept as much as it may.
        kept_from: Segment of the log from which on it keeps all; None without a slot, or before
            that is used.
    """

    timeline: int
    receiving: bool
    slot: str | None
    kept_from: str | None


class Server:
    """PostgreSQL, asked as `mt5_backup`."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def state(self) -> ServerState:
        """How it stands to the backup.

        Raises:
            CommandFailed: It does not answer.
        """
        # Only the protocol of replication tells the timeline to one who is no superuser.
        identity = self._ask("IDENTIFY_SYSTEM", f"{PLACE} replication=true").split("|")
        found = json.loads(self._ask(_STATE))
        return ServerState(
            int(identity[1]), bool(found["receiving"]), found["slot"], found["kept_from"]
        )

    def keep_from_here(self) -> None:
        """Have it keep what is not received, from now on.

        Raises:
            CommandFailed: It does not answer, or has the old slot in use.
        """
        self._ask(_DROP_SLOT)
        self._ask(f"SELECT pg_create_physical_replication_slot('{SLOT}', true)")

    def key_ids(self) -> list[str]:
        """Which keys of the vault rows are under, sorted.

        Raises:
            CommandFailed: It does not answer, or its schema is too old.
        """
        ids: list[str] = json.loads(self._ask(KEY_IDS))
        return ids

    def _ask(self, statement: str, place: str = PLACE) -> str:
        command = ("psql", "--no-psqlrc", "-qAt", "--no-password", "--set=ON_ERROR_STOP=1")
        return self._commands(*command, f"--dbname={place}", f"--command={statement}").strip()


KEY_IDS: Final = (
    "SELECT coalesce(json_agg(DISTINCT encryption_key_id ORDER BY encryption_key_id), '[]')"
    " FROM accounts"
)

_DROP_SLOT: Final = f"""
    SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
    WHERE slot_name = '{SLOT}'
"""  # noqa: S608 - a constant

_STATE: Final = f"""
    SELECT json_build_object(
        'receiving', EXISTS (
            SELECT FROM pg_stat_replication
            WHERE application_name = 'barman_receive_wal' AND state = 'streaming'),
        'slot', (SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{SLOT}'),
        'kept_from', (
            SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots
            WHERE slot_name = '{SLOT}'))
"""  # noqa: S608 - a constant
