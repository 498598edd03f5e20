"""Judging what a cluster answers while it is broken on purpose."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from tests.cluster import Cluster
from tests.cluster_client import Answer, now_ms

# What a read may answer while things are broken (contracts §1); all of it says when to ask again.
ALLOWED_CODES = frozenset(
    ("TERMINAL_UNAVAILABLE", "SERVICE_OVERLOADED", "BROKER_TIMEOUT", "RATE_LIMITED")
)
# A 504 has no Retry-After; its body says it all the same.
WITH_HEADER = frozenset((429, 503))
FAILURE_FIELDS = {"success", "error", "code", "details", "retry_after_s", "request_id"}
DEFAULT_MAX_AGE_MS = 60_000


@dataclass
class Verdict:
    """What was seen.

    Attributes:
        codes: How often each answer came.
        wrong: Each breach of a promise, as a sentence.
        by_source: Where the good answers came from.
        sentences: How often each failure was told, with what it said.
    """

    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    by_source: Counter[str] = field(default_factory=Counter)
    sentences: Counter[str] = field(default_factory=Counter)


class Judge:
    """Judges answers.

    Args:
        cluster: Whose broker knows the truth.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.verdict = Verdict()
        self._tickets = {
            account.account_id: cluster.tickets(account) for account in cluster.accounts.values()
        }
        # (replica, from, until) in epoch ms: connections to it may break.
        self._broken: list[tuple[str, int, float]] = []

    @contextmanager
    def breaking(self, replica: str) -> Iterator[None]:
        """Connections to a replica may break while the block lasts."""
        began = now_ms()
        self._broken.append((replica, began, float("inf")))
        try:
            yield
        finally:
            self._broken.remove((replica, began, float("inf")))
            self._broken.append((replica, began, float(now_ms())))

    def hear(self, answer: Answer, age: Mapping[str, int]) -> None:
        """Note an answer, and what is wrong with it."""
        self.verdict.codes[answer.code] += 1
        if answer.status is None:
            problems = self._of_silence(answer)
        elif answer.ok:
            self.verdict.by_source[answer.body["meta"]["source"]] += 1
            problems = self.content_problems(answer) + _of_age(answer, age)
        else:
            self.verdict.sentences[f"{answer.code} {answer.body.get('error')}"] += 1
            problems = _of_failure(answer)
        where = f"{answer.account.account_id} through {answer.replica}"
        self.verdict.wrong += [f"{where}: {problem}" for problem in problems]

    def _of_silence(self, answer: Answer) -> list[str]:
        excused = any(
            name == answer.replica and began <= answer.answered_ms and answer.asked_ms <= ended
            for name, began, ended in self._broken
        )
        return [] if excused else [f"no answer ({answer.code}), and nobody had broken it"]

    def content_problems(self, answer: Answer) -> list[str]:
        """What a 200 says of another account than was asked for."""
        asked, body = answer.account, answer.body
        problems = []
        if body["meta"]["account_id"] != asked.account_id:
            problems.append(f"meta is of {body['meta']['account_id']}")
        if "account" in body:
            got = tuple(body["account"][name] for name in ("login", "server", "balance"))
            if got != (asked.login, asked.server, asked.balance):
                problems.append(f"WRONG ACCOUNT {got}")
        if "positions" in body:
            tickets = {position["ticket"] for position in body["positions"]}
            if tickets != self._tickets[asked.account_id]:
                problems.append(f"WRONG POSITIONS {tickets}")
        return problems


def as_of_ms(answer: Answer) -> int:
    """The instant of a good answer's look, in epoch ms."""
    return round(datetime.fromisoformat(answer.body["meta"]["as_of"]).timestamp() * 1000)


def _of_age(answer: Answer, age: Mapping[str, int]) -> list[str]:
    allowed_ms = 0 if "fresh" in age else age.get("max_age_ms", DEFAULT_MAX_AGE_MS)
    seen_ms = as_of_ms(answer)
    if answer.asked_ms - allowed_ms <= seen_ms <= answer.answered_ms:
        return []
    aged_ms = answer.asked_ms - seen_ms
    return [f"{aged_ms} ms old when asked for, allowed {allowed_ms}: {answer.body['meta']}"]


def _of_failure(answer: Answer) -> list[str]:
    body, problems = answer.body, []
    if not set(body) >= FAILURE_FIELDS or body["success"] is not False:
        problems.append(f"{answer.status} in another shape: {body}")
    elif answer.code not in ALLOWED_CODES:
        problems.append(f"{answer.status} {answer.code}: {body['error']}")
    elif not body["retry_after_s"] or (
        answer.status in WITH_HEADER and "retry-after" not in answer.headers
    ):
        problems.append(f"{answer.code} does not say when to ask again")
    return problems
