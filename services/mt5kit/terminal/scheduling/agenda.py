"""Who waits for a terminal, and who is next.

Everything waiting for the account that is in goes first, until somebody else has waited for
`patience_s`; then the account whose oldest waiter is oldest. An account that was just logged in
is looked at once more for those who came during its login. So nobody waits longer than for the
call in progress, `patience_s`, and one visit of each account that was there before: a login, two
looks, and `patience_s` more where a job had to wait for `job_patience_s`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.errors import Mt5SwarmError
from mt5kit.terminal.scheduling.arrivals import Arrivals
from mt5kit.terminal.scheduling.parts import Entrant, SchedulerRules
from mt5kit.terminal.scheduling.turns import (
    AnyJob,
    AnyTurn,
    Key,
    Looked,
    LookTurn,
    ProofTurn,
    copy_of,
)


@dataclass(slots=True)
class Visit:
    """The time of one account in the terminal; None when nobody is known to be in.

    Attributes:
        identity: Who is in.
        entrant: The account, when it is known which.
        began: When it was logged in, or found to be.
        owes_look: Those who came during the login have not had their look.
        for_job: A job waited so long that the visit is also its own, for `patience_s`.
        looked_last: The latest thing done was a look and not a step of a job.
        job_ended: When a job last had its result.
    """

    identity: AccountIdentity | None = None
    entrant: Entrant | None = None
    began: float = -math.inf
    owes_look: bool = False
    for_job: bool = False
    looked_last: bool = False
    job_ended: float = -math.inf

    @property
    def account_id(self) -> str | None:
        """Our name of the account, when it is known."""
        return None if self.entrant is None else self.entrant.account_id


@dataclass(frozen=True, slots=True)
class Attend:
    """Look at an account, logging it in where needed.

    `for_job`: because of its jobs; `overdue`: they waited too long, so the visit is also theirs.
    """

    key: Key
    for_job: bool = False
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class Prove:
    """Try credentials."""

    turn: ProofTurn


@dataclass(frozen=True, slots=True)
class RunChunk:
    """Take a step of a job whose account is in."""

    job: AnyJob


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing before `until` unless somebody comes; refreshes may use the time if `free`."""

    until: float
    free: bool


Action: TypeAlias = Attend | Prove | RunChunk | Rest


