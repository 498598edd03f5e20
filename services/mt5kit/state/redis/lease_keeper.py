"""Keeping a replica's fair share of the terminals of its role."""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from mt5kit.errors import TerminalMoved
from mt5kit.state.redis.connection import RedisFault, StateUnavailable
from mt5kit.state.redis.held_leases import HeldLeases
from mt5kit.state.redis.keeper_plan import KeeperPlan, slot_of
from mt5kit.state.redis.leases import Announced, Lease, LeaseStore

LOSING_S = 25.0
"""For the call in progress before a terminal is given back: a login ends within 20 s.

What it finds out, above all that a password is refused, must be known before somebody else logs
in. The lease is renewed meanwhile.
"""

_RETURN_ROUNDS = 2
"""Whoever lives has been in Redis again within one round, and in another it is late."""

_JITTER_S = 0.05
"""Those who heard of a release do not all ask at once; a hand-over stays near 100 ms."""


def _ignore_gain(_: Lease) -> None:
    """Nobody asked to be told."""


def _ignore_loss(_: str) -> None:
    """Nobody asked to be told."""


class LeaseKeeper:
    """One background task that renews, takes and gives back, and one that hears of releases.

    While Redis is away it keeps what it has: nobody can get a newer token meanwhile.

    Args:
        store: The leases.
        plan: What to keep.
        on_gained: Told of each lease that was not held before.
        on_lost: Told of each terminal that is not held any more, before it is given back.
        on_losing: Awaited for each terminal that is about to be given back, for 25 s at most and
            for several at the same time; the lease is held and renewed meanwhile. Not for one
            that another replica has taken.
        clock: Monotonic seconds, which go on while the process is stopped.
    """

    def __init__(
        self,
        store: LeaseStore,
        plan: KeeperPlan,
        *,
        on_gained: Callable[[Lease], None] = _ignore_gain,
        on_lost: Callable[[str], None] = _ignore_loss,
        on_losing: Callable[[str], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._plan = plan
        self._on_gained = on_gained
        self._on_lost = on_lost
        self._on_losing = on_losing
        self._clock = clock
        self._held = HeldLeases(plan.ttl_ms / 1000, clock)
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._poked = asyncio.Event()
        # Renewing a lease that has just been given back would take it up again.
        self._one_at_a_time = asyncio.Lock()
        self._away = False
        self._had_others = False
        self._replicas: tuple[str, ...] = ()
        self._release = True
        self._random = random.Random()  # noqa: S311 - spreads replicas out, keeps no secret
        self._log = structlog.get_logger(__name__).bind(role=plan.role, owner=plan.owner)

    @property
    def held(self) -> Mapping[str, Lease]:
        """What this replica holds, by terminal, in the order it was gained."""
        return self._held.leases

    def token_of(self, terminal_id: str) -> int:
        """The token to use a terminal with.

        A lease that was not renewed within its life is refused, unless Redis has been known to be
        away ever since (see `HeldLeases`): a process that was stopped for longer does not use what
        may be another's by now. Once a renewal has succeeded the token is given again.

        Raises:
            TerminalMoved: This replica does not hold it, or does not know whether it does.
        """
        lease = self.held.get(terminal_id)
        if lease is None:
            raise self._not_held(terminal_id)
        if not self._held.believed(terminal_id):
            raise TerminalMoved(
                f"this replica's lease of terminal {terminal_id} was not renewed in time",
                retry_after_s=self._plan.pause_s,
            )
        return lease.token

    async def reissue(self, terminal_id: str) -> int:
        """A new, higher token for a terminal that is held: the epoch of a new stream.

        Raises:
            TerminalMoved: This replica does not hold it, or not any more.
            StateUnavailable: Redis is away.
        """
        async with self._one_at_a_time:
            self.token_of(terminal_id)
            lease = await self._acquire(terminal_id)
            if lease is None:
                self._lose(terminal_id)
                raise self._not_held(terminal_id)
        return lease.token

    def start(self) -> None:
        """Begin the rounds; the first one runs at once."""
        role = self._plan.role
        self._tasks = [
            asyncio.create_task(self._keep(), name=f"lease-keeper-{role}"),
            asyncio.create_task(self._hear(), name=f"lease-releases-{role}"),
        ]

    def poke(self) -> None:
        """Run a round at once, or once more after the one that is running."""
        self._poked.set()

    def give_up(self, terminal_id: str) -> None:
        """Give a terminal back that the plan will not have once it is not held any more."""
        if terminal_id in self.held and terminal_id not in self._leaving:
            self._begin_leaving([terminal_id])

    async def close(self) -> None:
        """End the rounds and give everything back, so that others need not wait."""
        # Between two questions to Redis: one that was cut short might be carried out yet.
        async with self._one_at_a_time:
            for task in self._tasks:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            await self._store.withdraw(self._plan.role, self._plan.owner)
        except (StateUnavailable, RedisFault) as failure:
            self._leave_to_run_out(failure)
        self._begin_leaving([terminal for terminal in self.held if terminal not in self._leaving])
        await asyncio.gather(*self._leaving.values())

    async def round(self) -> None:
        """Renew what is held, then bring it to the fair share.

        Raises:
            StateUnavailable: Redis is away or full; what is held stays held.
        """
        await self._renew()
        self._release = True
        plan = self._plan
        async with self._one_at_a_time:
            told = await self._store.announce(plan.role, plan.owner, plan.ttl_ms)
        self._replicas = told.replicas
        # Of two tasks in one slot the older is about to go: those of the other slots keep what
        # they have.
        terminals, slots = plan.terminals(), sorted(set(map(slot_of, told.replicas)))
        share = math.ceil(len(terminals) / len(slots))
        await self._give_back(share, terminals)
        if not self._waits_for_others(told):
            await self._take(share, self._by_preference(terminals, slots))

    async def _keep(self) -> None:
        while True:
            self._poked.clear()
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
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._plan.pause_s):
                    await self._poked.wait()

    async def _hear(self) -> None:
        while True:
            try:
                # What was released before the subscription stood went unheard.
                async for owner in self._store.releases(self._plan.role, self.poke):
                    if owner == self._plan.owner or self._is_for_another(owner):
                        continue
                    if slot_of(owner) != slot_of(self._plan.owner):
                        await asyncio.sleep(self._random.uniform(0, _JITTER_S))
                    self.poke()
            except Exception:  # noqa: BLE001 - not to hear of releases only costs time
                self._log.exception("lease_releases_unheard")
            await asyncio.sleep(self._plan.pause_s)

    def _is_for_another(self, releaser: str) -> bool:
        """Whether what this one gave back is for the other task of its slot.

        Should that one not take it, the next round will.
        """
        slot = slot_of(releaser)
        others = (one for one in self._replicas if one != releaser)
        return slot != slot_of(self._plan.owner) and slot in map(slot_of, others)

    def _waits_for_others(self, told: Announced) -> bool:
        """Whether Redis may have forgotten leases of others, who have yet to say so.

        The first to come back to an empty Redis would take what is theirs.
        """
        if told.remembers_ms > _RETURN_ROUNDS * self._plan.pause_s * 1000:
            self._had_others = len(told.replicas) > 1
            return False
        return self._had_others

    async def _renew(self) -> None:
        for terminal_id in list(self.held):
            async with self._one_at_a_time:
                lease = self.held.get(terminal_id)
                if lease is None:
                    continue
                asked_at = self._clock()
                try:
                    lapsed_ms = round(self._held.lapsed_s(terminal_id) * 1000)
                    renewed = await self._store.renew(lease, self._plan.ttl_ms, lapsed_ms=lapsed_ms)
                except StateUnavailable:
                    self._held.unanswered(asked_at)
                    raise
                if renewed:
                    self._held.confirm(lease, asked_at)
                else:
                    self._log.warning("lease_lost", terminal_id=terminal_id)
                    self._lose(terminal_id)

    async def _give_back(self, share: int, terminals: Sequence[str]) -> None:
        staying = [terminal for terminal in self.held if terminal not in self._leaving]
        gone = [terminal for terminal in staying if terminal not in terminals]
        kept = [terminal for terminal in staying if terminal in terminals]
        # Stable: ours first, then the longest held.
        kept.sort(key=lambda terminal: terminal not in self._plan.own)
        self._begin_leaving([*gone, *kept[share:]])
        if self._on_losing is None:
            await asyncio.gather(*self._leaving.values())

    def _begin_leaving(self, terminals: Sequence[str]) -> None:
        for terminal in terminals:
            task = asyncio.create_task(self._leave(terminal), name=f"lease-leaving-{terminal}")
            self._leaving[terminal] = task

    async def _leave(self, terminal_id: str) -> None:
        try:
            await self._prepare_to_lose(terminal_id)
            async with self._one_at_a_time:
                lease = self.held.get(terminal_id)
                if lease is not None:
                    self._lose(terminal_id)
                    if self._release:
                        await self._store.release(lease, self._plan.role)
        except (StateUnavailable, RedisFault) as failure:
            self._leave_to_run_out(failure)
        except Exception:  # noqa: BLE001 - one terminal must not keep the others
            self._log.exception("lease_not_given_back", terminal_id=terminal_id)
        finally:
            del self._leaving[terminal_id]

    async def _prepare_to_lose(self, terminal_id: str) -> None:
        if self._on_losing is None:
            return
        try:
            async with asyncio.timeout(LOSING_S):
                await self._on_losing(terminal_id)
        except TimeoutError:
            self._log.warning("lease_given_back_in_use", terminal_id=terminal_id)
        except Exception:  # noqa: BLE001 - whatever fails there, others wait for the terminal
            self._log.exception("lease_given_back_unprepared", terminal_id=terminal_id)

    def _leave_to_run_out(self, failure: StateUnavailable | RedisFault) -> None:
        # A Redis that hangs costs its timeout once, not once for each terminal.
        if self._release:
            self._log.warning("leases_left_to_run_out", error=failure.message)
        self._release = False

    async def _take(self, share: int, terminals: Sequence[str]) -> None:
        for terminal in terminals:
            if sum(held not in self._leaving for held in self.held) >= share:
                return
            if terminal in self.held or terminal in self._leaving:
                continue
            async with self._one_at_a_time:
                lease = await self._acquire(terminal)
            if lease is not None:
                self._on_gained(lease)

    async def _acquire(self, terminal_id: str) -> Lease | None:
        plan, asked_at = self._plan, self._clock()
        lease = await self._store.acquire(terminal_id, plan.owner, plan.ttl_ms, plan.url)
        if lease is not None:
            self._held.confirm(lease, asked_at)
        return lease

    def _by_preference(self, terminals: Sequence[str], slots: Sequence[str]) -> list[str]:
        """Ours first; the rest from a different place for each slot, so that few collide."""
        start = len(terminals) * slots.index(slot_of(self._plan.owner)) // len(slots)
        rotated = [*terminals[start:], *terminals[:start]]
        return sorted(rotated, key=lambda terminal: terminal not in self._plan.own)

    def _lose(self, terminal_id: str) -> None:
        if self._held.drop(terminal_id):
            self._on_lost(terminal_id)

    def _not_held(self, terminal_id: str) -> TerminalMoved:
        return TerminalMoved(
            f"terminal {terminal_id} is not held by this replica",
            retry_after_s=self._plan.pause_s,
        )
