"""`make read-faults`: what reads answer while terminals and logins fail, and how soon they mend.

Writes docs/read-faults.md.
"""

import asyncio
import datetime as dt
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from tests.cluster import SERVER, Cluster, ClusterAccount, ClusterPlan, running_cluster
from tests.cluster_client import Answer, ClusterClient
from tests.judge import Judge
from tests.load.figures import Table

PAGE = Path(__file__).parents[2] / "docs/read-faults.md"
PLAN = ClusterPlan(terminals=2, accounts=6, replicas=1, login_seconds=0.1)
HEAD = """# Reads under faults

Written by `make read-faults` on {date} UTC.

"""
FRESH: Mapping[str, int] = {"fresh": 1}
# As old as a caller takes without being told otherwise.
DEFAULT: Mapping[str, int] = {}
THINK_S = 0.05
# Reads run so long before a fault begins.
LEAD_S = 0.5
# Past this they are said not to be good again, and the terminal is started anew.
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Case:
    """A fault and how long it is on.

    Args:
        name: In the simulator's catalogue.
        parameters: Of the fault.
        hold_s: It is mended after so long; None for one that ends by itself.
        at_broker: Of all terminals, rather than of one.
        what: What is read.
    """

    name: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    hold_s: float | None = None
    at_broker: bool = False
    what: str = "snapshot"

    @property
    def told(self) -> str:
        """As it is written on a command line."""
        words = (f"{key}={value}" for key, value in self.parameters.items() if key != "password")
        return " ".join((self.name, *words))


CASES = (
    Case("latency", {"ms": 300}, hold_s=4),
    Case("freeze", {"hold_s": 5}),
    Case("freeze", {"hold_s": 25}),
    Case("crash"),
    Case("crash_in_call"),
    Case("ipc_error", {"code": -10004}, hold_s=4),
    Case("slow_login", {"login_s": 3}, hold_s=4),
    Case("broker_disconnected", hold_s=4),
    Case("history_empty", {"ready_s": 2}, hold_s=4, what="history/deals"),
    Case("account_switched"),
    Case("autotrading_off", hold_s=2),
    Case("memory_growth", {"mb_per_s": 50, "limit_mb": 100}, hold_s=2),
    Case("unstable_link", {"delay_ms": 50, "jitter_ms": 30}, hold_s=4),
    Case("unstable_link", {"loss": 0.1, "how": "cut"}, hold_s=4),
    Case("unstable_link", {"loss": 0.1, "how": "silence"}, hold_s=4),
    Case("login_rejected", hold_s=3, at_broker=True),
    Case("login_rate_limit", {"count": 3, "window_s": 30}, hold_s=3, at_broker=True),
)


@dataclass
class Seen:
    """What reads answered from the beginning of a fault until they were good again.

    Attributes:
        fresh: Codes of reads with `fresh=1`.
        kept: Codes of reads at the default age.
        first_error_s: After the beginning.
        slowest_s: Of the good reads with `fresh=1`.
        good_again_s: After the end; None when they were not, in time.
        wrong: Answers of another account.
        reconnected: Accounts that the broker had refused and that were connected anew.
    """

    fresh: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    first_error_s: float | None = None
    slowest_s: float = 0.0
    good_again_s: float | None = None
    wrong: int = 0
    reconnected: int = 0

    def row(self, case: Case) -> tuple[str, ...]:
        """Of the table."""
        again = "not" if self.good_again_s is None else f"{self.good_again_s:.1f}"
        if self.reconnected:
            again += f", {self.reconnected} connected anew"
        return (
            f"`{case.told}`",
            _counted(self.fresh),
            _counted(self.kept),
            "none" if self.first_error_s is None else f"{self.first_error_s:.2f}",
            f"{self.slowest_s:.2f}",
            again,
            str(self.wrong),
        )


