"""What all watchers of a cluster have seen together: two of them must never differ."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations

import msgspec

# Of the text that stands in a reproach; the rest is in the other watcher's mouth.
SAMPLE = 400


@dataclass(frozen=True, slots=True)
class Place:
    """One number of an account's line."""

    account_id: str
    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.account_id} {self.epoch}:{self.seq}"


@dataclass(frozen=True, slots=True)
class Seen:
    """The digest of what somebody saw at a place, and the beginning of it."""

    digest: bytes
    who: str
    sample: str


@dataclass
class Ledger:
    """The evidence of many watchers.

    Attributes:
        wrong: Each breach of a promise, as a sentence, with what led to it.
        counts: How often each thing happened that is none.
        closed: How often sockets were closed with each code.
    """

    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    closed: Counter[int] = field(default_factory=Counter)
    _messages: dict[Place, Seen] = field(default_factory=dict)
    _states: dict[Place, Seen] = field(default_factory=dict)
    _tickets: dict[int, str] = field(default_factory=dict)
    # By account and epoch: the first and the last instant at which a terminal was looked at.
    _looks: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)

    def message(self, place: Place, text: bytes, who: str) -> str | None:
        """Note a numbered message; what is wrong if another one had its number."""
        return _agreed(self._messages, place, text, who, "a message")

    def state(self, place: Place, state: object, who: str) -> str | None:
        """Note the state that a watcher has come to; what is wrong if another came to another."""
        return _agreed(self._states, place, msgspec.json.encode(state), who, "the state")

    def looked(self, place: Place, instant: str) -> None:
        """Note when a terminal showed what a message tells, in ISO 8601."""
        epochs = self._looks.setdefault(place.account_id, {})
        first, last = epochs.get(place.epoch, (instant, instant))
        epochs[place.epoch] = min(first, instant), max(last, instant)

    def overlaps(self) -> list[str]:
        """Epochs that still advanced when a later one had begun to: two polled the account."""
        return [
            f"{account_id}: {epoch} was polled until {last}, {after} since {began}"
            for account_id, epochs in self._looks.items()
            for (epoch, (_, last)), (after, (began, _)) in combinations(sorted(epochs.items()), 2)
            if last > began
        ]

    def stranger(self, ticket: int, account_id: str) -> str | None:
        """Note whose a ticket is; what is wrong if it is another account's."""
        owner = self._tickets.setdefault(ticket, account_id)
        return None if owner == account_id else f"WRONG ACCOUNT: ticket {ticket} is of {owner}"


def _agreed(known: dict[Place, Seen], place: Place, text: bytes, who: str, what: str) -> str | None:
    digest = hashlib.blake2b(text, digest_size=16).digest()
    before = known.setdefault(place, Seen(digest, who, text[:SAMPLE].decode(errors="replace")))
    if before.digest == digest:
        return None
    return (
        f"{what} of {place} is another than {before.who} was told:"
        f"\n    {before.sample}\n    {text[:SAMPLE].decode(errors='replace')}"
    )
