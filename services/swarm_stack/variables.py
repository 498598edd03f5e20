"""The values that `docker-stack.yml` is given."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_stack.deployment import BackupS3, Deployment
from swarm_stack.sizes import Sizes
from swarm_stack.terminals import generated_configs, stream_slots

GENERATED: Final = Path(".deploy")
CONFIG_FILES: Final = {
    "NGINX_CONF": Path("nginx.conf"),
    "REDIS_CONF": Path("config/redis.conf"),
    "PROMETHEUS_YML": Path("prometheus.yml"),
    "ALERTS_YML": Path("alerts.yml"),
    "ALERTMANAGER_YML": Path("config/alertmanager.yml"),
    "GRAFANA_DATASOURCES": Path("config/grafana/datasources.yml"),
    "GRAFANA_DASHBOARDS": Path("config/grafana/dashboards.yml"),
    "GRAFANA_OVERVIEW": Path("grafana-dashboards/overview.json"),
}
# Limits above one core. Docker refuses one above the cores of a node.
CORES: Final = {"TWO_CORES": 2, "THREE_CORES": 3, "FOUR_CORES": 4}
# A pool and the terminals that its replicas have: scaled together.
POOLS: Final = {"api-pool": "mt5-api", "websocket-pool": "mt5-stream"}
# Scaled by itself.
MARKET: Final = "mt5-market"
# Nobody answers there: a name that nobody of the stack has is then unknown.
NO_RESOLVER: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many of each service that can be scaled."""

    of: Mapping[str, int]

    @classmethod
    def wanted(
        cls, sizes: Sizes, present: Mapping[str, int], without: frozenset[str]
    ) -> "Replicas":
        """As many as there are, otherwise the least; none of what is left out.

        Args:
            sizes: The least of each pool.
            present: Of the services that run already.
            without: Services to be left out.
        """
        counts = {MARKET: present.get(MARKET, 0), "grafana": 1}
        for pool, terminals in POOLS.items():
            for name in (pool, terminals):
                # None at all is what a first deployment leaves that was broken off.
                counts[name] = present.get(name) or sizes.pools.of(pool).min
        return cls({name: 0 if name in without else count for name, count in counts.items()})

    @classmethod
    def none(cls, replicas: "Replicas") -> "Replicas":
        """No pools and terminals yet: they wait for the database's schema."""
        waiting = {*POOLS, *POOLS.values(), MARKET}
        return cls({name: 0 if name in waiting else n for name, n in replicas.of.items()})

    def variables(self) -> dict[str, str]:
        """`API_POOL_REPLICAS` and so on."""
        return {f"{_upper(name)}_REPLICAS": str(number) for name, number in self.of.items()}


def variables(
    stack: str, deployment: Deployment, sizes: Sizes, secret_names: Mapping[str, str]
) -> dict[str, str]:
    """Everything but images, configs, replicas and the limits of cores.

    Args:
        stack: Name of the stack.
        deployment: Settings of this deployment.
        sizes: Maxima and subnets.
        secret_names: Full name of each secret's newest version.
    """
    s3 = deployment.backup_s3
    own = list(stream_slots(sizes).ids("{{.Task.Slot}}"))
    values = {
        "STACK": stack,
        "GENERATED": f"./{GENERATED}",
        "HTTP_PORT": str(deployment.http_port),
        "HTTPS_PORT": str(deployment.https_port),
        "GRAFANA_PORT": str(deployment.grafana_port),
        "WS_BASE_URL": deployment.ws_base_url,
        "ALLOWED_ORIGINS": json.dumps([deployment.origin, *deployment.allowed_origins]),
        "BROKER_SERVERS": json.dumps(deployment.broker_servers),
        "DEFAULT_CLOCK": deployment.default_clock,
        "LOGIN_BUDGET_PER_MINUTE": str(deployment.login_budget_per_minute),
        "JWT_JWKS_URL": deployment.jwt_jwks_url,
        # Tokens are judged by their issuer: without one none are taken.
        "JWT_SECRET_FILE": "/run/secrets/jwt_secret" if deployment.jwt_issuer else "",
        "JWT_ISSUER": deployment.jwt_issuer,
        "JWT_AUDIENCE": deployment.jwt_audience,
        "CONSOLE_USER": str(deployment.console_user),
        "VNC": "1" if deployment.vnc else "",
        "BACKUP_HOUR": str(deployment.backup_hour),
        "BACKUP_DNS": s3.resolver if s3 else NO_RESOLVER,
        **s3_environment(s3),
        "OWN_STREAM_TERMINALS": json.dumps(own),
        "TERMINALS_API": str(sizes.terminals.api),
        "TERMINALS_STREAM": str(sizes.terminals.stream),
        "TERMINALS_MARKET": str(sizes.terminals.market),
        "EDGE_SUBNET": sizes.networks.edge,
        "SERVICES_SUBNET": sizes.networks.services,
        "TERMINALS_SUBNET": sizes.networks.terminals,
        "MONITORING_SUBNET": sizes.networks.monitoring,
    }
    values |= {f"SECRET_{_upper(name)}": full for name, full in secret_names.items()}
    return values


def s3_environment(s3: BackupS3 | None) -> dict[str, str]:
    """What the backup's image wants to know of its second place; empty without one."""
    return {
        "S3_BUCKET": s3.bucket if s3 else "",
        "S3_PREFIX": s3.prefix if s3 else "",
        "S3_ENDPOINT_URL": s3.endpoint_url if s3 else "",
        "S3_REGION": s3.region if s3 else "",
    }


def core_limits(cores: int) -> dict[str, str]:
    """The limits above one core, as far as the smallest node has them."""
    return {name: str(min(limit, cores)) for name, limit in CORES.items()}


def write_generated(sizes: Sizes, root: Path = Path()) -> None:
    """Write the configs that are made from the sizes to where `docker-stack.yml` finds them."""
    directory = root / GENERATED
    directory.mkdir(exist_ok=True)
    for name, content in generated_configs(sizes).items():
        (directory / f"{name}.json").write_bytes(content)


def config_hashes(sizes: Sizes, root: Path = Path()) -> dict[str, str]:
    """`NGINX_CONF_HASH` and so on: a config's name changes with what it holds.

    Raises:
        OSError: A file is missing.
    """
    contents = {name: (root / path).read_bytes() for name, path in CONFIG_FILES.items()}
    contents |= {_upper(name): text for name, text in generated_configs(sizes).items()}
    return {f"{name}_HASH": content_hash(content) for name, content in contents.items()}


def content_hash(content: bytes) -> str:
    """48 bits of SHA-256, in hex: a name, not a proof."""
    return hashlib.sha256(content).hexdigest()[:12]


def _upper(name: str) -> str:
    return name.replace("-", "_").upper()