class Agenda:
    """Turns that wait, in the order in which they came."""

    def __init__(self, rules: SchedulerRules) -> None:
        self._rules = rules
        self._looks: dict[Key, list[LookTurn]] = {}
        self._jobs: list[AnyJob] = []
        self._proofs: list[ProofTurn] = []
        self._held: dict[Key, float] = {}
        self.arrivals = Arrivals(rules.linger_s)

    def __len__(self) -> int:
        return sum(map(len, self._looks.values())) + len(self._jobs) + len(self._proofs)

    def __iter__(self) -> Iterator[AnyTurn]:
        for looks in self._looks.values():
            yield from looks
        yield from self._jobs
        yield from self._proofs

    @property
    def pressing(self) -> bool:
        """Whether anybody waits for a look or a proof that nothing keeps from being served."""
        proofs = any(proof.not_before == -math.inf for proof in self._proofs)
        return proofs or any(key not in self._held for key in self._looks)

    def add(self, turn: AnyTurn) -> None:
        """Let a turn wait."""
        if isinstance(turn, LookTurn):
            self._looks.setdefault(turn.key, []).append(turn)
            self.arrivals.count(turn.entrant.account_id, turn.asked)
        elif isinstance(turn, ProofTurn):
            self._proofs.append(turn)
        else:
            self._jobs.append(turn)

    def remove(self, turn: AnyTurn) -> None:
        """Let a turn go, if it is still here."""
        if isinstance(turn, LookTurn):
            looks = self._looks.get(turn.key, [])
            if turn in looks:
                looks.remove(turn)
            if not looks:
                self._looks.pop(turn.key, None)
                self._held.pop(turn.key, None)
        elif isinstance(turn, ProofTurn):
            if turn in self._proofs:
                self._proofs.remove(turn)
        elif turn in self._jobs:
            self._jobs.remove(turn)

    def entrant(self, key: Key) -> Entrant | None:
        """The account as the latest of those who wait for it knows it."""
        looks = self._looks.get(key, [])
        waiting: list[LookTurn | AnyJob] = [*looks, *(j for j in self._jobs if j.key == key)]
        return waiting[-1].entrant if waiting else None

    def answer(self, key: Key, looked: Looked) -> None:
        """Answer those who wait for a look at an account that is no older than this one."""
        for turn in list(self._looks.get(key, ())):
            if turn.satisfied_by(looked.began):
                turn.resolve(looked.snapshot, looked.token, looked.began, looked.ended)
                self.remove(turn)

    def rest_jobs(self, identity: AccountIdentity | None, until: float) -> None:
        """Keep the jobs of an account from having a visit of their own before `until`."""
        for job in self._jobs:
            if job.key[1] == identity:
                job.rests_until = until

    def hold(self, key: Key, until: float) -> None:
        """Let an account wait until then: a login is not to be had before."""
        self._held[key] = until

    def fail(self, error: Mt5SwarmError, which: Callable[[AnyTurn], bool]) -> None:
        """Fail the turns that `which` picks."""
        for turn in [turn for turn in self if which(turn)]:
            turn.fail(copy_of(error))
            self.remove(turn)

    def logins_ahead(
        self, identity: AccountIdentity | None, under_way: Key | ProofTurn | None = None
    ) -> int:
        """Logins that those who wait now will take.

        Args:
            identity: Who is in.
            under_way: Whose login has begun: it is not counted.
        """
        keys = set(self._looks) | {job.key for job in self._jobs}
        proofs = sum(proof is not under_way for proof in self._proofs)
        return proofs + sum(key[1] != identity and key != under_way for key in keys)

    def awaits(self, account_id: str) -> bool:
        """Whether anybody waits for an account already."""
        keys = [*self._looks, *(job.key for job in self._jobs)]
        return any(key[0] == account_id for key in keys)

    def next(self, now: float, visit: Visit) -> Action:
        """What to do now."""
        for key in [key for key, until in self._held.items() if until <= now]:
            del self._held[key]
        here = next((key for key in self._looks if key[1] == visit.identity), None)
        rival_since, rival = self._rival(now, visit)
        urgent = now >= rival_since + self._rules.patience_s
        job = self._job_here(visit)
        if job is not None and self._job_first(job, visit, here, now, urgent=urgent):
            return RunChunk(job)
        own_visit = job is not None and self._own_visit(visit, now)
        if here is not None and (visit.owes_look or own_visit or not urgent):
            return Attend(here)
        if job is not None and (rival is None or own_visit):
            return RunChunk(job) if job.next_at <= now else Rest(job.next_at, free=False)
        if rival is None:
            return self._job_elsewhere(now, visit) or Rest(self._change_at(now), free=True)
        stay_until = self.arrivals.linger_until(visit.account_id)
        if stay_until > now and not urgent:
            return Rest(min(stay_until, rival_since + self._rules.patience_s), free=False)
        return rival

    def _rival(self, now: float, visit: Visit) -> tuple[float, Attend | Prove | None]:
        """Who has waited longest for another account than the one that is in, and since when."""
        found: tuple[float, Attend | Prove | None] = (math.inf, None)
        for key, looks in self._looks.items():
            if key[1] != visit.identity and key not in self._held and looks[0].asked < found[0]:
                found = looks[0].asked, Attend(key, overdue=self._has_overdue(key, now))
        for proof in self._proofs:
            if proof.not_before <= now and proof.asked < found[0]:
                found = proof.asked, Prove(proof)
        for job in self._jobs:
            if job.key[1] == visit.identity or job.key in self._held:
                continue
            overdue = self._overdue_at(job)
            if overdue <= now and overdue < found[0]:
                found = overdue, Attend(job.key, for_job=True, overdue=True)
        return found

    def _job_here(self, visit: Visit) -> AnyJob | None:
        """The job of the account that is in whose step is due first."""
        jobs = (job for job in self._jobs if job.key[1] == visit.identity)
        return min(jobs, key=lambda job: (job.next_at, job.since), default=None)

    def _job_first(
        self, job: AnyJob, visit: Visit, here: Key | None, now: float, *, urgent: bool
    ) -> bool:
        """Whether a job that waited long takes a step before a look at its account."""
        if here is None or job.next_at > now or not visit.looked_last or visit.owes_look:
            return False
        return self._own_visit(visit, now) or (not urgent and self._overdue_at(job) <= now)

    def _own_visit(self, visit: Visit, now: float) -> bool:
        return visit.for_job and now < visit.began + self._rules.patience_s

    def _job_elsewhere(self, now: float, visit: Visit) -> Attend | None:
        jobs = (
            job
            for job in self._jobs
            if job.key[1] != visit.identity
            and max(job.rests_until, job.next_at, self._held.get(job.key, now)) <= now
        )
        job = min(jobs, key=lambda job: job.since, default=None)
        return None if job is None else Attend(job.key, for_job=True)

    def _has_overdue(self, key: Key, now: float) -> bool:
        return any(job.key == key and self._overdue_at(job) <= now for job in self._jobs)

    def _overdue_at(self, job: AnyJob) -> float:
        return max(job.since + self._rules.job_patience_s, job.next_at)

    def _change_at(self, now: float) -> float:
        """When `next` may answer otherwise without anybody coming."""
        instants = [*self._held.values()]
        instants += [proof.not_before for proof in self._proofs]
        for job in self._jobs:
            instants += [job.rests_until, job.next_at, self._overdue_at(job)]
        return min((instant for instant in instants if instant > now), default=math.inf)
