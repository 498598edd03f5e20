"""Bringing the database back to an instant of the past."""

from collections.abc import Callable, Collection, Mapping
from typing import Final

from swarm_stack import images
from swarm_stack.convergence import wait_converged
from swarm_stack.engine import Engine
from swarm_stack.jobs import Job, run_job, under_way
from swarm_stack.observed import Service, services_of
from swarm_stack.scaling import PATIENCE_S, set_counts, wait_settled
from swarm_stack.stack import STORES, Plan, migrate, patience_s, require_data_node
from swarm_stack.swarm_secrets import SwarmSecrets
from swarm_stack.variables import NO_RESOLVER, POOLS, s3_environment

# Whoever writes to the stores. The backup follows what they write to the end.
WRITERS: Final = ("console", "api-pool", "websocket-pool")
FOLLOWERS: Final = ("backup",)
CHECK_S: Final = 300.0
# A database of many GB is copied.
RESTORE_S: Final = 6 * 3600.0
S3_KEYS: Final = ("s3_access_key_id", "s3_secret_access_key")

Report = Callable[[str], None]


class RestoreRefused(Exception):
    """Nothing was changed; says why."""


class Restorer:
    """Restores one stack.

    Args:
        engine: A manager of the swarm.
        plan: Of the stack that runs; its images are used.
        report: Told of each step.
    """

    def __init__(self, engine: Engine, plan: Plan, report: Report) -> None:
        self._engine = engine
        self._plan = plan
        self._report = report

    def backups(self) -> str:
        """What can be restored, as a table."""
        return run_job(self._engine, self._job(("restore", "--list"), {}, "backups"), CHECK_S)

    def fetch(self) -> None:
        """Copy the backups back from their second place, onto a new data node.

        Raises:
            RestoreRefused: The deployment names no second place, or the stack runs.
            DeployRefused: Nobody has said which node keeps the data.
            JobFailed: Not all of it got here.
        """
        if self._plan.deployment.backup_s3 is None:
            raise RestoreRefused("deployment.toml names no second place: [backup_s3]")
        if services_of(self._engine, self._plan.stack):
            raise RestoreRefused(
                "backups come back before anything runs, which would begin new ones: make undeploy"
            )
        require_data_node(self._engine)
        names = SwarmSecrets(self._engine, self._plan.stack).names()
        keys = {name: names[name] for name in S3_KEYS}
        self._say(run_job(self._engine, self._job(("fetch",), keys), RESTORE_S))

    def restore(self, to: str) -> None:
        """Stop whoever uses the stores, restore, empty Redis, and start everybody again.

        On a swarm where the stack does not run there is nothing to stop and to start.

        Args:
            to: An instant, ISO 8601 with its offset.

        Raises:
            RestoreRefused: The swarm has no key ring, the stack runs in part, or what runs is not
                what this tree would be.
            SecretsMissing: There are secrets missing; nothing was changed.
            JobFailed: The backups refuse that instant, or it failed; says what stands.
            ScaleLate: Something did not stop; everything is started again.
            NotConverged: It is restored, and something does not start.
        """
        ring = self._key_ring()
        names = SwarmSecrets(self._engine, self._plan.stack).names()
        runs = services_of(self._engine, self._plan.stack)
        counts = self._counts(runs) if runs else {}
        self._report(f"checking whether {to} can be restored")
        if runs:
            images.build(self._engine, [images.OPS], self._plan.registry, self._report)
        if under_way(self._engine, f"{self._plan.stack}_restore"):
            raise RestoreRefused(f"another one is under way: see {self._plan.stack}_restore")
        check = self._job(("restore", "--check", "--to", to), ring, "check-restore")
        self._say(run_job(self._engine, check, CHECK_S))
        if not runs:
            self._replace(to, ring)
            self._report("nothing runs yet: make deploy")
            return
        try:
            self._stop(WRITERS)
            self._stop(STORES)
            self._stop(FOLLOWERS)
            self._replace(to, ring)
        finally:
            # Also if it failed, or was broken off: the database is then as it was.
            self._scale({name: counts[name] for name in STORES})
            self._converge(STORES)
            # Schema and passwords are those of that time.
            self._report("migrating the schema")
            migrate(self._engine, self._plan, names, self._report)
            self._scale({name: counts[name] for name in (*WRITERS, *FOLLOWERS)})
        self._converge(None)

    def _replace(self, to: str, ring: Mapping[str, str]) -> None:
        self._report("restoring")
        self._say(run_job(self._engine, self._job(("restore", "--to", to), ring), RESTORE_S))
        # What is in it was true after that instant.
        self._report("emptying Redis")
        run_job(self._engine, self._emptying(), CHECK_S)

    def _converge(self, only: frozenset[str] | None) -> None:
        plan = self._plan
        longest_s = patience_s(self._engine, plan)
        wait_converged(self._engine, plan.stack, {}, longest_s, self._report, only=only)

    def _key_ring(self) -> dict[str, str]:
        names = SwarmSecrets(self._engine, self._plan.stack)
        version = names.versions().get("key_ring")
        if version is None:
            raise RestoreRefused(
                "there is no key ring, without which the restored passwords cannot be opened: make"
                " open-copy FILE=… NAME=key_ring > dir/key_ring, make secrets FROM=dir"
            )
        return {"key_ring": f"{self._plan.stack}_key_ring_v{version}"}

    def _counts(self, services: Mapping[str, Service]) -> dict[str, int]:
        """How many of each there are to be afterwards; a restore that was cut off left none."""
        names = (*WRITERS, *STORES, *FOLLOWERS)
        missing = [name for name in names if name not in services]
        if missing:
            raise RestoreRefused(f"{', '.join(missing)} do not run: make deploy")
        for image in images.ALL:
            name = image.name.removeprefix("mt5-")
            runs = services[name].image.partition("@")[0] if name in names else None
            if runs not in {None, self._plan.image(image)}:
                raise RestoreRefused(f"{name} runs from another tree than this one: make deploy")
        least = {pool: self._plan.sizes.pools.of(pool).min for pool in POOLS}
        return {name: services[name].desired or least.get(name, 1) for name in names}

    def _job(
        self, arguments: tuple[str, ...], secrets: Mapping[str, str], name: str = "restore"
    ) -> Job:
        stack, s3 = self._plan.stack, self._plan.deployment.backup_s3
        return Job(
            name=f"{stack}_{name}",
            image=self._plan.image(images.BACKUP),
            arguments=arguments,
            secrets=secrets,
            volumes={
                "/backups": f"{stack}_backups",
                "/var/lib/postgresql": f"{stack}_postgres-data",
            },
            on_data_node=True,
            env=s3_environment(s3),
            dns=s3.resolver if s3 else NO_RESOLVER,
        )

    def _emptying(self) -> Job:
        return Job(
            name=f"{self._plan.stack}_empty-redis",
            image="redis:8.0.6",
            arguments=("find", "/data", "-mindepth", "1", "-delete"),
            volumes={"/data": f"{self._plan.stack}_redis-data"},
            user="999:999",
            on_data_node=True,
        )

    def _stop(self, names: Collection[str]) -> None:
        self._scale(dict.fromkeys(names, 0))
        wait_settled(self._engine, self._plan.stack, names, PATIENCE_S, self._report)

    def _scale(self, counts: Mapping[str, int]) -> None:
        self._report(", ".join(f"{name} -> {count}" for name, count in counts.items()))
        set_counts(self._engine, self._plan.stack, counts)

    def _say(self, printed: str) -> None:
        for line in printed.splitlines():
            self._report(f"  {line}")
