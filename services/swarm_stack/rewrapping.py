"""Stored passwords put under the key that is active now: a rotation's part inside the swarm."""

from typing import Final

from swarm_stack import images
from swarm_stack.engine import Engine
from swarm_stack.jobs import run_job
from swarm_stack.observed import services_of
from swarm_stack.stack import Plan, Report, ops_job
from swarm_stack.swarm_secrets import SwarmSecrets
from swarm_stack.variables import POOLS

# It may be broken off and repeated, so that little depends on it.
REWRAP_S: Final = 3600.0
FILES: Final = ("key_ring", "keys_database_url")


class RewrapRefused(Exception):
    """Some replica may not open what would be wrapped; nothing was changed."""


def rewrap(engine: Engine, plan: Plan, actor: str, report: Report) -> None:
    """Wrap every stored password's key under the active key of the ring that the pools have.

    Passwords are not decrypted for it. It may be repeated and broken off at any time.

    Args:
        engine: A manager of the swarm.
        plan: Of the stack that runs.
        actor: Who does it, for the audit log.
        report: Told what became of the rows.

    Raises:
        RewrapRefused: A pool does not run, or with another ring than the swarm's newest.
        SecretsMissing: There are secrets missing.
        JobFailed: Rows are left under other keys; says which and why.
    """
    names = SwarmSecrets(engine, plan.stack).names()
    services = services_of(engine, plan.stack)
    for pool in POOLS:
        if pool not in services or not services[pool].converged:
            raise RewrapRefused(f"{pool} does not run as it should: make status")
        if services[pool].secrets.get("key_ring") != names["key_ring"]:
            raise RewrapRefused(f"{pool} does not have the newest key ring yet: make deploy")
    images.build(engine, [images.OPS], plan.registry, report)
    command = ("rotate-keys", "--no-new-key", "--actor", actor)
    job = ops_job(plan, "rewrap-keys", command, {name: names[name] for name in FILES})
    for line in run_job(engine, job, REWRAP_S).splitlines():
        report(line)
