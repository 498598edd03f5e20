"""Carries out what the agenda decided, and tells everybody concerned how it ended."""

from collections.abc import Callable

import structlog

from mt5kit.errors import (
    InternalFault,
    LoginRefused,
    Mt5SwarmError,
    ServiceOverloaded,
    StaleToken,
    WrongAccount,
)
from mt5kit.terminal.chunks import Done
from mt5kit.terminal.scheduling.agenda import Agenda, Attend
from mt5kit.terminal.scheduling.gate import BudgetShort
from mt5kit.terminal.scheduling.parts import Entrant, SchedulerParts
from mt5kit.terminal.scheduling.refresh import RefreshPlan
from mt5kit.terminal.scheduling.telling import Telling
from mt5kit.terminal.scheduling.turns import AnyJob, AnyTurn, Key, Looked, LookTurn, ProofTurn
from mt5kit.terminal.scheduling.visits import Visits

log = structlog.get_logger(__name__)


class Serving:
    """Turns in the terminal, one at a time; nothing here raises because a turn failed.

    Args:
        agenda: Who waits.
        visits: Who is in.
        plan: Learns of every look.
        parts: Events.
        clock: Monotonic seconds.
        closing: Whether no further call may begin.
    """

    def __init__(
        self,
        agenda: Agenda,
        visits: Visits,
        plan: RefreshPlan,
        parts: SchedulerParts,
        clock: Callable[[], float],
        closing: Callable[[], bool],
    ) -> None:
        self._agenda = agenda
        self._visits = visits
        self._plan = plan
        self._events = Telling(parts.events)
        self._clock = clock
        self._closing = closing
        self._key: Key | None = None
        self._turn: AnyTurn | None = None

    def serves(self, turn: AnyTurn) -> bool:
        """Whether the call in progress is for this turn."""
        began = self._visits.call_began
        if began is None:
            return False
        if isinstance(turn, LookTurn):
            return turn.key == self._key and turn.satisfied_by(began)
        return turn is self._turn

    @property
    def logging_in(self) -> Key | ProofTurn | None:
        """For whom a login is under way, and None without one."""
        if not self._visits.signing_in:
            return None
        return self._turn if isinstance(self._turn, ProofTurn) else self._key

    def forget(self, account_id: str) -> None:
        """Tell nobody of a look in progress: its account has gone."""
        if self._key is not None and self._key[0] == account_id:
            self._key = None

    async def look(
        self, entrant: Entrant, *, spare: bool, wanted: Callable[[], bool]
    ) -> Looked | None:
        """Look, tell, and answer those whom the look satisfies; raises as `Visits.look`."""
        key = self._key = entrant.account_id, entrant.identity
        try:
            looked = await self._visits.look(entrant, spare=spare, wanted=wanted)
            if self._key != key:
                self._visits.visit.entrant = None
            elif looked is not None:
                self._tell(entrant, looked)
        except LoginRefused as refused:
            self._agenda.fail(refused, lambda turn: _key_of(turn) == key)
            raise
        else:
            return looked
        finally:
            self._key = None

    async def attend(self, action: Attend) -> None:
        """Serve those who wait for an account."""
        key, began = action.key, self._clock()
        entrant = self._agenda.entrant(key)
        if entrant is None:
            return

        def concerned(turn: AnyTurn) -> bool:
            if isinstance(turn, LookTurn):
                return turn.key == key and turn.satisfied_by(began)
            return action.for_job and _key_of(turn) == key

        def wanted() -> bool:
            return not self._closing() and self._agenda.entrant(key) is not None

        try:
            await self.look(entrant, spare=False, wanted=wanted)
        except BudgetShort as short:
            self._hold(key, short)
        except StaleToken as lost:
            self.lease_lost(lost)
        except Mt5SwarmError as failure:
            self._agenda.fail(failure, concerned)
        except Exception:
            log.exception("turn_failed")
            self._agenda.fail(InternalFault("the turn failed"), concerned)
        else:
            self._visits.visit.for_job |= action.overdue

    async def prove(self, turn: ProofTurn) -> None:
        """Try credentials."""
        self._turn = turn
        try:
            looked = await self._visits.prove(turn)
        except BudgetShort as short:
            turn.not_before = self._clock() + short.wait_s
            if turn.not_before > turn.deadline:
                turn.fail(_no_login_left(short))
        except StaleToken as lost:
            self.lease_lost(lost)
        except Mt5SwarmError as failure:
            turn.fail(failure)
        except Exception:
            log.exception("proof_failed")
            turn.fail(InternalFault("the proof failed"))
        else:
            if looked is not None:
                turn.resolve(looked.snapshot, looked.token, looked.began, looked.ended)
        finally:
            self._turn = None
            if turn.answer.done():
                self._agenda.remove(turn)

    async def step(self, job: AnyJob) -> None:
        """Take one step of a job whose account is in."""
        self._turn = job
        began = self._clock()
        if job.begun is None:
            job.begun = began
        try:
            token = self._visits.token()
            chunk = await self._visits.timed(job.step(token))
        except WrongAccount as gone:
            self._visits.gone(job.entrant.identity)
            if job.lost_account:
                job.fail(gone)
            job.lost_account = True
        except StaleToken as lost:
            self.lease_lost(lost)
        except Mt5SwarmError as failure:
            job.fail(failure)
        except Exception:
            log.exception("job_failed")
            job.fail(InternalFault("the work failed"))
        else:
            job.lost_account = False
            job.spent_s += self._clock() - began
            if isinstance(chunk, Done):
                job.done(chunk.value, token)
                self._visits.visit.job_ended = self._clock()
            else:
                job.next_at = self._clock() + chunk.pause_s
        finally:
            self._turn = None
            job.since = self._clock()
            self._visits.visit.looked_last = False
            if job.answer.done():
                self._agenda.remove(job)

    def lease_lost(self, error: Mt5SwarmError) -> None:
        """Fail everybody: the terminal is another's, or nobody's."""
        self._visits.forget()
        self._agenda.fail(error, lambda _turn: True)

    def _tell(self, entrant: Entrant, looked: Looked) -> None:
        account_id, identity = key = entrant.account_id, entrant.identity
        self._plan.looked(account_id, identity.server, looked.ended, logged_in=looked.logged_in)
        self._events.looked(account_id, looked.token, looked.snapshot)
        self._agenda.answer(key, looked)

    def _hold(self, key: Key, short: BudgetShort) -> None:
        until = self._clock() + short.wait_s
        self._agenda.hold(key, until)
        self._agenda.fail(
            _no_login_left(short), lambda turn: _key_of(turn) == key and turn.deadline < until
        )


def _key_of(turn: AnyTurn) -> Key | None:
    return None if isinstance(turn, ProofTurn) else turn.key


def _no_login_left(short: BudgetShort) -> ServiceOverloaded:
    return ServiceOverloaded(
        "the broker's server has had as many logins as it is to have", retry_after_s=short.wait_s
    )
