"""The Redis stores: leases, placement, live state, snapshots, tickets, control.

What is atomic is one Lua script. Every call raises only errors of `mt5kit.errors`:
`StateUnavailable` while Redis is away or full, `RedisFault` for a mistake of ours.
"""

from redis.asyncio import Redis

from mt5kit.state.keys import Keys, Role
from mt5kit.state.redis.connection import RedisFault, StateUnavailable, open_redis
from mt5kit.state.redis.control import Control, ControlChannel
from mt5kit.state.redis.lease_keeper import KeeperPlan, LeaseKeeper
from mt5kit.state.redis.leases import LEASE_TTL_MS, Lease, LeaseStore
from mt5kit.state.redis.live import Frame, LiveState, LiveStore
from mt5kit.state.redis.placement import PlacementStore, StreamPlacementStore
from mt5kit.state.redis.probe import RedisProbe
from mt5kit.state.redis.snapshots import CachedSnapshot, SnapshotCache
from mt5kit.state.redis.tickets import Redeemed, TicketGrant, TicketStore

__all__ = [
    "LEASE_TTL_MS",
    "CachedSnapshot",
    "Control",
    "ControlChannel",
    "Frame",
    "KeeperPlan",
    "Keys",
    "Lease",
    "LeaseKeeper",
    "LeaseStore",
    "LiveState",
    "LiveStore",
    "PlacementStore",
    "Redeemed",
    "Redis",
    "RedisFault",
    "RedisProbe",
    "Role",
    "SnapshotCache",
    "StateUnavailable",
    "StreamPlacementStore",
    "TicketGrant",
    "TicketStore",
    "open_redis",
]
