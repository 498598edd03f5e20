"""Every Redis key there is: its type, how long it lives, who writes it."""

from typing import Literal

import msgspec

Role = Literal["api", "stream", "market"]
"""What a terminal is for; also which pool leases it."""


class Keys(msgspec.Struct, frozen=True):
    """Names of all keys below one prefix. No name and no ticket's key reveals a secret."""

    prefix: str = "mt5"

    def lease(self, terminal_id: str) -> str:
        """Hash {owner, token, url}; TTL of the lease (10 s); written by the owner's keeper."""
        return f"{self.prefix}:lease:{terminal_id}"

    def fence(self, terminal_id: str) -> str:
        """String, the highest token ever given; TTL 7 days; written with the lease."""
        return f"{self.prefix}:fence:{terminal_id}"

    def replicas(self, role: Role) -> str:
        """Sorted set replica → last heartbeat in ms; TTL of a lease; written by every keeper."""
        return f"{self.prefix}:replicas:{role}"

    def memory(self) -> str:
        """String "<run id> <ms>": since when Redis has forgotten nothing; no TTL; by every keeper.

        Another run id than its own, or no string, and it has forgotten something just now.
        """
        return f"{self.prefix}:memory"

    def releases(self, role: Role) -> str:
        """Channel, not a key: owners that gave a terminal back; sent with the release."""
        return f"{self.prefix}:releases:{role}"

    def placements(self, role: Role) -> str:
        """Hash account → terminal; no TTL, it is a record; written by the API pool."""
        return f"{self.prefix}:placements:{role}"

    def sessions(self, role: Role, terminal_id: str) -> str:
        """Sorted set account → last use in ms, of a terminal; no TTL; written with `placements`."""
        return f"{self.prefix}:used:{role}:{terminal_id}"

    def stream_of(self, account_id: str) -> str:
        """String, the stream terminal of an account; TTL of the reservation; see `occupant`."""
        return f"{self.prefix}:stream_of:{account_id}"

    def occupant(self, terminal_id: str) -> str:
        """String, the one account of a stream terminal; TTL of the reservation.

        Written by the API pool at assignment, refreshed and freed by the terminal's owner.
        """
        return f"{self.prefix}:occupant:{terminal_id}"

    def live(self, account_id: str) -> str:
        """Hash, newest state of a streamed account; TTL 60 s; written by the stream's owner."""
        return f"{self.prefix}:live:{account_id}"

    def replay(self, account_id: str) -> str:
        """Stream {h: head, t: text} of messages under `<epoch>-<seq>`; TTL 60 s after the last.

        Written with `live`.
        """
        return f"{self.prefix}:replay:{account_id}"

    def watching(self, account_id: str) -> str:
        """Sorted set replica → last heard of in ms; TTL 10 s; written by the account's followers.

        They serve its sockets and are not its owner.
        """
        return f"{self.prefix}:watching:{account_id}"

    def relay(self, replica: str) -> str:
        """Channel, not a key: messages for the accounts a replica follows; sent with `live`.

        Also requests to an owner to stream an account; sent by the other replicas.
        """
        return f"{self.prefix}:relay:{replica}"

    def sockets(self, user_id: str) -> str:
        """Sorted set socket → when it counts no more, in ms; TTL until the last does.

        Written by the replicas that hold the sockets.
        """
        return f"{self.prefix}:sockets:{user_id}"

    def snapshot(self, account_id: str) -> str:
        """Hash, last look of an API terminal; TTL 10 min; written by the terminal's owner."""
        return f"{self.prefix}:snapshot:{account_id}"

    def pages(self, account_id: str) -> str:
        """Hash page → encoded history page; TTL 10 min; written by the terminal's owner."""
        return f"{self.prefix}:pages:{account_id}"

    def page_order(self, account_id: str) -> str:
        """Sorted set page → when it was kept, in ms; TTL 10 min; written with `pages`."""
        return f"{self.prefix}:page_order:{account_id}"

    def demand(self, terminal_id: str) -> str:
        """Hash account → reads not yet counted; TTL 60 s; added to by any replica of the API pool.

        The terminal's owner takes it away.
        """
        return f"{self.prefix}:demand:{terminal_id}"

    def share(self, kind: str, caller: str) -> str:
        """Hash replica → "<requests per s> <ms>"; TTL 3 s; written by the replicas of the API pool.

        `caller` is an identifier, never a key's text.
        """
        return f"{self.prefix}:share:{kind}:{caller}"

    def connects(self, user_id: str) -> str:
        """String, when the user's bucket of connects is full again; TTL until then; API pool."""
        return f"{self.prefix}:connects:{user_id}"

    def logins(self, server: str) -> str:
        """String, when a broker server's login budget is whole again, in µs; TTL until then.

        Written by whoever is about to log in.
        """
        return f"{self.prefix}:logins:{server}"

    def board(self, role: Role) -> str:
        """Hash terminal → "<ms> <entry>"; TTL 60 s; written by the terminals' owners."""
        return f"{self.prefix}:board:{role}"

    def sync(self, sync_id: str) -> str:
        """Hash, a sync job and who works on it; TTL 24 h; written by the API pool."""
        return f"{self.prefix}:sync:{sync_id}"

    def sync_of(self, account_id: str) -> str:
        """String, the account's unfinished sync job; TTL 24 h; written with `sync`."""
        return f"{self.prefix}:sync_of:{account_id}"

    def syncs(self) -> str:
        """Sorted set of unfinished sync jobs by creation in ms; TTL 24 h; written with `sync`."""
        return f"{self.prefix}:syncs"

    def ticket(self, digest: str) -> str:
        """String, what a ticket grants; TTL of the ticket; named by the ticket's SHA-256 only."""
        return f"{self.prefix}:ticket:{digest}"

    def control(self, account_id: str) -> str:
        """Channel, not a key: orders to whoever streams the account; sent by the API pool."""
        return f"{self.prefix}:control:{account_id}"
