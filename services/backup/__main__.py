"""`python3 -m backup`: run, health, list, restore, restore-redis, fetch."""

import argparse
import datetime as dt
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from backup.cluster import RecoveryFailed, VolumeInUse
from backup.commands import CommandFailed, Commands
from backup.files import now
from backup.key_lists import RingUnusable
from backup.metrics import serve_metrics
from backup.points import NotPossible, shown
from backup.remote import RemoteCopy
from backup.restoring import Restore
from backup.scheduler import Scheduler, status_file
from backup.settings import Settings, SettingWrong
from backup.snapshots import Snapshots
from backup.status import Status, faults, looks

FAILURES: Final = (
    CommandFailed,
    NotPossible,
    RecoveryFailed,
    RingUnusable,
    SettingWrong,
    VolumeInUse,
)
RING: Final = Path("/run/secrets/key_ring")
REDIS_DATA: Final = Path("/data")


def run(settings: Settings, _: argparse.Namespace) -> int:
    """Keep the backups, until SIGTERM."""
    serve_metrics(status_file(settings))
    Scheduler(settings).run()
    return 0


def health(settings: Settings, _: argparse.Namespace) -> int:
    """Say what is not as it should be; ends with 1 only where another start would mend it."""
    status = Status.read(status_file(settings))
    found = faults(status, now(), settings)
    print("; ".join(found) or "all is well")  # noqa: T201 - Docker keeps it
    return int(not looks(status, now(), settings))


def listing(settings: Settings, _: argparse.Namespace) -> int:
    """Say which times can be restored."""
    commands = Commands(settings)
    print(Restore(settings).points().table())  # noqa: T201 - that is the command
    snapshots = Snapshots(commands, settings.directory).all()
    if snapshots:
        first, last = snapshots[0][0], snapshots[-1][0]
        text = f"{len(snapshots)} snapshots of Redis, from {shown(first)} to {shown(last)}."
        print(text)  # noqa: T201 - likewise
    return 0


def restore(settings: Settings, arguments: argparse.Namespace) -> int:
    """Restore Postgres, or say what can be restored."""
    if arguments.list:
        return listing(settings, arguments)
    made = Restore(settings)
    if arguments.check:
        made.check(arguments.to, arguments.check_ring)
        return 0
    made.to(arguments.to, arguments.check_ring)
    return 0


def restore_redis(settings: Settings, arguments: argparse.Namespace) -> int:
    """Have Redis begin with a snapshot; it must not be running."""
    before = Snapshots(Commands(settings), settings.directory).restore(arguments.to, REDIS_DATA)
    print(f"done; what was there before is in {before}")  # noqa: T201 - that is the command
    return 0


def fetch(settings: Settings, _: argparse.Namespace) -> int:
    """Copy all backups back from the second place."""
    if settings.remote is None:
        raise SettingWrong("there is no S3_BUCKET")
    RemoteCopy(Commands(settings), settings, settings.remote).pull(settings.directory)
    return 0


def moment(text: str) -> dt.datetime:
    """A time with its zone, as ISO 8601 has it."""
    time = dt.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text} has no zone: end it with Z for UTC")
    return time.astimezone(dt.UTC)


COMMANDS: Final[Mapping[str, Callable[[Settings, argparse.Namespace], int]]] = {
    "run": run,
    "health": health,
    "list": listing,
    "restore": restore,
    "restore-redis": restore_redis,
    "fetch": fetch,
}


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    made = argparse.ArgumentParser(prog="backup", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    for name, function in COMMANDS.items():
        one = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        if name == "restore":
            what = one.add_mutually_exclusive_group(required=True)
            what.add_argument("--to", type=moment, help="time, such as 2026-11-29T22:15:00Z")
            what.add_argument("--list", action="store_true", help="say what can be restored")
            one.add_argument("--check", action="store_true", help="only say whether it can be done")
            one.add_argument("--check-ring", type=Path, default=RING, help="the vault's key ring")
        if name == "restore-redis":
            one.add_argument("--to", type=moment, required=True, help="the last one until then")
    return made


def main() -> int:
    """Do what the command line says; the exit code."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s"
    )
    arguments = parser().parse_args()
    try:
        return COMMANDS[arguments.command](Settings.from_environment(), arguments)
    except (*FAILURES, OSError) as failure:
        print(f"error: {failure}", file=sys.stderr)  # noqa: T201 - that is what it is for
        return 1


if __name__ == "__main__":
    sys.exit(main())
