"""Which terminal an account takes turns on."""

from collections.abc import Mapping, Sequence

from redis.asyncio import Redis

from mt5kit.errors import ServiceOverloaded
from mt5kit.state.keys import Keys, Role
from mt5kit.state.redis.connection import RedisStore
from mt5kit.state.redis.placement_scripts import COUNTS, DROP_IDLE, MOVE, PLACE, REMOVE, TOUCH

FULL_RETRY_AFTER_S = 30.0
"""Where sessions are not dropped for idleness, somebody has to disconnect: that takes a while."""

_NEVER = -1
_SHORTEST_WAIT_S = 1.0
"""Whoever is to come back in milliseconds had better been served now."""


class PlacementStore(RedisStore):
    """Accounts that share terminals by turns: the API role, and the market role if it needs to.

    An account is on one terminal at most. Every method raises `StateUnavailable` while Redis is
    away; those that place also while it is full.
    """

    __slots__ = ("_role",)

    def __init__(self, redis: Redis, keys: Keys, role: Role = "api") -> None:
        super().__init__(redis, keys)
        self._role: Role = role

    async def place(
        self,
        account_id: str,
        candidates: Sequence[str],
        *,
        keep: Sequence[str] | None = None,
        capacity: int | Mapping[str, int] = 2**31,
        idle_ms: int | None = None,
    ) -> str:
        """The account's terminal: the one it has if it may stay, else the emptiest with room.

        If none has room, the sessions unused for longest make room where they have been idle for
        long enough. Being placed counts as use.

        Args:
            account_id: The caller's identifier.
            candidates: Terminals that take accounts; of equally empty ones the first is taken.
            keep: Terminals on which an account may stay, full or not; the candidates unless given.
            capacity: Sessions a terminal may have; where they are given by terminal, one that is
                not named takes none.
            idle_ms: How long a session must have been idle to give way; never unless given.

        Raises:
            ServiceOverloaded: There is no room; `retry_after_s` is when the first session will
                have been idle for long enough, at least a second.
        """
        limits = capacity if isinstance(capacity, Mapping) else dict.fromkeys(candidates, capacity)
        stay = candidates if keep is None else keep
        rooms = [part for one in candidates for part in (one, limits.get(one, 0))]
        args = (account_id, self._used(""), _NEVER if idle_ms is None else idle_ms)
        answer = await self._run(PLACE, (self._record,), *args, len(stay), *stay, *rooms)
        if isinstance(answer, bytes):
            return answer.decode()
        wait_s = FULL_RETRY_AFTER_S if answer is None else answer / 1000
        raise ServiceOverloaded("no terminal has room", retry_after_s=max(_SHORTEST_WAIT_S, wait_s))

    async def where(self, account_id: str) -> str | None:
        """The terminal an account is placed on."""
        terminal = await self._command("HGET", self._record, account_id)
        return terminal.decode() if terminal else None

    async def where_many(self, account_ids: Sequence[str]) -> Mapping[str, str]:
        """The terminals of those accounts that are placed."""
        if not account_ids:
            return {}
        terminals = await self._command("HMGET", self._record, *account_ids)
        pairs = zip(account_ids, terminals, strict=True)
        return {account: terminal.decode() for account, terminal in pairs if terminal}

    async def remove(self, account_id: str) -> bool:
        """Forget an account's place; False if it had none."""
        return await self.remove_if(account_id, "")

    async def remove_if(self, account_id: str, terminal_id: str) -> bool:
        """Forget an account's place if it is on that terminal; False if it is not."""
        args = (account_id, self._used(""), terminal_id)
        return bool(await self._run(REMOVE, (self._record,), *args))

    async def sessions(self, terminal_id: str) -> Mapping[str, int]:
        """The accounts on a terminal and their last use in UTC epoch ms, longest unused first."""
        flat = await self._command("ZRANGE", self._used(terminal_id), 0, -1, "WITHSCORES")
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return {account.decode(): int(float(used)) for account, used in pairs}

    async def counts(self, terminals: Sequence[str]) -> Mapping[str, int]:
        """How many accounts each of these terminals has."""
        if not terminals:
            return {}
        counts = await self._run(COUNTS, [self._used(terminal) for terminal in terminals])
        return dict(zip(terminals, counts, strict=True))

    async def touch(self, used: Mapping[str, int]) -> None:
        """Say when accounts were last used, in UTC epoch ms; those not placed are passed over.

        A time before the last known use changes nothing, one in the future counts as now.
        """
        if used:
            flat = [part for pair in used.items() for part in pair]
            await self._run(TOUCH, (self._record,), self._used(""), *flat)

    async def drop_idle(self, terminal_id: str, older_than_ms: int) -> tuple[str, ...]:
        """Forget the sessions of a terminal that were not used for so many ms; which they were."""
        keys = (self._record, self._used(terminal_id))
        dropped = await self._run(DROP_IDLE, keys, terminal_id, older_than_ms)
        return tuple(account.decode() for account in dropped)

    async def move(self, account_id: str, source: str, target: str, *, capacity: int) -> bool:
        """Give an account to another terminal; its last use goes with it.

        Returns:
            Whether the account is on the target now; False, and nothing changed, if it was not on
            the source (nor on the target already) or the target has no room.
        """
        keys = (self._record, self._used(source), self._used(target))
        return bool(await self._run(MOVE, keys, account_id, source, target, capacity))

    @property
    def _record(self) -> str:
        return self._keys.placements(self._role)

    def _used(self, terminal_id: str) -> str:
        return self._keys.sessions(self._role, terminal_id)
