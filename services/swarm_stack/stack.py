"""Deploying a stack: the first time and again."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_stack import images
from swarm_stack.certificates import Certificate
from swarm_stack.convergence import (
    NotConverged,
    RolledBack,
    roll_back,
    update_times,
    wait_converged,
    wait_standing,
)
from swarm_stack.deployment import Deployment
from swarm_stack.engine import Engine, EngineFailed
from swarm_stack.jobs import Job, JobFailed, run_job
from swarm_stack.observed import services_of
from swarm_stack.sizes import Sizes
from swarm_stack.swarm_secrets import SwarmSecrets
from swarm_stack.variables import (
    MARKET,
    POOLS,
    Replicas,
    config_hashes,
    core_limits,
    variables,
    write_generated,
)

MAIN_FILE: Final = Path("docker-stack.yml")
SIMULATED_FILE: Final = Path("docker-stack.sim.yml")
DATA_LABEL: Final = "mt5.data"
# The first boot of a slot downloads and installs a terminal.
FIRST_BOOT_S: Final = 1800.0
# In an update one slot follows the other: its drain, its start, and a pause.
EACH_TERMINAL_S: Final = 155.0
MIGRATION_S: Final = 600.0
CERTIFICATE_S: Final = 120.0
ROLLBACK_S: Final = 600.0
# Where nginx, and the job that fills the volume, have it.
TLS_PATH: Final = "/etc/nginx/tls"

# What the schema's migration, and whoever starts after it, needs.
STORES: Final = frozenset({"postgres", "redis"})

Report = Callable[[str], None]


class DeployRefused(Exception):
    """Nothing was changed; says what is missing."""


class DeployFailed(Exception):
    """The deployment was not completed; says what stands now, and why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be deployed.

    Args:
        stack: Name of the stack.
        deployment: Its settings.
        sizes: Its maxima and subnets.
        simulated: On simulated terminals.
        without: Services to be left out.
        extra_files: More stack files, which override.
        patience_s: How long it may take to converge; by the number of terminals if None.
    """

    stack: str
    deployment: Deployment
    sizes: Sizes
    simulated: bool
    without: frozenset[str] = frozenset()
    extra_files: tuple[Path, ...] = ()
    patience_s: float | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The stack files, in their order."""
        simulated = (SIMULATED_FILE,) if self.simulated else ()
        return (MAIN_FILE, *simulated, *self.extra_files)

    @property
    def registry(self) -> str:
        """Where our images are put; empty for a swarm of one node."""
        return self.deployment.registry.rstrip("/")

    def image(self, image: images.Image) -> str:
        """Full name of an image of ours."""
        return f"{self.registry}/{image.tag()}" if self.registry else image.tag()


