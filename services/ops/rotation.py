"""A rotation of keys: a new one in the ring, every row under it, an old one out of the ring."""

import asyncio
import datetime as dt
from typing import Final

import msgspec

from mt5kit.state.postgres import AuditEntry, AuditStore, KeyStore
from mt5kit.state.postgres.database import COMMAND_TIMEOUT_S
from mt5kit.vault import KeyRing, Vault
from ops.rewrapping import SETTLE_S, Rewrapped, Rewrapper
from ops.ring_file import RingFile

# The statement that writes a seal, and the commit after it, each end within their time.
DRAIN_S: Final = 2 * COMMAND_TIMEOUT_S


class RotationRefused(Exception):
    """It would lose something, or cannot be; nothing was changed."""


class Request(msgspec.Struct, frozen=True):
    """What is to be done.

    Args:
        new_key: Id of the key that becomes active: made unless the ring has it. None: today's
            date.
        keep_active: Make no key and activate none.
        remove_key: Id of a key that leaves the ring once no row is under it.
        actor: Who does it, for the audit log.
    """

    new_key: str | None = None
    keep_active: bool = False
    remove_key: str | None = None
    actor: str = "operator"


class Rotated(msgspec.Struct, frozen=True):
    """What was done: the rows, and the ids of the keys that came and went.

    `kept_because` says why a key that was to go is still there.
    """

    rows: Rewrapped
    added: str | None
    removed: str | None = None
    kept_because: str | None = None

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is done."""
        return self.rows.complete and self.kept_because is None


class Rotation:
    """Changes a ring's file and the rows under its keys, in an order that loses nothing.

    Args:
        file: The ring, held.
        store: The rows, as `mt5_keys`.
        audit: Where it is told.
        settle_s: Seconds until every service has seen a change of the file.
        drain_s: Seconds until whatever was sealed before that has been committed, or never is.
    """

    def __init__(
        self,
        file: RingFile,
        store: KeyStore,
        audit: AuditStore,
        *,
        settle_s: float = SETTLE_S,
        drain_s: float = DRAIN_S,
    ) -> None:
        self._file = file
        self._store = store
        self._audit = audit
        self._settle_s = settle_s
        self._drain_s = drain_s

    async def run(self, request: Request) -> Rotated:
        """Do it all; the ring is not touched before the database has answered.

        Raises:
            RotationRefused: A key id is wrong.
            KeyRingInvalid: The ring cannot be used, or a key id has strange characters.
            RingFileFixed: The file cannot be replaced.
            DatabaseUnavailable: Postgres is away. Run it again with the ring as it is.
        """
        under = await self._store.counts()
        before = await asyncio.to_thread(self._file.read)
        ring = self._renewed(before, request, under)
        if request.remove_key is not None:
            _check_removal(ring, request.remove_key)
        if ring is not before:
            await asyncio.to_thread(self._file.replace, ring)
        rewrapper = Rewrapper(self._store, Vault(ring), ring.active, settle_s=self._settle_s)
        rows = await rewrapper.run()
        done = Rotated(rows, ring.active if ring.active not in before.ids else None)
        if request.remove_key is not None:
            kept_because = await self._remove(ring, request.remove_key)
            removed = request.remove_key if kept_because is None else None
            done = msgspec.structs.replace(done, removed=removed, kept_because=kept_because)
        await self._audit.append(_audit_entry(request.actor, done))
        return done

    @staticmethod
    def _renewed(ring: KeyRing, request: Request, under: dict[str, int]) -> KeyRing:
        if request.keep_active:
            return ring
        key_id = request.new_key or free_id({*ring.ids, *under})
        if key_id in ring.ids:
            return ring if key_id == ring.active else ring.activating(key_id)
        if key_id in under:
            # Its rows would be taken for broken ones instead of ones whose key is missing.
            raise RotationRefused(
                f"{under[key_id]} rows are under another key of the id {key_id!r}, which the ring"
                " lacks; choose another id"
            )
        return ring.with_key(key_id, active=True)

    async def _remove(self, ring: KeyRing, key_id: str) -> str | None:
        """Why the key had to stay, if it had to."""
        await asyncio.sleep(self._drain_s)
        if count := (await self._store.counts()).get(key_id, 0):
            return f"{count} rows are under it"
        await asyncio.to_thread(self._file.replace, ring.without_key(key_id))
        # A service that does not follow the ring may have sealed under it until now.
        await asyncio.sleep(self._settle_s)
        if count := (await self._store.counts()).get(key_id, 0):
            await asyncio.to_thread(self._file.replace, ring)
            return f"a service that does not follow the ring sealed {count} rows under it"
        return None


def _check_removal(ring: KeyRing, key_id: str) -> None:
    if key_id not in ring.ids:
        raise RotationRefused(f"the ring has no key {key_id!r}")
    if key_id == ring.active:
        raise RotationRefused(f"key {key_id!r} is the active one")


def free_id(taken: set[str]) -> str:
    """Today's date (UTC) as a key id, with a number if it is taken."""
    today = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
    number = 1
    key_id = today
    while key_id in taken:
        number += 1
        key_id = f"{today}.{number}"
    return key_id


def _audit_entry(actor: str, done: Rotated) -> AuditEntry:
    rows = done.rows
    detail = {
        "active": rows.active,
        "added": done.added,
        "removed": done.removed,
        "rewrapped": rows.rewrapped,
        "current": rows.current,
        "missing": {key_id: len(ids) for key_id, ids in rows.missing.items()},
        "broken": len(rows.broken),
        "late": rows.late,
    }
    return AuditEntry(actor, "keys.rotate", "key-ring", detail)
