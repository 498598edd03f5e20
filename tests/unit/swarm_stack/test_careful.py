"""What must never be done to the wrong thing; of the engine there is a stand-in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from swarm_stack.deployment import FILE, read_deployment
from swarm_stack.engine import Engine
from swarm_stack.jobs import Job, JobFailed, run_job
from swarm_stack.removal import volumes_of
from swarm_stack.rewrapping import RewrapRefused, rewrap
from swarm_stack.secret_groups import ALL
from swarm_stack.sizes import Sizes
from swarm_stack.stack import DeployRefused, Plan, owner_that_runs, require_data_node
from swarm_stack.swarm_secrets import SwarmSecrets

FILES = (Path("docker-stack.yml"), Path("docker-stack.sim.yml"))


class Told:
    """An engine that knows what it was told, and remembers what it was asked to do."""

    def __init__(
        self,
        listed: Mapping[str, Sequence[Mapping[str, Any]]],
        inspected: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        printed: str = "",
    ) -> None:
        self._listed, self._inspected, self._printed = listed, inspected or {}, printed
        self.done: list[tuple[str, ...]] = []

    def rows(self, kind: str, *_: str) -> list[Mapping[str, Any]]:
        return [*self._listed.get(kind, ())]

    def inspect(self, kind: str, names: Sequence[str], **_: bool) -> list[Mapping[str, Any]]:
        return [*self._inspected[kind]] if names else []

    def run(self, *arguments: str, **_: Any) -> str:
        self.done.append(arguments)
        return self._printed

    @property
    def engine(self) -> Engine:
        return cast("Engine", self)


def named(*names: str) -> list[dict[str, str]]:
    return [{"ID": name, "Name": name} for name in names]


@pytest.mark.parametrize(
    "volume",
    ["mt5_postgres-data", "mt5_backups", "mt5_tls", "mt5_mt5-stream-12", "mt5_sim-broker"],
)
def test_a_stacks_volumes_are_its_own(volume: str) -> None:
    assert volumes_of("mt5", FILES).fullmatch(volume)
    assert not volumes_of("other", FILES).fullmatch(volume)


@pytest.mark.parametrize(
    "volume", ["mt5_staging_backups", "mt5_staging_mt5-api-1", "mt5_mt5-api-", "xmt5_backups"]
)
def test_volumes_of_a_stack_whose_name_begins_alike_are_not(volume: str) -> None:
    assert not volumes_of("mt5", FILES).fullmatch(volume)
    assert volumes_of("mt5_staging", FILES).fullmatch("mt5_staging_backups")


def test_secrets_of_a_stack_whose_name_begins_alike_stay() -> None:
    ours = ["mt5_key_ring_v1", "mt5_key_ring_v2", "mt5_jwt_secret_v1"]
    told = Told({"secret": named(*ours, "mt5_staging_key_ring_v1", "mt5_mine_v1", "mt5_key_ring")})
    secrets = SwarmSecrets(told.engine, "mt5")
    assert secrets.versions() == {"key_ring": 2, "jwt_secret": 1}
    assert secrets.remove_all() == 3
    assert told.done == [("secret", "rm", *ours)]


def test_one_node_keeps_the_data() -> None:
    def node(name: str, *, labelled: bool) -> dict[str, Any]:
        labels = {"mt5.data": "yes"} if labelled else {}
        return {"Description": {"Hostname": name}, "Spec": {"Labels": labels}}

    both = Told({"node": named("a", "b")}, {"node": [node("a", labelled=True)] * 2})
    with pytest.raises(DeployRefused, match="a and a have its label"):
        require_data_node(both.engine)
    none = Told({"node": named("a", "b")}, {"node": [node("a", labelled=False)] * 2})
    with pytest.raises(DeployRefused, match="say which node"):
        require_data_node(none.engine)
    single = Told({"node": named("a")}, {"node": [node("a", labelled=False)]})
    require_data_node(single.engine)
    assert single.done == [("node", "update", "--label-add", "mt5.data=yes", "a")]


@pytest.mark.parametrize(("state", "removed"), [("running", False), ("complete", True)])
def test_a_job_that_is_under_way_is_not_cut_off(state: str, *, removed: bool) -> None:
    told = Told(
        {"service": named("mt5_restore")}, {"task": [{"Status": {"State": state}}]}, "a-task"
    )
    job = Job("mt5_restore", "image", ("restore",))
    if removed:
        run_job(told.engine, job, 1)
    else:
        with pytest.raises(JobFailed, match="under way"):
            run_job(told.engine, job, 1)
    assert (("service", "rm", "mt5_restore") in told.done) is removed


def test_the_schema_is_migrated_with_the_password_that_the_running_database_has() -> None:
    spec = {
        "Name": "mt5_postgres",
        "Mode": {"Replicated": {"Replicas": 1}},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "mt5-postgres:1",
                "Secrets": [
                    {
                        "File": {"Name": "mt5_owner_password"},
                        "SecretName": "mt5_mt5_owner_password_v3",
                    }
                ],
            }
        },
    }
    told = Told({"service": named("p")}, {"service": [{"ID": "p", "Spec": spec}], "task": []})
    assert owner_that_runs(told.engine, "mt5") == {
        "owner_database_url": "mt5_owner_database_url_v3"
    }
    assert owner_that_runs(Told({}).engine, "mt5") == {}


@pytest.mark.parametrize(
    ("rings", "complaint"),
    [
        ({"api-pool": 2, "websocket-pool": 1}, "websocket-pool does not have the newest key ring"),
        ({"api-pool": 2}, "websocket-pool does not run"),
    ],
)
def test_nothing_is_wrapped_under_a_key_that_a_pool_lacks(
    rings: Mapping[str, int], complaint: str
) -> None:
    def pool(name: str, version: int) -> dict[str, Any]:
        given = {"File": {"Name": "key_ring"}, "SecretName": f"mt5_key_ring_v{version}"}
        container = {"Image": "mt5-pools:1", "Secrets": [given]}
        spec = {
            "Name": f"mt5_{name}",
            "Mode": {"Replicated": {"Replicas": 0}},
            "TaskTemplate": {"ContainerSpec": container},
        }
        return {"ID": name, "Spec": spec}

    told = Told(
        {
            "secret": named(*(f"mt5_{name}_v1" for name in ALL), "mt5_key_ring_v2"),
            "service": named(*rings),
        },
        {"service": [pool(name, version) for name, version in rings.items()], "task": []},
    )
    plan = Plan(
        "mt5", read_deployment(FILE, domain=None, simulated=True), Sizes.read(), simulated=True
    )
    with pytest.raises(RewrapRefused, match=complaint):
        rewrap(told.engine, plan, "operator", print)
    assert all(command[:2] == ("service", "ps") for command in told.done)