class Deployer:
    """Deploys one plan.

    Args:
        engine: A manager of the swarm.
        plan: What is to be deployed.
        report: Told of each step.
    """

    def __init__(self, engine: Engine, plan: Plan, report: Report) -> None:
        self._engine = engine
        self._plan = plan
        self._report = report
        self._secrets = SwarmSecrets(engine, plan.stack)

    def build(self) -> None:
        """Build the images that are missing, and publish them where there is a registry.

        Raises:
            EngineFailed: One could not be built.
        """
        wanted = images.wanted(simulated=self._plan.simulated)
        images.build(self._engine, wanted, self._plan.registry, self._report)

    def deploy(self) -> None:
        """Bring the stack to the plan, and wait until it is there.

        Replica counts of services that run are kept. The schema is migrated before any pool of
        this version starts; a migration that fails leaves everything as it was.

        Raises:
            DeployRefused: Something is missing; nothing was changed.
            DeployFailed: It did not work out; what was changed is rolled back, if it can be.
            EngineFailed: The engine is in the way.
            SecretsMissing: There are secrets missing; nothing was changed.
        """
        engine, plan = self._engine, self._plan
        names = self._secrets.names()
        require_data_node(self._engine)
        self._require_certificate()
        before = services_of(engine, plan.stack)
        replicas = Replicas.wanted(
            plan.sizes, {name: one.desired for name, one in before.items()}, plan.without
        )
        values = variables(plan.stack, plan.deployment, plan.sizes, names)
        values |= {image.variable: plan.image(image) for image in images.ALL}
        values |= config_hashes(plan.sizes) | core_limits(self._fewest_cores())
        write_generated(plan.sizes)
        if not all(name in before and before[name].running for name in STORES):
            self._report("starting the stores, before their users")
            users = any(before[name].running for name in POOLS if name in before)
            first = replicas if users else Replicas.none(replicas)
            self._apply(values | first.variables())
            self._converge({}, "the stores did not start", only=STORES)
        since = update_times(engine, plan.stack)
        self._report("migrating the schema")
        self._migrate(names)
        self._report("deploying")
        self._apply(values | replicas.variables())
        self._converge(since, "the deployment failed")
        self._prune_configs()

    def install_certificate(self, certificate: Certificate) -> None:
        """Put a certificate into nginx's volume; a running nginx takes it up by itself.

        Raises:
            JobFailed: It could not be written.
        """
        temporary = {
            f"{self._plan.stack}_new_certificate": certificate.chain,
            f"{self._plan.stack}_new_key": certificate.key,
        }
        for name, value in temporary.items():
            self._remove_secret(name)
            self._engine.run("secret", "create", name, "-", stdin=value)
        chain, key = temporary
        try:
            job = Job(
                name=f"{self._plan.stack}_install-certificate",
                image=self._plan.image(images.NGINX),
                arguments=("install-certificate",),
                secrets={"certificate.pem": chain, "key.pem": key},
                volumes={TLS_PATH: f"{self._plan.stack}_tls"},
                on_data_node=True,
            )
            require_data_node(self._engine)
            run_job(self._engine, job, CERTIFICATE_S)
        finally:
            for name in temporary:
                self._remove_secret(name)

    def _remove_secret(self, name: str) -> None:
        rows = self._engine.rows("secret", "ls", "--filter", f"name={name}")
        if any(row["Name"] == name for row in rows):
            self._engine.run("secret", "rm", name)

    def _fewest_cores(self) -> int:
        nodes = [str(row["ID"]) for row in self._engine.rows("node", "ls")]
        described = self._engine.inspect("node", nodes)
        return min(
            int(node["Description"]["Resources"]["NanoCPUs"]) // 1_000_000_000 for node in described
        )

    def _require_certificate(self) -> None:
        volumes = self._engine.rows("volume", "ls", "--filter", f"name={self._plan.stack}_tls")
        single = len(self._engine.rows("node", "ls")) == 1
        # A volume of another node is not seen from here: there nginx itself says so.
        if single and not any(row["Name"] == f"{self._plan.stack}_tls" for row in volumes):
            raise DeployRefused("nginx has no certificate: make certs")

    def _apply(self, values: dict[str, str]) -> None:
        files = [part for path in self._plan.files for part in ("--compose-file", str(path))]
        command = ("stack", "deploy", "--prune", *files)
        if self._plan.deployment.registry:
            command = (*command, "--with-registry-auth")
        self._engine.run(*command, self._plan.stack, env=values, timeout_s=300.0)

    def _migrate(self, names: dict[str, str]) -> None:
        try:
            migrate(self._engine, self._plan, names, self._report, check_ring=True)
        except JobFailed as failed:
            raise DeployFailed(
                f"what comes before the services failed, and none was changed:\n{failed}"
            ) from None

    def _converge(
        self, since: dict[str, str], failure: str, only: frozenset[str] | None = None
    ) -> None:
        engine, plan = self._engine, self._plan
        try:
            longest_s = patience_s(engine, plan)
            wait_converged(engine, plan.stack, since, longest_s, self._report, only=only)
        except NotConverged as why:
            if not since:
                raise DeployFailed(f"{failure}; it stands as it is:\n{why}") from None
            back = roll_back(engine, plan.stack, since, self._report)
            stands = self._after_rollback(back)
            raise DeployFailed(f"{failure}; {stands}:\n{why}") from None

    def _after_rollback(self, back: RolledBack) -> str:
        """What stands now, once it does."""
        if not back.services:
            return "nothing was updated that could be rolled back; it stands as it is"
        services = services_of(self._engine, self._plan.stack).values()
        used = {file: name for one in services for file, name in one.secrets.items()}
        try:
            # What services log in with again is what the database must take.
            migrate(self._engine, self._plan, self._secrets.names() | used, self._report)
            wait_standing(self._engine, self._plan.stack, ROLLBACK_S)
        except (JobFailed, NotConverged) as trouble:
            return f"rolling back {', '.join(back.services)} did not end well ({trouble})"
        complete = "" if back.complete else ", the others stand as they are"
        return f"{', '.join(back.services)} was rolled back{complete}"

    def _prune_configs(self) -> None:
        """Remove configs of before; the one that a rollback would need is kept by the engine."""
        label = f"label=com.docker.stack.namespace={self._plan.stack}"
        names = [str(row["Name"]) for row in self._engine.rows("config", "ls", "--filter", label)]
        specs = self._engine.inspect(
            "service",
            [str(row["ID"]) for row in self._engine.rows("service", "ls", "--filter", label)],
        )
        used = json.dumps([(one["Spec"], one.get("PreviousSpec")) for one in specs])
        for name in _unused(names, used):
            try:
                self._engine.run("config", "rm", name)
            except EngineFailed as kept:
                self._report(f"config {name} stays: {kept}")


