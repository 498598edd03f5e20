"""Single-use tickets that open a socket."""

import hashlib
import secrets
from typing import Literal

import msgspec

from mt5kit.errors import Unauthenticated
from mt5kit.secret import Secret
from mt5kit.state.redis.connection import Lua, RedisStore

TICKET_TTL_S = 30.0
"""From the edge function's answer to the browser's handshake; a leaked URL is soon worthless."""

_TICKET_BYTES = 32
"""256 bits: guessing one is out of the question, so its plain SHA-256 may name the key."""

_LONGEST = 128
"""Nothing of ours is longer, or other than ASCII; what is cannot be a ticket."""

_REDEEM = Lua("""
-- KEYS ticket
local grant, left = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
return grant and {grant, left}
""")

Scope = Literal["account", "quotes"]


class TicketGrant(msgspec.Struct, frozen=True):
    """What a ticket opens: an account's stream (`account`), or quotes of a tier (`quotes`).

    `account_id` is empty for quotes. `until_ms` is when the authority that the first ticket gave
    ends, in UTC epoch milliseconds, however often it is passed on to a new ticket; 0 before that
    is known.
    """

    account_id: str
    user_id: str
    scope: Scope = "account"
    tier: str = "FREE"
    until_ms: int = 0


class Redeemed(msgspec.Struct, frozen=True):
    """A ticket taken out of the store, and the milliseconds it had left to live."""

    ticket: Secret
    grant: TicketGrant
    left_ms: int


class TicketStore(RedisStore):
    """Tickets by their hash. Every method raises `StateUnavailable` while Redis is away."""

    __slots__ = ()

    async def issue(
        self,
        account_id: str,
        user_id: str,
        ttl_s: float = TICKET_TTL_S,
        scope: Scope = "account",
        tier: str = "FREE",
        *,
        until_ms: int = 0,
    ) -> str:
        """A new ticket, URL-safe; Redis never learns it."""
        ticket = secrets.token_urlsafe(_TICKET_BYTES)
        value = msgspec.json.encode(TicketGrant(account_id, user_id, scope, tier, until_ms))
        await self._command("SET", self._key(ticket), value, "PX", round(ttl_s * 1000))
        return ticket

    async def redeem(self, ticket: str) -> Redeemed:
        """What the ticket grants; it is worthless from here on, unless it is put back.

        Raises:
            Unauthenticated: It is unknown, used, or too old.
        """
        answer = await self._run(_REDEEM, (self._key(ticket),))
        if not answer:
            raise Unauthenticated("the ticket is unknown, used or expired")
        grant = msgspec.json.decode(answer[0], type=TicketGrant)
        return Redeemed(Secret(ticket), grant, int(answer[1]))

    async def put_back(self, redeemed: Redeemed) -> None:
        """Let a ticket that opened nothing open something yet, in what time it had left."""
        value = msgspec.json.encode(redeemed.grant)
        key = self._key(redeemed.ticket.reveal())
        await self._command("SET", key, value, "PX", max(1, redeemed.left_ms))

    async def renew(self, ticket: str, ttl_s: float) -> bool:
        """Let an unused ticket live for another `ttl_s` from now; False if it is gone."""
        return bool(await self._command("PEXPIRE", self._key(ticket), round(ttl_s * 1000)))

    async def discard(self, ticket: str) -> None:
        """End a ticket that nobody shall use."""
        await self._command("DEL", self._key(ticket))

    def _key(self, ticket: str) -> str:
        if len(ticket) > _LONGEST or not ticket.isascii():
            raise Unauthenticated("the ticket is unknown, used or expired")
        return self._keys.ticket(hashlib.sha256(ticket.encode()).hexdigest())
