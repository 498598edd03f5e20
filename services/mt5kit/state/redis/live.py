"""The newest state of a streamed account and its last messages, for every other replica."""

from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
from redis.asyncio import Redis

from mt5kit.errors import StaleToken
from mt5kit.state.keys import Keys
from mt5kit.state.redis import live_scripts as scripts
from mt5kit.state.redis.connection import RedisStore
from mt5kit.state.redis.relay import Frame, Relayed, relayed, wanted
from mt5kit.state.redis.script_batch import ScriptBatch
from mt5kit.state.redis.subscription import ignore_standing

LIVE_TTL_MS = 60_000
"""As long as a reader may resume; what is older has lost its owner."""

REPLAY_LENGTH = 500
"""Messages kept for resuming; the owner trims by bytes besides."""

INTEREST_MS = 10_000
"""A follower says every 2 s that it is there: after five silences it has gone."""


class LiveState(msgspec.Struct, frozen=True):
    """What a stream stands at.

    `payload` is the newest look as JSON of `mt5kit.domain.snapshots.Snapshot`, one terminal turn,
    empty before the first; `as_of_ms` is the last successful look in UTC epoch milliseconds and
    moves without `seq`. `told` is what sockets know after exactly `seq`, opaque here: messages are
    spaced out, so it may be a moment behind the look.
    """

    epoch: int
    seq: int
    as_of_ms: int
    terminal_id: str
    instance_id: str
    payload: bytes = b""
    told: bytes = b""


class Followed(msgspec.Struct, frozen=True):
    """Where a line stands, and how a follower gets there.

    With `told` None, by `frames` alone; they are all that it missed. Otherwise by `told`, which is
    of exactly `seq`, and `frames` are the unbroken messages that end at `seq`, to be replayed.
    `silent_ms` is how long no owner has written.
    """

    epoch: int
    seq: int
    as_of_ms: int
    instance_id: str
    told: bytes | None
    frames: tuple[Frame, ...]
    silent_ms: int = 0


class Taken(msgspec.Struct, frozen=True):
    """A line to go on with: the next message is `seq` + 1 of `epoch`.

    `told` is of exactly `seq`; `frames` are the unbroken messages that end at `seq`.
    """

    epoch: int
    seq: int
    told: bytes
    frames: tuple[Frame, ...]


class Claim(msgspec.Struct, frozen=True):
    """What a new owner finds.

    `taken` is the line to go on with, None where a new epoch has to be opened. `remembers_ms` is
    for how long Redis has forgotten nothing: if only since a moment, somebody else may poll the
    account on another terminal, and find out at its next write that it is not the owner.
    """

    taken: Taken | None
    remembers_ms: int


