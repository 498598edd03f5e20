"""Keeping a replica's fair share of the terminals of its role."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

import msgspec
import structlog

from mt5kit.errors import TerminalUnavailable
from mt5kit.state.keys import Role
from mt5kit.state.redis.connection import RedisFault, StateUnavailable
from mt5kit.state.redis.leases import LEASE_TTL_MS, Lease, LeaseStore

_RENEWALS_PER_TTL = 4
"""Three renewals may fail before the lease runs out."""


class KeeperPlan(msgspec.Struct, frozen=True):
    """What a keeper keeps.

    Args:
        role: Which terminals, and which replicas share them.
        owner: This replica, by its instance id.
        terminals: The terminals that exist now, the same on every replica.
        own: Those of this replica's slot; taken first and given back last.
        ttl_ms: Life of a lease without renewal.
        interval_s: Seconds between rounds; a quarter of the life unless given.
    """

    role: Role
    owner: str
    terminals: Callable[[], Sequence[str]]
    own: frozenset[str] = frozenset()
    ttl_ms: int = LEASE_TTL_MS
    interval_s: float | None = None

    @property
    def pause_s(self) -> float:
        """Seconds between rounds."""
        return self.interval_s or self.ttl_ms / 1000 / _RENEWALS_PER_TTL


def _ignore_gain(_: Lease) -> None:
    """Nobody asked to be told."""


def _ignore_loss(_: str) -> None:
    """Nobody asked to be told."""


class LeaseKeeper:
    """One background task that renews, takes and gives back.

    While Redis is away it keeps what it has: nobody can get a newer token meanwhile.

    Args:
        store: The leases.
        plan: What to keep.
        on_gained: Told of each lease that was not held before.
        on_lost: Told of each terminal that is not held any more, before it is given back.
        sleep: Waits the given seconds between rounds.
    """

    def __init__(
        self,
        store: LeaseStore,
        plan: KeeperPlan,
        *,
        on_gained: Callable[[Lease], None] = _ignore_gain,
        on_lost: Callable[[str], None] = _ignore_loss,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._plan = plan
        self._on_gained = on_gained
        self._on_lost = on_lost
        self._sleep = sleep
        self._held: dict[str, Lease] = {}
        self._task: asyncio.Task[None] | None = None
        self._away = False
        self._log = structlog.get_logger(__name__).bind(role=plan.role, owner=plan.owner)

    @property
    def held(self) -> Mapping[str, Lease]:
        """What this replica holds, by terminal, in the order it was gained."""
        return MappingProxyType(self._held)

    def token_of(self, terminal_id: str) -> int:
        """The token to use a terminal with.

        Raises:
            TerminalUnavailable: This replica does not hold it.
        """
        lease = self._held.get(terminal_id)
        if lease is None:
            raise self._not_held(terminal_id)
        return lease.token

    async def reissue(self, terminal_id: str) -> int:
        """A new, higher token for a terminal that is held: the epoch of a new stream.

        Raises:
            TerminalUnavailable: This replica does not hold it, or not any more.
            StateUnavailable: Redis is away.
        """
        self.token_of(terminal_id)
        plan = self._plan
        lease = await self._store.acquire(terminal_id, plan.owner, plan.ttl_ms)
        if lease is None:
            self._lose(terminal_id)
            raise self._not_held(terminal_id)
        self._held[terminal_id] = lease
        return lease.token

    def start(self) -> None:
        """Begin the rounds; the first one runs at once."""
        self._task = asyncio.create_task(self._keep(), name=f"lease-keeper-{self._plan.role}")

    async def close(self) -> None:
        """End the rounds and give everything back, so that others need not wait."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        leases = list(self._held.values())
        for lease in leases:
            self._lose(lease.terminal_id)
        try:
            await self._store.withdraw(self._plan.role, self._plan.owner)
            for lease in leases:
                await self._store.release(lease)
        except (StateUnavailable, RedisFault) as failure:
            self._log.warning("leases_left_to_run_out", error=failure.message)

    async def round(self) -> None:
        """Renew what is held, then bring it to the fair share.

        Raises:
            StateUnavailable: Redis is away or full; what is held stays held.
        """
        await self._renew()
        plan = self._plan
        replicas = await self._store.announce(plan.role, plan.owner, plan.ttl_ms)
        terminals = plan.terminals()
        share = math.ceil(len(terminals) / len(replicas))
        await self._give_back(share, terminals)
        await self._take(share, self._by_preference(terminals, replicas))

    async def _keep(self) -> None:
        while True:
            try:
                await self.round()
            except StateUnavailable as away:
                if not self._away:
                    self._log.warning("leases_kept_without_redis", error=away.message)
                self._away = True
            except Exception:  # noqa: BLE001 - whatever fails in a round must not end the renewals
                self._log.exception("lease_round_failed")
            else:
                if self._away:
                    self._log.info("leases_renewed_again")
                self._away = False
            await self._sleep(self._plan.pause_s)

    async def _renew(self) -> None:
        for lease in list(self._held.values()):
            renewed = await self._store.renew(lease, self._plan.ttl_ms)
            # A token reissued meanwhile makes this renewal's refusal meaningless.
            if not renewed and self._held.get(lease.terminal_id) is lease:
                self._log.warning("lease_lost", terminal_id=lease.terminal_id)
                self._lose(lease.terminal_id)

    async def _give_back(self, share: int, terminals: Sequence[str]) -> None:
        gone = [terminal for terminal in self._held if terminal not in terminals]
        kept = [terminal for terminal in self._held if terminal in terminals]
        # Stable: ours first, then the longest held.
        kept.sort(key=lambda terminal: terminal not in self._plan.own)
        for terminal in [*gone, *kept[share:]]:
            lease = self._held[terminal]
            self._lose(terminal)
            await self._store.release(lease)

    async def _take(self, share: int, terminals: Sequence[str]) -> None:
        for terminal in terminals:
            if len(self._held) >= share:
                return
            if terminal in self._held:
                continue
            lease = await self._store.acquire(terminal, self._plan.owner, self._plan.ttl_ms)
            if lease is not None:
                self._held[terminal] = lease
                self._on_gained(lease)

    def _by_preference(self, terminals: Sequence[str], replicas: Sequence[str]) -> list[str]:
        """Ours first; the rest from a different place for each replica, so that few collide."""
        start = len(terminals) * replicas.index(self._plan.owner) // len(replicas)
        rotated = [*terminals[start:], *terminals[:start]]
        return sorted(rotated, key=lambda terminal: terminal not in self._plan.own)

    def _lose(self, terminal_id: str) -> None:
        if self._held.pop(terminal_id, None) is not None:
            self._on_lost(terminal_id)

    def _not_held(self, terminal_id: str) -> TerminalUnavailable:
        return TerminalUnavailable(
            f"terminal {terminal_id} is not held by this replica",
            retry_after_s=self._plan.pause_s,
        )
