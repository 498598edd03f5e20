"""Where the operator's commands find the key ring and the database."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from pydantic import SecretStr, ValidationError

from mt5kit.networks import Networks
from mt5kit.settings import ServiceSettings

# What `make run` keeps in its data directory.
LOCAL_KEY_RING: Final = "key-ring.json"
LOCAL_DATABASE_URL: Final = "keys-database-url.secret"


class NotFurnished(Exception):
    """The command lacks the key ring or the database; the message says how to give them."""


class OpsSettings(ServiceSettings):
    """What the environment says; every NAME may be NAME_FILE, except `KEY_RING_FILE` itself.

    Args:
        key_ring_file: The vault's key ring.
        keys_database_url: As role `mt5_keys`.
        services_networks: CIDR blocks outside which no database is connected to.
    """

    key_ring_file: Path | None = None
    keys_database_url: SecretStr | None = None
    services_networks: tuple[str, ...] = ()


class MigrateSettings(ServiceSettings):
    """The database as its owner, and as each role that gets its password from its URL.

    `key_ring_file` is the ring that services will have, if it is to be checked.
    """

    key_ring_file: Path | None = None
    owner_database_url: SecretStr
    database_url: SecretStr
    worker_database_url: SecretStr
    keys_database_url: SecretStr

    @classmethod
    def from_environment(cls) -> Self:
        """What the environment says.

        Raises:
            NotFurnished: Something is missing, given twice, or its file cannot be read.
        """
        try:
            return cls()
        except ValidationError as error:
            names = [str(fault["loc"][0]).upper() for fault in error.errors()]
            raise NotFurnished(f"say {', '.join(f'{name}_FILE' for name in names)}") from None
        except OSError as error:
            raise NotFurnished(f"{error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise NotFurnished(str(error)) from None


@dataclass(frozen=True, slots=True)
class Furnished:
    """The key ring's file, the database as `mt5_keys`, and the networks it is to be in, if any."""

    key_ring: Path
    database_url: str = field(repr=False)
    networks: Networks | None = None


def ring_path(key_ring: Path | None, data_dir: Path) -> Path:
    """The key ring's file: from the option, else the environment, else the data directory."""
    return key_ring or OpsSettings().key_ring_file or data_dir / LOCAL_KEY_RING


def furnished(key_ring: Path | None, database_url_file: Path | None, data_dir: Path) -> Furnished:
    """From options, else from the environment, else from the data directory of `make run`.

    Raises:
        NotFurnished: One of the two is given and the other is not, a file cannot be read, or the
            networks are malformed.
    """
    settings = OpsSettings()
    ring = key_ring or settings.key_ring_file
    url = _read(database_url_file) if database_url_file else _revealed(settings)
    if ring is None and url is None:
        # Never one from here and one from there: a ring would be rotated over other rows.
        ring, url = data_dir / LOCAL_KEY_RING, _read(data_dir / LOCAL_DATABASE_URL)
    if ring is None:
        raise NotFurnished("say which key ring: --key-ring FILE, or KEY_RING_FILE")
    if url is None:
        raise NotFurnished(
            "say which database: --database-url-file FILE, KEYS_DATABASE_URL or"
            " KEYS_DATABASE_URL_FILE"
        )
    try:
        return Furnished(ring, url, Networks.of(settings.services_networks))
    except ValueError as malformed:
        raise NotFurnished(f"SERVICES_NETWORKS: {malformed}") from None


def _revealed(settings: OpsSettings) -> str | None:
    url = settings.keys_database_url
    return None if url is None else url.get_secret_value()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NotFurnished(
            f"{path}: {error.strerror}; is `make run` running? Otherwise say which key ring and"
            " which database (--help)"
        ) from None
