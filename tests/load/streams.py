"""Live streams: latency, what replicas take, how many watchers they bear, and who only waits."""

import asyncio
import os
import tempfile
from pathlib import Path

import uvloop
from tests.cluster import Cluster, ClusterPlan, running_cluster
from tests.cluster_plan import account_at
from tests.load.figures import Table
from tests.load.stream_runs import FULL, QUICK, Size, measure_all
from tests.load.stream_tables import tables_of

# Accounts that one API terminal has room for.
SESSIONS = 20
POSITIONS = 5


def measure() -> list[Table]:
    """Measure a cluster of two WebSocket replicas; `QUICK=1` measures less for less long."""
    size = QUICK if os.environ.get("QUICK") == "1" else FULL
    with (
        tempfile.TemporaryDirectory(prefix="mt5-bench-") as directory,
        running_cluster(plan_of(size), Path(directory) / "cluster") as cluster,
    ):
        _assign_all(cluster)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return tables_of(runner.run(measure_all(cluster, size)))


def plan_of(size: Size) -> ClusterPlan:
    """A stream terminal for each account; the last accounts hold nothing."""
    accounts = size.moving + size.quiet
    return ClusterPlan(
        terminals=-(-accounts // SESSIONS),
        accounts=accounts,
        replicas=1,
        positions=POSITIONS,
        positions_of={account_at(n).account_id: 0 for n in range(size.moving, accounts)},
        stream_terminals=accounts,
        ws_replicas=2,
        # Streams are measured that nobody watches.
        ws_environment={"IDLE_S": "3600"},
    )


def _assign_all(cluster: Cluster) -> None:
    """Give every account its stream terminal; then the API is out of the way."""
    cluster.connect_all()
    for account in cluster.accounts.values():
        cluster.assign(account)
    for replica in cluster.replicas.values():
        replica.stop()
