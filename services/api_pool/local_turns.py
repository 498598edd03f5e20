"""Turns on the terminals that this replica holds. An `Owner`."""

from typing import Any

import msgspec

from api_pool.doubts import Doubts
from api_pool.fleet import Fleet, OwnedTerminal
from api_pool.looks import Looks
from api_pool.sessions import SessionAccounts
from api_pool.turns import HistoryTurn, LookTurn, ProofTurn, Taken, TurnRequest
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.brokers import Brokers
from mt5kit.domain.history import HistoryPage, Row
from mt5kit.domain.instants import now_ms
from mt5kit.telemetry.session_metrics import SessionMetrics
from mt5kit.terminal.chunks import Chunk
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.history import HistoryReader, PageJob, deals_page, orders_page
from mt5kit.terminal.scheduling import Entrant, Turn
from mt5kit.vault import Vault


class LocalTurns:
    """Takes turns through the terminals' schedulers.

    Args:
        fleet: The terminals.
        sessions: The accounts' credentials.
        looks: Where every look is kept.
        brokers: Clocks of the servers.
        vault: Opens credentials that are to be proven.
        login_timeout_s: What an unproven login may take.
        metrics: Of waiting.
    """

    def __init__(  # noqa: PLR0913 - a composition root's list of parts
        self,
        *,
        fleet: Fleet,
        sessions: SessionAccounts,
        looks: Looks,
        brokers: Brokers,
        vault: Vault,
        login_timeout_s: float,
        metrics: SessionMetrics,
    ) -> None:
        self._fleet = fleet
        self._sessions = sessions
        self._looks = looks
        self._brokers = brokers
        self._vault = vault
        self._login_timeout_s = login_timeout_s
        self._metrics = metrics
        self._doubts = Doubts()

    async def take(self, terminal_id: str, turn: TurnRequest, deadline_s: float) -> Taken:
        """See `Owner.take`."""
        owned = self._fleet.terminal(terminal_id)
        match turn:
            case LookTurn():
                return await self._look(owned, turn, deadline_s)
            case HistoryTurn():
                return await self._history(owned, turn, deadline_s)
            case ProofTurn():
                return await self._prove(owned, turn)

    async def _look(self, owned: OwnedTerminal, turn: LookTurn, deadline_s: float) -> Taken:
        entrant = self._sessions.entrant(turn.account_id, turn.identity)
        taken = await owned.scheduler.look(
            entrant, max_age_s=turn.max_age_ms / 1000, deadline_s=deadline_s
        )
        kept = self._looks.of(turn.account_id, owned.terminal_id, taken.value)
        return self._taken(owned, taken, kept.as_of_ms, kept.seen.payload)

    async def _history(self, owned: OwnedTerminal, turn: HistoryTurn, deadline_s: float) -> Taken:
        entrant = self._sessions.entrant(turn.account_id, turn.identity)
        reader = HistoryReader(owned.link, turn.identity, owned.link.settling)
        if turn.kind == "deals":
            return await self._page(owned, entrant, deals_page(reader, turn.query), deadline_s)
        return await self._page(owned, entrant, orders_page(reader, turn.query), deadline_s)

    async def _page(
        self, owned: OwnedTerminal, entrant: Entrant, job: PageJob[Row], deadline_s: float
    ) -> Taken:
        began_ms: list[int] = []

        async def step(token: int) -> Chunk[HistoryPage[Row]]:
            # What was seen of a history that is not believed yet does not count as a look.
            if not began_ms or not owned.link.settling.settled(entrant.identity):
                began_ms[:] = [now_ms()]
            return await job.step(token)

        taken = await owned.scheduler.work(entrant, step, deadline_s=deadline_s)
        clock = self._brokers.clock_of(entrant.identity.server)
        rows = tuple(row.in_utc(clock) for row in taken.value.rows)
        page = msgspec.json.encode(HistoryPage(rows, taken.value.more))
        return self._taken(owned, taken, began_ms[0], page)

    async def _prove(self, owned: OwnedTerminal, turn: ProofTurn) -> Taken:
        binding = turn.binding
        credentials = Credentials(
            AccountIdentity(binding.login, binding.server),
            self._vault.open(turn.sealed, binding),
        )
        async with self._doubts.trying(binding.server):
            taken = await owned.scheduler.prove(credentials, deadline_s=self._login_timeout_s)
        snapshot = taken.value.in_utc(self._brokers.clock_of(taken.value.account.server))
        return self._taken(owned, taken, snapshot.seen_ms, msgspec.json.encode(snapshot))

    def _taken(self, owned: OwnedTerminal, turn: Turn[Any], as_of_ms: int, payload: bytes) -> Taken:
        self._metrics.queue_wait.observe(turn.queue_wait_ms / 1000)
        return Taken(
            terminal_id=owned.terminal_id,
            instance_id=self._fleet.instance_id,
            token=turn.token,
            as_of_ms=as_of_ms,
            queue_wait_ms=round(turn.queue_wait_ms, 2),
            broker_ms=round(turn.broker_ms, 2),
            payload=msgspec.Raw(payload),
        )
