"""Whether a ring that services are about to get opens everything that is stored."""

from mt5kit.state.postgres import KeyStore
from mt5kit.vault import KeyRing


class RingLacksKeys(Exception):
    """Stored passwords are under keys that the ring lacks; says which, and how many."""


async def require_keys(store: KeyStore, ring: KeyRing) -> None:
    """Nothing, if the ring has every key that a stored password is under.

    Raises:
        RingLacksKeys: It lacks some.
        DatabaseUnavailable: Postgres is away.
    """
    under = await store.counts()
    lacking = [f"{count} under {key!r}" for key, count in under.items() if key not in ring.ids]
    if lacking:
        raise RingLacksKeys(
            f"stored passwords are under keys that the key ring lacks: {', '.join(lacking)}; give"
            " the ring that has them (docs/operations.md, rotating keys)"
        )
