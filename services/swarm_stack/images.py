"""Our images: which there are, what they are built from, and their version."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_stack.engine import Engine

# What images are made from; .dockerignore lets nothing else in.
SOURCES: Final = ("services", "migrations", ".dockerignore")
PIP_CONF: Final = "PIP_CONF"


@dataclass(frozen=True, slots=True)
class Image:
    """An image of ours.

    Args:
        name: Without registry and version.
        dockerfile: From the root of the repository.
        target: Of a Dockerfile that makes several.
    """

    name: str
    dockerfile: Path
    target: str | None = None


_PYTHON: Final = Path("services/Dockerfile")
CORE: Final = (
    *(Image(f"mt5-{kind}", _PYTHON, kind) for kind in ("api-pool", "websocket-pool")),
    *(Image(f"mt5-{kind}", _PYTHON, kind) for kind in ("console", "ops")),
    Image("mt5-nginx", Path("services/nginx/Dockerfile")),
    Image("mt5-postgres", Path("services/postgres/Dockerfile")),
    Image("mt5-backup", Path("services/backup/Dockerfile")),
)
TERMINAL: Final = Image("mt5-terminal", Path("services/terminal/Dockerfile"))
SIMULATED: Final = Image("mt5-terminal-sim", Path("services/terminal_sim/Dockerfile"))


def images(*, simulated: bool) -> tuple[Image, ...]:
    """What a stack needs."""
    return (*CORE, SIMULATED if simulated else TERMINAL)


def version_of(root: Path = Path()) -> str:
    """The version of the images made from the tree as it is: the hash of what they are made from.

    So an image that is there is the right one, and a changed tree is another version.
    """
    digest = hashlib.sha256()
    for path in sorted(_files(root)):
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_mode & 0o111}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _files(root: Path) -> Iterator[Path]:
    for source in SOURCES:
        place = root / source
        found = place.rglob("*") if place.is_dir() else [place]
        for path in found:
            ignored = "__pycache__" in path.parts or path.suffix == ".pyc"
            if path.is_file() and not ignored and ".egg-info" not in str(path):
                yield path


def build(
    engine: Engine, wanted: tuple[Image, ...], version: str, report: Callable[[str], None]
) -> None:
    """Build what is not there yet.

    A package index of one's own is read from the file `PIP_CONF` names, as a build secret;
    `BUILD_NETWORK` is docker's `--network`.

    Raises:
        EngineFailed: One could not be built.
    """
    for image in wanted:
        tag = f"{image.name}:{version}"
        if engine.has_image(tag):
            continue
        report(f"building {tag}")
        options = ["--build-arg", f"VERSION={version}"]
        if image.target:
            options += ["--target", image.target]
        if pip_conf := os.environ.get(PIP_CONF):
            options += ["--secret", f"id=pip,src={pip_conf}"]
        if network := os.environ.get("BUILD_NETWORK"):
            options += ["--network", network]
        engine.build(image.dockerfile, tag, options)


def publish(engine: Engine, wanted: tuple[Image, ...], version: str, registry: str) -> None:
    """Put the images where the other nodes of the swarm get them.

    Raises:
        EngineFailed: The registry refuses them.
    """
    for image in wanted:
        tag = f"{image.name}:{version}"
        engine.run("tag", tag, f"{registry.rstrip('/')}/{tag}")
        engine.run("push", f"{registry.rstrip('/')}/{tag}", timeout_s=3600.0)
