"""Sync jobs: an account's state and past read once more, in steps that others hardly notice."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from api_pool.fleet import Fleet, OwnedTerminal
from api_pool.history_pages import DAY_MS, FIRST_PAGE, HistoryPages, page_query
from api_pool.places import Places
from api_pool.sessions import SessionAccounts
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.brokers import Brokers
from mt5kit.domain.history import HistoryPage, Row
from mt5kit.domain.instants import now_ms
from mt5kit.domain.trades import Deal, Order
from mt5kit.errors import (
    AccountNotFound,
    Conflict,
    InternalFault,
    Mt5SwarmError,
    ServiceOverloaded,
    StaleToken,
    TerminalMoved,
    TerminalUnavailable,
)
from mt5kit.service.background import Background
from mt5kit.state.redis import (
    CachedPage,
    PlacementStore,
    StateUnavailable,
    SyncError,
    SyncJob,
    SyncStore,
)
from mt5kit.terminal.chunks import Chunk
from mt5kit.terminal.history import HistoryReader, SyncResult, SyncRun

if TYPE_CHECKING:
    from api_pool.turns import HistoryKind

log = structlog.get_logger(__name__)

# A replica that has not renewed its claim for so long is gone; another begins the job again.
CLAIM_MS: Final = 15_000
RENEW_S: Final = 1.0
# A job whose terminal is never free fails rather than wait for ever.
JOB_DEADLINE_S: Final = 600.0
MOST_PENDING: Final = 200


@dataclass(frozen=True, slots=True)
class SyncParts:
    """What sync jobs need."""

    store: SyncStore
    placements: PlacementStore
    places: Places
    fleet: Fleet
    sessions: SessionAccounts
    pages: HistoryPages
    brokers: Brokers
    background: Background


class SyncRunner:
    """Runs the jobs of the accounts whose terminals this replica holds.

    A job is claimed in the state store. When its replica dies, or hands the terminal over, the
    next owner begins it again: reading the past twice changes nothing.

    Args:
        parts: What the jobs need.
    """

    def __init__(self, parts: SyncParts) -> None:
        self._parts = parts
        self._running: set[str] = set()

    async def look(self) -> None:
        """Begin the jobs that are ours and are not running.

        Raises:
            StateUnavailable: The state store is away.
        """
        parts = self._parts
        pending = await parts.store.pending(MOST_PENDING)
        jobs = [job for job in pending if job.sync_id not in self._running]
        places = await parts.placements.where_many([job.account_id for job in jobs])
        for job in jobs:
            terminal_id = places.get(job.account_id) or await self._placed(job)
            owned = parts.fleet.owned.get(terminal_id)
            if owned is not None and await parts.store.claim(
                job.sync_id, parts.fleet.instance_id, CLAIM_MS
            ):
                self._running.add(job.sync_id)
                parts.background.spawn(f"sync-{job.sync_id}", self._run(job, owned))

    async def _placed(self, job: SyncJob) -> str:
        """A terminal for a job whose session was dropped; empty while there is no room."""
        try:
            return await self._parts.places.place(job.account_id)
        except StateUnavailable:
            raise
        except (ServiceOverloaded, TerminalUnavailable) as full:
            log.info("sync_waits", sync_id=job.sync_id, why=full.message)
            return ""

    async def _run(self, job: SyncJob, owned: OwnedTerminal) -> None:
        parts = self._parts
        try:
            finished = await _Sync(job, owned, parts).run()
        except (StateUnavailable, TerminalMoved, StaleToken) as gone:
            # The claim runs out, and the job begins again where the terminal is.
            log.info("sync_left", sync_id=job.sync_id, error=gone.message)
            return
        except Mt5SwarmError as failure:
            finished = _failed(job, failure)
            if isinstance(failure, AccountNotFound):
                # `_placed` may have given it the place that it is not to have.
                await parts.places.remove(job.account_id)
        except Exception:
            # Begun anew it would most likely end so again, every second.
            log.exception("sync_stumbled", sync_id=job.sync_id)
            finished = _failed(job, InternalFault("the job failed"))
        finally:
            self._running.discard(job.sync_id)
        await parts.store.finish(finished, parts.fleet.instance_id)


def _failed(job: SyncJob, why: Mt5SwarmError) -> SyncJob:
    return msgspec.structs.replace(job, error=SyncError(why.code, why.message))


class _Sync:
    """One job at work, and the sink of what it reads."""

    def __init__(self, job: SyncJob, owned: OwnedTerminal, parts: SyncParts) -> None:
        self._job = job
        self._owned = owned
        self._parts = parts
        self._token = 0
        self._deals: tuple[Deal, ...] = ()
        self._orders: tuple[Order, ...] = ()
        self._read = SyncResult(0, 0)
        self._percent = 0

    async def run(self) -> SyncJob:
        """Look at the account, then read its past; the finished job."""
        work = asyncio.create_task(self._work())
        try:
            while not (await asyncio.wait([work], timeout=RENEW_S))[0]:
                if not await self._renewed():
                    raise Conflict("the job has ended, or is another replica's")
            return await work
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, Mt5SwarmError):
                await work

    def deals(self, rows: tuple[Deal, ...]) -> None:
        """See `SyncSink.deals`."""
        self._read = SyncResult(self._read.deals + len(rows), self._read.orders)
        self._deals = (*self._deals, *rows)[: FIRST_PAGE + 1]

    def orders(self, rows: tuple[Order, ...]) -> None:
        """See `SyncSink.orders`."""
        self._read = SyncResult(self._read.deals, self._read.orders + len(rows))
        self._orders = (*self._orders, *rows)[: FIRST_PAGE + 1]

    def progress(self, percent: int) -> None:
        """See `SyncSink.progress`."""
        self._percent = percent

    async def _work(self) -> SyncJob:
        scheduler, link = self._owned.scheduler, self._owned.link
        stored = await self._parts.sessions.to_refresh(self._job.account_id)
        if stored is None:
            raise AccountNotFound("the account is gone, disconnected, or refused by its broker")
        asked_ms = now_ms()
        # Its credentials are read when a login needs them: the job may wait for minutes.
        entrant = self._parts.sessions.entrant(self._job.account_id, stored.identity)
        await scheduler.look(entrant, deadline_s=JOB_DEADLINE_S)
        reader = HistoryReader(link, stored.identity, link.settling)
        run = SyncRun(reader, self._job.history_days, int(time.time()), self)

        async def step(token: int) -> Chunk[SyncResult]:
            self._token = token
            return await run.step(token)

        result = (await scheduler.work(entrant, step, deadline_s=JOB_DEADLINE_S)).value
        await self._keep_pages(stored.identity, asked_ms)
        return msgspec.structs.replace(
            self._job, deals=result.deals, orders=result.orders, progress=100
        )

    async def _keep_pages(self, identity: AccountIdentity, asked_ms: int) -> None:
        """Put what most callers ask next, the first page of each kind, where it is found."""
        query = page_query(self._parts.brokers, identity.server)
        clock = self._parts.brokers.clock_of(identity.server)
        since_ms = query.start * 1000

        def page(rows: tuple[Row, ...]) -> bytes:
            within = [row.in_utc(clock) for row in rows if row.cursor[0] >= since_ms]
            return msgspec.json.encode(
                HistoryPage(tuple(within[:FIRST_PAGE]), more=len(within) > FIRST_PAGE)
            )

        # A sync reads a day more than it was asked for, to whatever zone the days belong.
        if asked_ms - (self._job.history_days + 1) * DAY_MS > since_ms:
            # It has not read all that the first page may need.
            return
        pages: dict[HistoryKind, bytes] = {
            "deals": page(self._deals),
            "orders": page(self._orders),
        }
        for kind, payload in pages.items():
            kept = CachedPage(
                as_of_ms=asked_ms,
                terminal_id=self._owned.terminal_id,
                instance_id=self._parts.fleet.instance_id,
                identity_login=identity.login,
                identity_server=identity.server,
                payload=payload,
            )
            await self._parts.pages.put(self._job.account_id, self._token, kind, query, kept)

    async def _renewed(self) -> bool:
        """Tell how far it is; whether the job is still ours."""
        job = msgspec.structs.replace(
            self._job,
            progress=self._percent,
            deals=self._read.deals,
            orders=self._read.orders,
        )
        return await self._parts.store.progress(job, self._parts.fleet.instance_id, CLAIM_MS)