def patience_s(engine: Engine, plan: Plan) -> float:
    """How long a stack may take to converge, seconds."""
    if plan.patience_s is not None:
        return plan.patience_s
    services = services_of(engine, plan.stack)
    terminals = [services[name].desired for name in (*POOLS.values(), MARKET) if name in services]
    return FIRST_BOOT_S + EACH_TERMINAL_S * sum(terminals)


def require_data_node(engine: Engine) -> None:
    """Label the only node; where there are several, somebody has to say which.

    Raises:
        DeployRefused: Nobody has said it, or several have it.
    """
    nodes = [str(row["ID"]) for row in engine.rows("node", "ls")]
    labelled = [
        str(node["Description"]["Hostname"])
        for node in engine.inspect("node", nodes)
        if (node["Spec"].get("Labels") or {}).get(DATA_LABEL) == "yes"
    ]
    if len(labelled) > 1:
        raise DeployRefused(
            f"one node keeps the data, and {' and '.join(labelled)} have its label: docker node"
            f" update --label-rm {DATA_LABEL} NODE"
        )
    if labelled:
        return
    if len(nodes) > 1:
        raise DeployRefused(
            f"say which node keeps the data: docker node update --label-add {DATA_LABEL}=yes NODE"
        )
    engine.run("node", "update", "--label-add", f"{DATA_LABEL}=yes", nodes[0])


def migrate(
    engine: Engine,
    plan: Plan,
    names: Mapping[str, str],
    report: Report,
    *,
    check_ring: bool = False,
) -> None:
    """Bring the schema, and the passwords of the services' roles, to this tree.

    Args:
        engine: A manager of the swarm.
        plan: Of the stack, whose PostgreSQL runs.
        names: Full name of each secret's newest version.
        report: Told what was done.
        check_ring: Fail where the key ring lacks keys that stored passwords are under.

    Raises:
        JobFailed: Migrations that failed left nothing behind, and services' roles have the
            passwords of before; says why.
    """
    files = ["owner_database_url", "database_url", "worker_database_url", "keys_database_url"]
    if check_ring:
        files.append("key_ring")
    names = {**names, **owner_that_runs(engine, plan.stack)}
    job = ops_job(plan, "migrate", ("migrate",), {name: names[name] for name in files})
    for line in run_job(engine, job, MIGRATION_S).splitlines():
        report(f"  {line}")


def ops_job(plan: Plan, name: str, arguments: tuple[str, ...], secrets: Mapping[str, str]) -> Job:
    """A command of the image `ops` in the services' network.

    Args:
        plan: Of the stack.
        name: Of the job, without the stack's.
        arguments: The command.
        secrets: Full name of a secret by its own; the command finds it by `<OWN NAME>_FILE`.
    """
    return Job(
        name=f"{plan.stack}_{name}",
        image=plan.image(images.OPS),
        arguments=arguments,
        env={f"{own.upper()}_FILE": f"/run/secrets/{own}" for own in secrets},
        networks=(f"{plan.stack}_services",),
        secrets=secrets,
    )


def owner_that_runs(engine: Engine, stack: str) -> dict[str, str]:
    """The owner's URL with the password that the running PostgreSQL has; nothing if none runs.

    A renewed one is PostgreSQL's own from its next start on, which comes after migrating. The two
    secrets are made together, so their versions are alike.
    """
    postgres = services_of(engine, stack).get("postgres")
    if postgres is None:
        return {}
    version = postgres.secrets["mt5_owner_password"].rpartition("_v")[2]
    return {"owner_database_url": f"{stack}_owner_database_url_v{version}"}


def _unused(names: Sequence[str], used: str) -> list[str]:
    return [name for name in names if f'"{name}"' not in used]
