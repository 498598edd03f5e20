"""Looking for secrets where they must not be seen."""

import base64
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.swarm.bases import BASES
from tests.swarm.deployed import STACK, Deployed
from tests.swarm.docker_cli import Docker

OURS = "{{.Repository}}:{{.Tag}}"


def needles(deployed: Deployed) -> dict[str, bytes]:
    """Everything that is secret, by name: what is in the copy, and the parts of it."""
    names = deployed.make("open-copy", f"FILE={deployed.copy}").split()
    values = {name: deployed.secret(name).encode() for name in names}
    found = {name: value for name, value in values.items() if not name.endswith("_keys")}
    del found["redis_acl"]
    for name, value in values.items():
        if name.endswith("_url"):
            found[f"password of {name}"] = value.split(b":")[2].partition(b"@")[0]
    ring = json.loads(found.pop("key_ring"))
    found |= {f"key {key_id}": key.encode() for key_id, key in ring["keys"].items()}
    exporter = json.loads(found.pop("redis_exporter_passwords"))
    found |= {f"exporter of {where}": text.encode() for where, text in exporter.items()}
    accounts = deployed.accounts.values()
    return found | {f"password of {one.account_id}": one.password.encode() for one in accounts}


def search(docker: Docker, needles: Mapping[str, bytes]) -> list[str]:
    """Where a secret is seen: specifications, environments, arguments, logs, image layers."""
    label = f"label=com.docker.stack.namespace={STACK}"
    containers = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", label).split()
    services = docker("service", "ls", "--quiet", "--filter", label).split()
    tasks = docker("service", "ps", "--quiet", "--no-trunc", *services).split()
    places = {
        "inspected containers": docker("inspect", *containers).encode(),
        "inspected services": docker("service", "inspect", *services).encode(),
        "inspected tasks": docker("inspect", "--type", "task", *tasks).encode(),
        "inspected secrets": docker(
            "secret", "inspect", *docker("secret", "ls", "-q").split()
        ).encode(),
    }
    for one in containers:
        name = docker("inspect", "--format", "{{.Name}}", one)
        places[f"log of {name}"] = docker.both("logs", one).encode()
    for process in _processes(docker, containers):
        for part in ("environ", "cmdline"):
            try:
                places[f"{part} of process {process}"] = Path(
                    f"/proc/{process}/{part}"
                ).read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
    for config in docker.json("config", "inspect", *docker("config", "ls", "--quiet").split()):
        # The simulated broker knows its accounts' passwords from one: those are not ours.
        if not config["Spec"]["Name"].endswith("_scenario"):
            held = base64.b64decode(config["Spec"]["Data"])
            places[f"config {config['Spec']['Name']}"] = held
    listed = docker.lines("image", "ls", "--format", OURS)
    images = sorted(line for line in listed if re.match(r"mt5-[a-z-]+:", line))
    for image in images:
        told = docker("image", "inspect", image) + docker("history", "--no-trunc", image)
        places[f"image {image}"] = told.encode()
    ours = _layers(docker, images) - _layers(docker, [base.name for base in BASES])
    return [
        f"{name} in {place}"
        for place, text in itertools.chain(places.items(), _files(ours))
        for name, needle in needles.items()
        if needle in text
    ]


def _processes(docker: Docker, containers: Sequence[str]) -> list[str]:
    found: list[str] = []
    for one in containers:
        listed = docker("top", one, "-eo", "pid", check=False).split()[1:]
        found += listed
    return found


def _layers(docker: Docker, images: Sequence[str]) -> set[Path]:
    """Where the engine, which is ours, keeps the layers of images."""
    found: set[str] = set()
    for image in docker.json("image", "inspect", *images):
        kept = image["GraphDriver"]["Data"]
        found |= {kept["UpperDir"], *kept.get("LowerDir", "").split(":")}
    return {Path(one) for one in found - {""}}


def _files(directories: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for path in (path for top in directories for path in top.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield f"layer file {path}", path.read_bytes()