class Trial:
    """One fault.

    Args:
        cluster: Where.
        case: Which.
        terminal_id: The terminal that has it, unless the broker has.
        accounts: Those to read: of that terminal, or all.
        judge: Knows what belongs to whom.
    """

    def __init__(
        self,
        cluster: Cluster,
        case: Case,
        terminal_id: str,
        accounts: list[ClusterAccount],
        judge: Judge,
    ) -> None:
        self.seen = Seen()
        self._cluster = cluster
        self._case = case
        self._terminal_id = terminal_id
        self._accounts = accounts
        self._judge = judge
        self._began_s: float | None = None
        self._over = False

    async def run(self) -> Seen:
        """Read, break, mend, and read until it is good again."""
        async with ClusterClient(self._cluster) as client, asyncio.TaskGroup() as group:
            group.create_task(self._read(client, FRESH, self.seen.fresh))
            group.create_task(self._read(client, DEFAULT, self.seen.kept))
            await asyncio.sleep(LEAD_S)
            ended_s = await self._break_and_mend()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._until_good(client)
                self.seen.good_again_s = time.monotonic() - ended_s
            except TimeoutError:
                await asyncio.to_thread(self._cluster.restart_terminal, self._terminal_id)
            self._over = True
        return self.seen

    async def _break_and_mend(self) -> float:
        """Begin the fault and see it end; monotonic seconds of its end."""
        case, cluster = self._case, self._cluster
        self._began_s = time.monotonic()
        where = None if case.at_broker else self._terminal_id
        (fault,) = await asyncio.to_thread(cluster.fault, case.name, where, **case.parameters)
        if case.hold_s is not None:
            await asyncio.sleep(case.hold_s)
            await asyncio.to_thread(cluster.mend, fault)
        while await asyncio.to_thread(cluster.active_faults):
            await asyncio.sleep(THINK_S)
        return time.monotonic()

    async def _until_good(self, client: ClusterClient) -> None:
        """Until each account has been read fresh; those refused by the broker connect anew."""
        for account in self._accounts:
            while not (answer := await client.read(account, self._case.what, params=FRESH)).ok:
                if answer.code == "MT5_LOGIN_FAILED":
                    self.seen.reconnected += (await client.connect(account)).ok
                await asyncio.sleep(THINK_S)

    async def _read(
        self, client: ClusterClient, age: Mapping[str, int], codes: Counter[str]
    ) -> None:
        while not self._over:
            for account in self._accounts:
                answer = await client.read(account, self._case.what, params=age)
                if self._began_s is not None:
                    self._note(answer, codes)
                await asyncio.sleep(THINK_S)

    def _note(self, answer: Answer, codes: Counter[str]) -> None:
        seen = self.seen
        codes[answer.code] += 1
        if answer.ok:
            seen.wrong += bool(self._judge.content_problems(answer))
            if codes is seen.fresh:
                took_s = (answer.answered_ms - answer.asked_ms) / 1000
                seen.slowest_s = max(seen.slowest_s, took_s)
        elif seen.first_error_s is None and self._began_s is not None:
            seen.first_error_s = time.monotonic() - self._began_s


async def _placed(cluster: Cluster) -> dict[str, list[ClusterAccount]]:
    """The accounts of each terminal."""
    placed: dict[str, list[ClusterAccount]] = {name: [] for name in cluster.terminals}
    async with ClusterClient(cluster) as client:
        for account in cluster.accounts.values():
            answer = await client.read(account, params=FRESH)
            placed[answer.body["meta"]["terminal_id"]].append(account)
    return placed


async def _try_all(cluster: Cluster, console: Console) -> list[tuple[str, ...]]:
    judge = Judge(cluster)
    rows = []
    for case in CASES:
        placed = await _placed(cluster)
        here, there = sorted(placed, key=lambda name: -len(placed[name]))[:2]
        if case.name == "account_switched":
            stranger = (placed[there] or placed[here])[0]
            given = {"login": stranger.login, "server": SERVER, "password": stranger.password}
            case = Case(case.name, given)  # noqa: PLW2901 - which account is there is known only now
        accounts = list(cluster.accounts.values()) if case.at_broker else placed[here]
        seen = await Trial(cluster, case, here, accounts, judge).run()
        rows.append(seen.row(case))
        console.print(*rows[-1], sep=" | ")
    return rows


def _counted(codes: Counter[str]) -> str:
    return ", ".join(f"{count} {code}" for code, count in codes.most_common())


def measure(console: Console) -> Table:
    """Try every fault on a cluster of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="mt5-faults-") as directory,
        running_cluster(PLAN, Path(directory)) as cluster,
    ):
        cluster.connect_all()
        rows = asyncio.run(_try_all(cluster, console))
    return Table(
        "Every fault of a terminal, and those of logins",
        f"One replica, {PLAN.terminals} terminals, {PLAN.accounts} accounts,"
        f" {PLAN.login_seconds} s a login. The accounts of the faulty terminal (for a fault of"
        " the broker: all) are read one after another, once with `fresh=1` and once at the default"
        " age, without a retry, from before the fault until each has been read fresh again. A"
        " fault without an end of its own is mended after some seconds. Faults:"
        " [FAULTS.md](../services/terminal_sim/FAULTS.md).",
        (
            "fault",
            "answers with `fresh=1`",
            "answers at the default age",
            "first error after (s)",
            "slowest good `fresh=1` (s)",
            "good again after the end (s)",
            "wrong account",
        ),
        rows,
        "An account whose login the broker refused is not tried again until it is connected anew,"
        " so that a wrong password is never repeated.",
    )


def main() -> None:
    """Print the table and write the page."""
    console = Console()
    table = measure(console)
    table.show(console)
    head = HEAD.format(date=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M}")
    PAGE.write_text(head + table.markdown(), encoding="utf-8")
    console.print(f"written to {PAGE.name}")
    if any(row[-1] != "0" for row in table.rows):
        raise SystemExit("an answer was of another account")


if __name__ == "__main__":
    main()