class LiveStore(RedisStore):
    """Live states. Every method raises `StateUnavailable` while Redis is away.

    In a full Redis all work but `publish`, which raises `StateFull` and has changed nothing.
    Repeating any call is harmless. What is published and touched of many accounts at the same time
    shares round trips, so use one store for all of them.
    """

    __slots__ = ("_batch",)

    def __init__(self, redis: Redis, keys: Keys) -> None:
        super().__init__(redis, keys)
        self._batch = ScriptBatch(redis)

    async def publish(
        self,
        account_id: str,
        token: int,
        state: LiveState,
        frames: Sequence[Frame],
        *,
        oldest_seq: int = 0,
    ) -> None:
        """Write the state, append the messages that led to it, and relay those to the followers.

        Frames that Redis has are neither appended nor relayed again. A new epoch is relayed as a
        `look` before its frames. The line is no longer handed over.

        Args:
            account_id: Whose stream.
            token: The writer's lease token.
            state: Where the stream stands after the frames.
            frames: State messages of `state.epoch`, ascending, none beyond `state.seq`.
            oldest_seq: Messages below it are dropped, so that the owner's byte bound holds here.

        Raises:
            StaleToken: A newer owner has been there, or the stream was dropped under this token.
                Or the line in Redis is ahead of the state, for the epoch was opened twice. Lease
                the terminal anew.
            StateFull: Redis has no memory left.
            ValueError: The frames are out of order.
        """
        numbers = [frame.seq for frame in frames]
        if numbers != sorted(set(numbers)) or (numbers and numbers[-1] > state.seq):
            raise ValueError("frames ascend and end at the state's seq")
        body = (state.as_of_ms, state.terminal_id, state.instance_id, state.payload, state.told)
        oldest = max(oldest_seq, state.seq - REPLAY_LENGTH + 1)
        bounds = (LIVE_TTL_MS, oldest, *self._relaying(account_id))
        flat = [part for frame in frames for part in (frame.seq, frame.head, frame.text)]
        args = (token, state.epoch, state.seq, *body, *bounds, *flat)
        keys = self._guarded(account_id, state.terminal_id)
        _refuse_stale(await self._batch.run(scripts.PUBLISH, keys, *args))

    async def touch(self, account_id: str, token: int, as_of_ms: int, terminal_id: str) -> bool:
        """Say that the state was still true at `as_of_ms`.

        Returns:
            False if there is nothing to touch, or not what this owner wrote in this life of Redis:
            then publish.

        Raises:
            StaleToken: A newer owner has been there.
        """
        keys = self._guarded(account_id, terminal_id)[:2]
        answer = await self._batch.run(scripts.TOUCH, keys, token, as_of_ms, LIVE_TTL_MS)
        _refuse_stale(answer)
        return bool(answer)

    async def drop(self, account_id: str, token: int, terminal_id: str) -> None:
        """Remove the state of a stream that has ended; followers are told to look.

        Its next owner needs a newer token to publish.

        Raises:
            StaleToken: A newer owner has been there.
        """
        keys = self._guarded(account_id, terminal_id)
        _refuse_stale(
            await self._run(scripts.DROP, keys, token, LIVE_TTL_MS, *self._relaying(account_id))
        )

    async def read(self, account_id: str) -> LiveState | None:
        """The newest state, None if nobody streams the account or nobody has looked yet."""
        fields = ("epoch", "seq", "as_of", "terminal", "instance", "payload", "told")
        epoch, seq, as_of, terminal, instance, payload, told = await self._command(
            "HMGET", self._keys.live(account_id), *fields
        )
        if not payload:
            return None
        return LiveState(
            int(epoch), int(seq), int(as_of), terminal.decode(), instance.decode(), payload, told
        )

    async def hand_over(
        self, account_id: str, token: int, epoch: int, seq: int, terminal_id: str
    ) -> bool:
        """Leave the line to the next owner; whoever calls it gives no more numbers.

        Returns:
            False if Redis does not stand at exactly what this owner said last, in this life of
            Redis: the next owner opens a new epoch.

        Raises:
            StaleToken: A newer owner has been there.
        """
        keys = self._guarded(account_id, terminal_id)[:2]
        answer = await self._run(scripts.HAND_OVER, keys, token, epoch, seq, LIVE_TTL_MS)
        _refuse_stale(answer)
        return bool(answer)

    async def take_over(self, account_id: str, token: int, terminal_id: str) -> Claim:
        """Claim an account: all that earlier owners write is refused from here on.

        A line that was handed over in this life of Redis can be gone on with, once. If there is
        none, or an earlier call took it and its answer was lost, open a new epoch. A Redis that
        started again may have forgotten the last numbers.

        Raises:
            StaleToken: A newer owner has been there.
        """
        keys = (*self._guarded(account_id, terminal_id)[:3], self._keys.memory())
        answer = await self._run(scripts.TAKE_OVER, keys, token, LIVE_TTL_MS)
        if isinstance(answer, int):
            _refuse_stale(answer)
        remembers_ms, *line = answer
        if not line:
            return Claim(None, remembers_ms)
        epoch, seq, told, entries = line
        taken = Taken(int(epoch), int(seq), told, _unbroken(entries, int(seq)))
        return Claim(taken, remembers_ms)

    async def follow(
        self, account_id: str, replica: str, epoch: int, after_seq: int
    ) -> Followed | None:
        """Where the line stands, from `after_seq` of `epoch` (0 and 0: from nothing).

        The replica counts as a follower for `INTEREST_MS` from here on, also if there is no line
        (None), or none that an owner has written to in this life of Redis: an older file may tell
        of an epoch as it stood before its end. A follower that is ahead, since Redis never got an
        owner's last words, is told nothing: `told` None, no frames, and a lower `seq`.
        """
        keys = self._keys
        names = (keys.live(account_id), keys.replay(account_id), keys.watching(account_id))
        answer = await self._run(scripts.FOLLOW, names, replica, INTEREST_MS, epoch, after_seq)
        if answer is None:
            return None
        now, seq, as_of, instance, told, entries, left_ms = answer
        frames = _unbroken(entries, int(seq))
        where = int(now), int(seq), int(as_of), instance.decode()
        return Followed(*where, told, frames, max(0, LIVE_TTL_MS - int(left_ms)))

    async def unfollow(self, account_id: str, replica: str) -> None:
        """Be told no more of the account."""
        await self._command("ZREM", self._keys.watching(account_id), replica)

    async def followers(self, account_id: str) -> int:
        """How many replicas follow the account, heard of within `INTEREST_MS`."""
        keys = (self._keys.watching(account_id),)
        return int(await self._run(scripts.FOLLOWERS, keys, INTEREST_MS))

    async def ask(self, owner: str, account_id: str) -> int:
        """Ask the replica that owns a stream terminal to stream its account; how many heard it."""
        return int(await self._command("PUBLISH", self._keys.relay(owner), wanted(account_id)))

    async def listen(
        self, replica: str, stands: Callable[[], None] = ignore_standing
    ) -> AsyncIterator[Relayed]:
        """Everything relayed to a replica from now on, for ever; outlives Redis restarts.

        Args:
            replica: Who listens.
            stands: Told whenever the subscription stands (again): what was sent before is lost,
                so follow again.
        """
        async for told in relayed(self._redis, self._keys.relay(replica), stands):
            yield told

    def _guarded(self, account_id: str, terminal_id: str) -> tuple[str, str, str, str]:
        keys = self._keys
        line = keys.replay(account_id), keys.watching(account_id)
        return keys.live(account_id), keys.fence(terminal_id), *line

    def _relaying(self, account_id: str) -> tuple[int, str, str]:
        return INTEREST_MS, self._keys.relay(""), account_id


def _unbroken(entries: Sequence[tuple[bytes, Sequence[bytes]]], last: int) -> tuple[Frame, ...]:
    """The longest run of messages without a gap that ends at `last`, ascending."""
    run: list[Frame] = []
    for name, (_, head, _, text) in reversed(entries):
        seq = int(name.partition(b"-")[2])
        if seq != last - len(run):
            break
        run.append(Frame(seq, head, text))
    return tuple(reversed(run))


def _refuse_stale(answer: int) -> None:
    if answer == -1:
        raise StaleToken("a newer owner streams this account", retry_after_s=1)
