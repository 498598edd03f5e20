"""What differs between two deployments: one file, `deployment.toml`, and the command line."""

import ipaddress
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import msgspec

FILE: Final = Path("deployment.toml")
SIMULATED_SERVER: Final = "MT5Swarm-Demo"

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class DeploymentInvalid(Exception):
    """The settings of the deployment cannot be used; says which and why."""


class BackupS3(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A second place for backups, S3-compatible.

    Args:
        bucket: Its name.
        resolver: Address of the resolver that knows the storage's name; services of the stack ask
            nobody outside for names otherwise.
        prefix: Of every key.
        endpoint_url: Of the storage; Amazon's own without.
        region: As the storage calls it.
    """

    bucket: str
    resolver: str
    prefix: str = ""
    endpoint_url: str = ""
    region: str = "us-east-1"

    def __post_init__(self) -> None:
        """Refuse a resolver that has itself to be looked up.

        Raises:
            ValueError: It is no IPv4 address.
        """
        ipaddress.IPv4Address(self.resolver)


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a deployment.

    Args:
        domain: The name under which clients reach nginx.
        http_port: Published by nginx; answers with a redirection.
        https_port: Published by nginx.
        grafana_port: Published by Grafana.
        allowed_origins: Pages that may open sockets; `https://<domain>` is always one.
        broker_servers: Clock rule by server; without any, every server is tried.
        default_clock: Clock rule of a server that is not listed.
        login_budget_per_minute: Logins a minute at each broker server.
        jwt_jwks_url: Where Supabase publishes its keys.
        jwt_issuer: Who must have issued a token.
        jwt_audience: Whom a token must be for.
        console_user: The user whose accounts the console shows first.
        registry: Prefix of our images' names, such as `registry.example.com/mt5`; nodes of a swarm
            of several pull from there.
        vnc: Whether terminals have a VNC server, inside the terminals network.
        backup_hour: Hour (UTC) of the daily full backup.
        backup_s3: Where backups are copied to, if anywhere.
    """

    domain: str
    http_port: Port = 80
    https_port: Port = 443
    grafana_port: Port = 3000
    allowed_origins: tuple[str, ...] = ()
    broker_servers: dict[str, str] = msgspec.field(default_factory=dict)
    default_clock: str = "EET-US"
    login_budget_per_minute: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    jwt_jwks_url: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = "authenticated"
    console_user: UUID = UUID(int=0)
    registry: str = ""
    vnc: bool = False
    backup_hour: Annotated[int, msgspec.Meta(ge=0, le=23)] = 2
    backup_s3: BackupS3 | None = None

    @property
    def origin(self) -> str:
        """The origin of pages served under the domain."""
        return f"https://{self._place}"

    @property
    def ws_base_url(self) -> str:
        """Where browsers reach `/ws/`."""
        return f"wss://{self._place}"

    @property
    def _place(self) -> str:
        return self.domain if self.https_port == 443 else f"{self.domain}:{self.https_port}"  # noqa: PLR2004 - the default of https


def read_deployment(
    path: Path, *, domain: str | None, simulated: bool, named: bool = True
) -> Deployment:
    """The settings of a file, if there is one, and of the command line, which wins.

    Args:
        path: A TOML file; none is needed where nobody names another than `deployment.toml`.
        domain: From the command line.
        simulated: On simulated terminals a domain is not needed: `localhost`.
        named: Whether somebody has to say the domain.

    Raises:
        DeploymentInvalid: The file cannot be used, or nobody says the domain.
    """
    if path != FILE and not path.exists():
        raise DeploymentInvalid(f"{path}: there is no such file")
    try:
        text = path.read_bytes() if path.exists() else b""
        given = msgspec.toml.decode(text, type=dict[str, object])
    except (OSError, msgspec.DecodeError) as unread:
        raise DeploymentInvalid(f"{path}: {unread}") from None
    if domain is not None:
        given["domain"] = domain
    elif simulated:
        given.setdefault("domain", "localhost")
    if simulated:
        given.setdefault("broker_servers", {SIMULATED_SERVER: "EET-US"})
    if not named:
        given.setdefault("domain", "")
    if "domain" not in given:
        raise DeploymentInvalid(
            "nobody says under which name clients come: make deploy DOMAIN=mt5.example.com,"
            f' or domain = "…" in {path} (deployment.example.toml has all settings)'
        )
    try:
        return msgspec.convert(given, Deployment)
    except msgspec.ValidationError as invalid:
        raise DeploymentInvalid(f"{path}: {invalid}") from None
