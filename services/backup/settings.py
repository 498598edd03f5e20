"""Where backups lie, how often they are made, and what they are made with."""

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

DAY_S: Final = 86_400.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingWrong(Exception):
    """A setting or a secret cannot be used; the message names it and shows no secret."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A second place, S3-compatible.

    Args:
        bucket: Its name.
        prefix: Of every key; may be empty.
        endpoint: URL of the storage; None for Amazon's own.
        region: As the storage calls it.
    """

    bucket: str
    prefix: str
    endpoint: str | None
    region: str

    @property
    def url(self) -> str:
        """The place as the command takes it."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; times in seconds.

    Args:
        directory: Of all backups.
        secrets: Of the files with passwords.
        private: On a tmpfs; what is made of the passwords.
        data: The cluster that a restore replaces.
        hour: Of the day (UTC) at which a full backup is made.
        look_s: Between two looks at whether everything is as it should be.
        snapshot_s: Between two snapshots of Redis.
        copy_s: Between two copies to the second place.
        keep_days: Of snapshots of Redis and lists of keys; Barman has its own in its configuration.
        remote: The second place, if there is one.
        networks: In which the services are; none is no restriction.
    """

    directory: Path = Path("/backups")
    secrets: Path = Path("/run/secrets")
    private: Path = Path("/tmp/backup")  # noqa: S108 - a tmpfs of the container
    data: Path = Path("/var/lib/postgresql/18/docker")
    hour: int = 2
    look_s: float = 60.0
    snapshot_s: float = 900.0
    copy_s: float = 900.0
    keep_days: int = 30
    remote: Remote | None = None
    networks: tuple[Network, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The settings of this process.

        Raises:
            SettingWrong: One of them cannot be used.
        """
        hour = _number(environment, "BACKUP_HOUR", 2, 23)
        return cls(
            hour=int(hour),
            look_s=_number(environment, "LOOK_S", 60.0, 300.0),
            snapshot_s=_number(environment, "SNAPSHOT_S", 900.0, DAY_S),
            copy_s=_number(environment, "COPY_S", 900.0, DAY_S),
            keep_days=int(_number(environment, "KEEP_DAYS", 30, 3660)),
            remote=_remote(environment),
            networks=_networks(environment),
        )

    def secret(self, name: str) -> str:
        """What a secret holds.

        Raises:
            SettingWrong: It is missing, empty, or has several lines.
        """
        try:
            text = (self.secrets / name).read_text(encoding="utf-8").rstrip("\n")
        except OSError as error:
            raise SettingWrong(f"the secret {name}: {error.strerror}") from None
        if not text or "\n" in text:
            raise SettingWrong(f"the secret {name} is not one line")
        return text


def _number(environment: Mapping[str, str], name: str, default: float, most: float) -> float:
    try:
        value = float(environment.get(name, default))
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise SettingWrong(f"{name} must be a number from 0 to {most:g}")
    return value


def _networks(environment: Mapping[str, str]) -> tuple[Network, ...]:
    try:
        blocks = json.loads(environment.get("SERVICES_NETWORKS", "[]"))
        return tuple(ipaddress.ip_network(block) for block in blocks)
    except (ValueError, TypeError):
        raise SettingWrong("SERVICES_NETWORKS must be a JSON list of CIDR blocks") from None


def _remote(environment: Mapping[str, str]) -> Remote | None:
    bucket = environment.get("S3_BUCKET", "")
    if not bucket:
        return None
    return Remote(
        bucket,
        environment.get("S3_PREFIX", "").strip("/"),
        environment.get("S3_ENDPOINT_URL") or None,
        environment.get("S3_REGION") or "us-east-1",
    )
