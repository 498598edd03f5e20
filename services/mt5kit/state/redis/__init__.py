"""The Redis stores: leases, placement, live state, caches, tickets, control, budgets, jobs.

What is atomic is one Lua script. Every call raises only errors of `mt5kit.errors`:
`StateUnavailable` while Redis is away or full, `RedisFault` for a mistake of ours.
"""

from redis.asyncio import Redis

from mt5kit.state.keys import Keys, Role
from mt5kit.state.redis.board import BOARD_TTL_MS, BoardStore, TerminalEntry
from mt5kit.state.redis.connection import RedisFault, StateFull, StateUnavailable, open_redis
from mt5kit.state.redis.control import Control, ControlChannel
from mt5kit.state.redis.demand import DemandStore
from mt5kit.state.redis.history_cache import CachedPage, HistoryCache
from mt5kit.state.redis.keeper_plan import KeeperPlan
from mt5kit.state.redis.lease_keeper import LeaseKeeper
from mt5kit.state.redis.leases import LEASE_TTL_MS, Lease, LeaseStore
from mt5kit.state.redis.live import INTEREST_MS, Claim, Followed, LiveState, LiveStore, Taken
from mt5kit.state.redis.login_budget import LoginBudgetStore
from mt5kit.state.redis.placement import PlacementStore
from mt5kit.state.redis.probe import RedisProbe
from mt5kit.state.redis.relay import Frame, Relayed
from mt5kit.state.redis.shares import ShareStore
from mt5kit.state.redis.snapshots import CachedSnapshot, SnapshotCache
from mt5kit.state.redis.sockets import SocketCounts
from mt5kit.state.redis.stream_placement import StreamPlacementStore
from mt5kit.state.redis.sync_jobs import SyncError, SyncJob, SyncStatus, SyncStore
from mt5kit.state.redis.tickets import Redeemed, TicketGrant, TicketStore
from mt5kit.state.redis.users import acl_file

__all__ = [
    "BOARD_TTL_MS",
    "INTEREST_MS",
    "LEASE_TTL_MS",
    "BoardStore",
    "CachedPage",
    "CachedSnapshot",
    "Claim",
    "Control",
    "ControlChannel",
    "DemandStore",
    "Followed",
    "Frame",
    "HistoryCache",
    "KeeperPlan",
    "Keys",
    "Lease",
    "LeaseKeeper",
    "LeaseStore",
    "LiveState",
    "LiveStore",
    "LoginBudgetStore",
    "PlacementStore",
    "Redeemed",
    "Redis",
    "RedisFault",
    "RedisProbe",
    "Relayed",
    "Role",
    "ShareStore",
    "SnapshotCache",
    "SocketCounts",
    "StateFull",
    "StateUnavailable",
    "StreamPlacementStore",
    "SyncError",
    "SyncJob",
    "SyncStatus",
    "SyncStore",
    "Taken",
    "TerminalEntry",
    "TicketGrant",
    "TicketStore",
    "acl_file",
    "open_redis",
]
