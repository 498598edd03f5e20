"""The Postgres stores: accounts, what workers record, audit.

Every call names in its transaction the user or the account that it is about; row security shows
it nothing else. Every call raises only errors of `mt5kit.errors`: `DatabaseUnavailable` while
Postgres is away or overrun, `DatabaseFault` for a mistake of ours.
"""

from mt5kit.state.postgres.accounts import AccountStore
from mt5kit.state.postgres.audit import AuditEntry, AuditStore
from mt5kit.state.postgres.database import (
    Database,
    DatabaseFault,
    DatabaseUnavailable,
    ValueRefused,
)
from mt5kit.state.postgres.keys import KeyStore, WrappedRow
from mt5kit.state.postgres.request_logs import RequestLog
from mt5kit.state.postgres.roles import RolePasswords
from mt5kit.state.postgres.rows import AccountError, AccountRow, Standing, StoredLogin, WorkerLogin
from mt5kit.state.postgres.subscriptions import ClosedSocket, OpenSocket, SubscriptionStore
from mt5kit.state.postgres.worker import InstanceReport, WorkerStore

__all__ = [
    "AccountError",
    "AccountRow",
    "AccountStore",
    "AuditEntry",
    "AuditStore",
    "ClosedSocket",
    "Database",
    "DatabaseFault",
    "DatabaseUnavailable",
    "InstanceReport",
    "KeyStore",
    "OpenSocket",
    "RequestLog",
    "RolePasswords",
    "Standing",
    "StoredLogin",
    "SubscriptionStore",
    "ValueRefused",
    "WorkerLogin",
    "WorkerStore",
    "WrappedRow",
]
