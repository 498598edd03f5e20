"""What the stack file promises, read as Docker reads it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from swarm_stack.deployment import Deployment
from swarm_stack.images import ALL as IMAGES
from swarm_stack.images import OPS, Image
from swarm_stack.resources import read_needs, sizes_page
from swarm_stack.secret_groups import ALL
from swarm_stack.sizes import Sizes
from swarm_stack.terminals import api_slots, generated_configs, stream_slots
from swarm_stack.variables import CONFIG_FILES, POOLS, Replicas, core_limits, variables

MAIN, SIM = Path("docker-stack.yml"), Path("docker-stack.sim.yml")
SIZES = Sizes.read()
STACK: dict[str, Any] = yaml.safe_load(MAIN.read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)[^}]*\}")
# Hold volumes of their own, or ports: two of them cannot be at once.
STOP_FIRST = {"nginx", "mt5-api", "mt5-stream", "mt5-market", "redis", "postgres", "backup",
              "prometheus", "alertmanager", "grafana"}  # fmt: skip


def values() -> dict[str, str]:
    names = {name: f"mt5_{name}_v1" for name in ALL}
    found = variables("mt5", Deployment(domain="x"), SIZES, names)
    found |= Replicas.wanted(SIZES, {}, frozenset()).variables()
    found |= core_limits(2) | {image.variable: image.tag() for image in IMAGES}
    hashed = [*CONFIG_FILES, *(name.upper() for name in generated_configs(SIZES))]
    return found | {f"{name}_HASH": "0" for name in hashed}


@pytest.mark.parametrize("file", [MAIN, SIM])
def test_every_variable_gets_a_value_and_none_is_for_nothing(file: Path) -> None:
    asked = set(VARIABLE.findall(file.read_text()))
    assert asked <= values().keys()
    if file is MAIN:
        # The owner's and the keys' URLs are for jobs, which get them by their names.
        for_jobs = {"SECRET_OWNER_DATABASE_URL", "SECRET_KEYS_DATABASE_URL", OPS.variable}
        assert values().keys() - asked == for_jobs | {"TERMINAL_SIM_IMAGE"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert service["deploy"]["endpoint_mode"] == "dnsrr"
    assert "max_attempts" not in service["deploy"]["restart_policy"]
    need = read_needs(MAIN)[name]
    assert 0 < need.reserved_gb <= need.limit_gb
    assert 0 < need.reserved_cores <= need.limit_cores


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_a_version_and_no_service_holds_a_secret_in_its_environment(
    name: str,
) -> None:
    service = SERVICES[name]
    image = service["image"]
    tag = image.rpartition(":")[2]
    assert re.fullmatch(r"\$\{[A-Z_]+_IMAGE:\?\}", image) or tag not in {"latest", "", image}
    for variable, value in service.get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|KEY|TOKEN", variable) and "TERMINALS" not in variable:
            held = ("/run/secrets/", "/etc/grafana/tls/", "${JWT_SECRET_FILE}")
            assert str(value).startswith(held), variable


def test_only_pools_and_terminals_are_in_the_terminals_network() -> None:
    joined = {name for name, service in SERVICES.items() if "terminals" in service["networks"]}
    assert joined == {*POOLS, *POOLS.values(), "mt5-market"}
    assert "encrypted" in STACK["networks"]["terminals"]["driver_opts"]
    for name in ("mt5-api", "mt5-stream", "mt5-market"):
        assert SERVICES[name]["networks"] == ["terminals"]
        assert "ports" not in SERVICES[name]


def test_who_looks_a_name_up_shares_one_network_with_whoever_has_it() -> None:
    """Of two shared networks Docker gives the address in one, and not always in the same."""
    pools = ["api-pool", "websocket-pool"]
    asked = [
        *((pool, store) for pool in pools for store in ("redis", "postgres")),
        *(("nginx", name) for name in (*pools, "console")),
        ("console", "nginx"),
        ("backup", "postgres"),
        ("backup", "redis"),
        *(("prometheus", pool) for pool in pools),
        ("redis-exporter", "redis"),
        ("postgres-exporter", "postgres"),
        ("nginx-exporter", "nginx"),
        ("grafana", "prometheus"),
        ("api-pool", "mt5-api"),
        ("websocket-pool", "mt5-stream"),
    ]
    for asker, name in asked:
        shared = set(SERVICES[asker]["networks"]) & set(SERVICES[name]["networks"])
        assert len(shared) == 1, (asker, name)


def test_only_nginx_and_grafana_publish_ports_and_keep_clients_addresses() -> None:
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    assert published.keys() == {"nginx", "grafana"}
    assert {port["mode"] for ports in published.values() for port in ports} == {"host"}


def test_pools_start_first_and_roll_back_and_what_has_a_volume_stops_first() -> None:
    for name, service in SERVICES.items():
        update = service["deploy"].get("update_config", {})
        if name in POOLS:
            assert update["order"] == "start-first"
            assert update["failure_action"] == "rollback"
        if name in STOP_FIRST:
            assert update["order"] == "stop-first"


@pytest.mark.parametrize(
    ("name", "at_least_s"),
    [("api-pool", 65), ("websocket-pool", 20), ("mt5-api", 70), ("mt5-stream", 70)],
)
def test_whoever_drains_is_given_the_time(name: str, at_least_s: int) -> None:
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= at_least_s


def test_a_terminal_takes_what_is_assumed_of_it() -> None:
    needs, assumed = read_needs(MAIN), SIZES.terminals
    for name, each in (
        ("mt5-api", assumed.api),
        ("mt5-stream", assumed.stream),
        ("mt5-market", assumed.market),
    ):
        assert needs[name].reserved_gb == pytest.approx(each * assumed.reserved_gb, abs=0.01)
        assert needs[name].limit_gb == pytest.approx(each * assumed.limit_gb, abs=0.01)


def test_the_page_of_sizes_is_up_to_date() -> None:
    assert Path("docs/sizes.md").read_text() == sizes_page(MAIN, SIZES), "make sizes"


def test_slots_own_the_terminals_that_the_list_has_for_them() -> None:
    for slots in (api_slots(SIZES), stream_slots(SIZES)):
        listed = {one.terminal_id: one for one in slots.terminals()}
        assert len(listed) == slots.most * slots.each
        for number, terminal_id in enumerate(slots.ids("2")):
            assert listed[terminal_id].host == f"{slots.service}-2"
            assert listed[terminal_id].port == 8001 + number


def test_secrets_of_the_stack_are_those_that_are_made() -> None:
    assert set(STACK["secrets"]) == set(ALL) - {"owner_database_url", "keys_database_url"}
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert used == set(STACK["secrets"])


def test_grafana_is_given_every_dashboard_there_is() -> None:
    directory = "/etc/grafana/dashboards"
    given = {
        config["target"]: Path(STACK["configs"][config["source"]]["file"])
        for config in SERVICES["grafana"]["configs"]
    }
    dashboards = {path.name: path for path in Path("grafana-dashboards").glob("*.json")}
    assert dashboards
    for name, path in dashboards.items():
        assert given[f"{directory}/{name}"] == path
        assert {panel["datasource"]["uid"] for panel in json.loads(path.read_text())["panels"]} == {
            "prometheus"
        }


def test_our_images_are_those_that_are_built() -> None:
    used = {
        match[1]
        for file in (MAIN, SIM)
        for match in re.finditer(r"image: \$\{([A-Z_]+):\?\}", file.read_text())
    }
    assert used == {image.variable for image in IMAGES if image is not OPS}


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_what_an_image_copies_is_what_its_version_is_made_from(image: Image) -> None:
    dockerfile = image.dockerfile.read_text()
    if image.target:
        assert f"AS {image.target}\n" in dockerfile
    for source in image.sources:
        assert Path(source).exists()
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )*((?:\S+ )+)\S+$", dockerfile, re.MULTILINE)
    others = {room for one in IMAGES if one is not image for room in one.sources}
    for source in (one for line in copied for one in line.split()):
        assert any(source.startswith(own) for own in {*image.sources, *others}), source


def test_an_image_has_another_version_when_what_it_is_made_from_changes(tmp_path: Path) -> None:
    image = Image("mt5-x", Path("services/x/Dockerfile"), ("services/x",))
    room = tmp_path / "services/x"
    room.mkdir(parents=True)
    (tmp_path / ".dockerignore").write_text("*\n")
    (room / "Dockerfile").write_text("FROM scratch\n")
    (room / "main.py").write_text("one")
    first = image.version(tmp_path)
    assert image.version(tmp_path) == first
    (room / "__pycache__").mkdir()
    (room / "__pycache__/main.pyc").write_bytes(b"x")
    (tmp_path / "services/y").mkdir()
    (tmp_path / "services/y/main.py").write_text("not in this image")
    assert image.version(tmp_path) == first
    (room / "main.py").write_text("two")
    assert image.version(tmp_path) != first
