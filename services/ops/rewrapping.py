"""Every row's key wrapped anew under the active key of the ring, while services run."""

import asyncio
from typing import Final

import msgspec

from mt5kit.key_ring import RING_CHECK_S
from mt5kit.state.postgres import KeyStore, WrappedRow
from mt5kit.vault import KeyMissing, SealBroken, Sealed, Vault

BATCH: Final = 100
# For so long a service may seal under the key that was active before; a save in a transaction
# that began in time adds a moment.
SETTLE_S: Final = RING_CHECK_S + 1.0
# A pass for what stands, one for what services sealed meanwhile, and more where that raced.
MOST_PASSES: Final = 5


class Rewrapped(msgspec.Struct, frozen=True):
    """What became of the rows. Ids are `accounts.id`.

    Args:
        active: The key they are under now.
        rewrapped: How many were moved to it.
        current: How many were under it without that.
        missing: Rows under a key that the ring lacks, by its id. Untouched.
        broken: Rows whose wrapped key does not open. Untouched.
        late: Rows that were still sealed under another key during the last pass: some service
            does not follow the ring.
    """

    active: str
    rewrapped: int
    current: int
    missing: dict[str, tuple[int, ...]]
    broken: tuple[int, ...]
    late: int

    @property
    def complete(self) -> bool:
        """Whether all rows are under the active key."""
        return not (self.missing or self.broken or self.late)


class _Pass(msgspec.Struct):
    """One walk over the rows that are under other keys."""

    written: int = 0
    raced: int = 0
    missing: dict[str, list[int]] = msgspec.field(default_factory=dict)
    broken: list[int] = msgspec.field(default_factory=list)

    @property
    def moved(self) -> int:
        """Rows that were found and could be opened."""
        return self.written + self.raced


class Rewrapper:
    """Moves all rows to one key.

    Args:
        store: The rows, as `mt5_keys`.
        vault: With the ring as it is now in its file.
        active: The key that the vault wraps under.
        settle_s: Seconds until every service has seen the ring's file as it is now.
    """

    def __init__(
        self, store: KeyStore, vault: Vault, active: str, *, settle_s: float = SETTLE_S
    ) -> None:
        self._store = store
        self._vault = vault
        self._active = active
        self._settle_s = settle_s

    async def run(self) -> Rewrapped:
        """Walk over the rows until a walk finds none to move; at least twice.

        Raises:
            DatabaseUnavailable: Postgres is away. What was moved is moved; run it again.
        """
        rewrapped = (await self._walk()).written
        for _ in range(MOST_PASSES - 1):
            await asyncio.sleep(self._settle_s)
            last = await self._walk()
            rewrapped += last.written
            if not last.moved:
                break
        under = (await self._store.counts()).get(self._active, 0)
        return Rewrapped(
            active=self._active,
            rewrapped=rewrapped,
            current=max(0, under - rewrapped),
            missing={key_id: tuple(ids) for key_id, ids in sorted(last.missing.items())},
            broken=tuple(last.broken),
            late=last.moved,
        )

    async def _walk(self) -> _Pass:
        found, after = _Pass(), 0
        while rows := await self._store.not_under(self._active, after=after, most=BATCH):
            fresh = self._opened(rows, found)
            written = await self._store.replace(fresh) if fresh else 0
            found.written += written
            found.raced += len(fresh) - written
            after = rows[-1].id
        return found

    def _opened(
        self, rows: tuple[WrappedRow, ...], found: _Pass
    ) -> list[tuple[WrappedRow, Sealed]]:
        fresh = []
        for row in rows:
            try:
                fresh.append((row, self._vault.rewrap(row.sealed, row.binding)))
            except KeyMissing:
                found.missing.setdefault(row.sealed.key_id, []).append(row.id)
            except SealBroken:
                found.broken.append(row.id)
        return fresh
