"""The last looks in this process's memory, in front of the state store."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from api_pool.answers import Meta, Source
from api_pool.seen import Seen
from mt5kit.domain.instants import iso_utc, now_ms

# 400 sessions of 100 positions take 30 MB; beyond that the state store is asked.
MOST_BYTES: Final = 64 * 1024 * 1024
# What a kept look weighs besides its payload: its objects, and the rows cut out for one symbol.
OVERHEAD_BYTES: Final = 2048
# A hot account asks Redis four times a second instead of once a read.
CHECK_S: Final = 0.25
# While one reader asks, the others are answered from memory; so a look of another replica is
# answered at most so late. Redis takes a millisecond, and a hang of it must not go unnoticed.
LATEST_CHECK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Kept:
    """A look and where it came from; `as_of_ms` is when it last was true (UTC epoch ms)."""

    seen: Seen
    terminal_id: str
    instance_id: str
    source: Source
    as_of_ms: int
    as_of: str = field(init=False)

    def __post_init__(self) -> None:
        # Once a look, not once a read.
        object.__setattr__(self, "as_of", iso_utc(self.as_of_ms))

    @property
    def bytes(self) -> int:
        """About what it takes of memory."""
        return 2 * len(self.seen.payload) + OVERHEAD_BYTES

    def meta(self, account_id: str) -> Meta:
        """What is to be said of an answer with this look; its age is of this instant."""
        return Meta(
            account_id=account_id,
            terminal_id=self.terminal_id,
            instance_id=self.instance_id,
            source=self.source,
            as_of=self.as_of,
            age_ms=max(now_ms() - self.as_of_ms, 0),
        )

    def true_at(self, as_of_ms: int) -> "Kept":
        """The same look, seen to be still true later."""
        return replace(self, as_of_ms=as_of_ms)


@dataclass(slots=True)
class _Entry:
    kept: Kept
    checked_at: float
    checking: bool = False


class LookMemory:
    """Looks by account, bounded by their bytes; the ones read longest ago make room.

    Not thread-safe: of one event loop.

    Args:
        most_bytes: What all looks may take together.
        clock: Monotonic seconds.
    """

    def __init__(
        self, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """About what the looks take now."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def current(self, account_id: str) -> Kept | None:
        """The look, if it need not be compared with the state store.

        After `CHECK_S` one caller is told None, to ask the state store and `put` or `confirm`;
        the others follow when it has not done so after `LATEST_CHECK_S`.
        """
        entry = self._entries.get(account_id)
        if entry is None:
            return None
        age_s = self._clock() - entry.checked_at
        if age_s > CHECK_S and (age_s > LATEST_CHECK_S or not entry.checking):
            entry.checking = True
            return None
        self._entries.move_to_end(account_id)
        return entry.kept

    def last(self, account_id: str) -> Kept | None:
        """The look, however long ago it was compared with the state store."""
        entry = self._entries.get(account_id)
        if entry is None:
            return None
        self._entries.move_to_end(account_id)
        return entry.kept

    def put(self, account_id: str, kept: Kept) -> Kept:
        """Keep a look that was just made, or just read from the state store.

        Returns:
            What is kept now: this look, or a newer one of the same terminal that was here.
        """
        entry = self._entries.get(account_id)
        newer = entry is not None and (
            entry.kept.terminal_id == kept.terminal_id and entry.kept.as_of_ms > kept.as_of_ms
        )
        if entry is not None and newer:
            self._checked(account_id, entry)
            return entry.kept
        self.drop(account_id)
        self._entries[account_id] = _Entry(kept, self._clock())
        self._bytes += kept.bytes
        while self._bytes > self._most_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.kept.bytes
        return kept

    def confirm(self, account_id: str) -> Kept | None:
        """The state store holds no other look than ours: it is current again."""
        entry = self._entries.get(account_id)
        if entry is None:
            return None
        self._checked(account_id, entry)
        return entry.kept

    def drop(self, account_id: str) -> None:
        """Forget the look: the account was disconnected, deleted, or has new credentials."""
        entry = self._entries.pop(account_id, None)
        if entry is not None:
            self._bytes -= entry.kept.bytes

    def _checked(self, account_id: str, entry: _Entry) -> None:
        entry.checked_at = self._clock()
        entry.checking = False
        self._entries.move_to_end(account_id)
