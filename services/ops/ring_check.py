"""Whether a ring that services are about to get opens everything that is stored."""

from collections import Counter

from mt5kit.errors import VaultFault
from mt5kit.state.postgres import KeyStore
from mt5kit.vault import KeyRing, Vault
from ops.rewrapping import BATCH


class RingLacksKeys(Exception):
    """Stored passwords are under keys that the ring lacks; says which, and how many."""


async def require_keys(store: KeyStore, ring: KeyRing) -> None:
    """Nothing, if the ring has every key that a stored password is under.

    A key of the same id that opens nothing is another key. Single rows that do not open were
    altered, and are no fault of the ring.

    Raises:
        RingLacksKeys: It lacks some.
        DatabaseUnavailable: Postgres is away.
    """
    vault, opened, closed = Vault(ring), set[str](), Counter[str]()
    after = 0
    # No key has an empty id: all rows.
    while rows := await store.not_under("", after=after, most=BATCH):
        for row in rows:
            try:
                vault.rewrap(row.sealed, row.binding)
            except VaultFault:
                closed[row.sealed.key_id] += 1
            else:
                opened.add(row.sealed.key_id)
        after = rows[-1].id
    lacking = [f"{closed[key]} under {key!r}" for key in sorted(closed) if key not in opened]
    if lacking:
        raise RingLacksKeys(
            f"stored passwords are under keys that the key ring lacks: {', '.join(lacking)}; give"
            " the ring that has them (docs/operations.md, rotating keys)"
        )
