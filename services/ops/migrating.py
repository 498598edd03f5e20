"""A database brought to the newest migration: one runner at a time, each migration whole or not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.engine import AdaptedConnection, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from mt5kit.errors import Mt5SwarmError
from mt5kit.state.postgres.database import answering

MIGRATIONS: Final = Path(__file__).parents[2] / "migrations"
"""Beside `services`, in the source tree and in the image alike."""

LOCK: Final = 7_305_810_562
"""Any number, as long as every runner of ours takes the same."""

LOCK_TIMEOUT: Final = "5s"
"""Behind a migration that waits for a table, every statement of the replicas on it waits too."""

Say = Callable[[str], None]


class MigrationFailed(Exception):
    """A migration could not be applied and left nothing behind; those before it stand."""


def head(directory: Path = MIGRATIONS) -> str:
    """The newest migration."""
    return str(ScriptDirectory(str(directory)).get_current_head())


async def upgrade(dsn: str, say: Say, directory: Path = MIGRATIONS) -> None:
    """Apply what the database lacks, each migration in a transaction of its own.

    Args:
        dsn: As the owner of the database.
        say: Told each step in a line.
        directory: Of the migrations.

    Raises:
        MigrationFailed: One could not be applied, or the database is at none that is known.
    """
    engine = create_async_engine(
        make_url(dsn).set(drivername="postgresql+asyncpg"),
        poolclass=NullPool,
        connect_args={"server_settings": {"application_name": "migrate", "timezone": "UTC"}},
        # A statement that fails is shown; what it was given is not.
        hide_parameters=True,
    )
    try:
        async with engine.connect() as connection:
            await _alone(connection, say)
            await connection.run_sync(_apply, directory, say)
    except SQLAlchemyError as failed:
        raise MigrationFailed(f"the database failed between migrations: {failed}") from failed
    finally:
        await engine.dispose()


def apply_sql(migration: str) -> None:
    """Run the SQL file that lies beside a migration, within the migration's transaction.

    Args:
        migration: The migration's own file; the SQL's has the same name.

    Raises:
        DatabaseFault: A statement was wrong.
        DatabaseUnavailable: A lock was not had in time, or the connection was lost.
    """
    statements = Path(migration).with_suffix(".sql").read_text(encoding="utf-8")
    connection = op.get_bind()
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    # Only the driver itself takes many statements at once, and many it takes only as they are.
    driver = cast("AdaptedConnection", connection.connection.dbapi_connection)
    with answering():
        driver.run_async(lambda raw: raw.execute(statements))


async def _alone(connection: AsyncConnection, say: Say) -> None:
    """Take the lock that lasts as long as the connection."""
    lock = {"lock": LOCK}
    taken = await connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), lock)
    if not taken:
        say("waiting: others are migrating this database")
        await connection.execute(text("SELECT pg_advisory_lock(:lock)"), lock)
    await connection.commit()


def _apply(connection: Connection, directory: Path, say: Say) -> None:
    config = Config()
    config.set_main_option("script_location", str(directory))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    connection.commit()
    if _is_newer(current, scripts):
        say(f"the schema is at {current}, which is newer than this version knows: left as it is")
        return
    missing = _missing(scripts, current)
    for script in missing:
        try:
            command.upgrade(config, script.revision)
        except (Mt5SwarmError, SQLAlchemyError, CommandError) as failed:
            stands = current or "nothing"
            raise MigrationFailed(
                f"migration {script.revision} ({script.doc}) failed and is undone; the schema"
                f" stays at {stands}: {_reason(failed)}"
            ) from failed
        current = script.revision
        say(f"applied {script.revision}: {script.doc}")
    if not missing:
        say(f"the schema is at {current}: nothing to apply")


def _is_newer(current: str | None, scripts: ScriptDirectory) -> bool:
    """Whether a later version has been here: replicas run beside its schema until they are gone."""
    known = {script.revision for script in scripts.walk_revisions()}
    return current is not None and current not in known and current > max(known)


def _missing(scripts: ScriptDirectory, current: str | None) -> Sequence[Script]:
    """What is to be applied, oldest first.

    Raises:
        MigrationFailed: The database is at a migration that never was.
    """
    try:
        return list(scripts.iterate_revisions("heads", current or "base"))[::-1]
    except (CommandError, RevisionError) as unknown:
        raise MigrationFailed(f"the database says it is at {current}: {unknown}") from unknown


def _reason(failed: Exception) -> str:
    # Ours say only that it failed; what was raised below them says why.
    return str(failed.__cause__ or failed).strip()
