"""Our images: which there are, what they are built from, and their versions."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_stack.engine import Engine

PIP_CONF: Final = "PIP_CONF"
BUILD_NETWORK: Final = "BUILD_NETWORK"


@dataclass(frozen=True, slots=True)
class Image:
    """An image of ours.

    Args:
        name: Without registry and version.
        dockerfile: From the root of the repository.
        sources: What is copied into it, files and directories.
        target: Of a Dockerfile that makes several.
    """

    name: str
    dockerfile: Path
    sources: tuple[str, ...]
    target: str | None = None

    @property
    def variable(self) -> str:
        """What its full name is called in the stack file."""
        return f"{self.name.removeprefix('mt5-').replace('-', '_').upper()}_IMAGE"

    def version(self, root: Path = Path()) -> str:
        """The hash of what it is made from.

        So an image that is there is the right one, and what has not changed is not updated.
        """
        digest = hashlib.sha256()
        for path in sorted(_files(root, (str(self.dockerfile), ".dockerignore", *self.sources))):
            digest.update(f"{path.relative_to(root)}\0{path.stat().st_mode & 0o111}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:12]

    def tag(self) -> str:
        """Name and version."""
        return f"{self.name}:{self.version()}"


def _python(kind: str, lock: str, *rooms: str) -> Image:
    sources = ("services/mt5kit", "services/requirements-pools.lock", lock, *rooms)
    return Image(f"mt5-{kind}", Path("services/Dockerfile"), sources, kind)


def _own(kind: str) -> Image:
    room = f"services/{kind.replace('-', '_')}"
    return Image(f"mt5-{kind}", Path(room, "Dockerfile"), (room,))


_POOLS: Final = "services/requirements-pools.lock"
OPS: Final = _python("ops", "services/requirements-ops.lock", "services/ops", "migrations")
NGINX: Final = _own("nginx")
BACKUP: Final = _own("backup")
TERMINAL: Final = _own("terminal")
SIMULATED: Final = _own("terminal-sim")
ALL: Final = (
    _python("api-pool", _POOLS, "services/api_pool"),
    _python("websocket-pool", _POOLS, "services/websocket_pool"),
    _python("console", "services/requirements-console.lock", "services/console"),
    OPS,
    NGINX,
    _own("postgres"),
    BACKUP,
    TERMINAL,
    SIMULATED,
)


def wanted(*, simulated: bool) -> tuple[Image, ...]:
    """What a stack needs: real terminals or simulated ones."""
    return tuple(image for image in ALL if image is not (TERMINAL if simulated else SIMULATED))


def build(
    engine: Engine, images: Iterable[Image], registry: str, report: Callable[[str], None]
) -> None:
    """Build what is not there yet, and put it where the other nodes of the swarm get it.

    A package index of one's own is read from the file that `PIP_CONF` names, as a build secret;
    `BUILD_NETWORK` is docker's `--network`.

    Args:
        engine: Where they are built.
        images: Which.
        registry: Where they are put; empty for a swarm of one node.
        report: Told of each.

    Raises:
        EngineFailed: One could not be built, or the registry refuses it.
    """
    for image in images:
        tag = image.tag()
        if not engine.has_image(tag):
            report(f"building {tag}")
            engine.build(image.dockerfile, tag, _options(image))
        if registry:
            report(f"publishing {tag}")
            engine.run("tag", tag, f"{registry}/{tag}")
            engine.run("push", f"{registry}/{tag}", timeout_s=3600.0)


def _options(image: Image) -> list[str]:
    options = ["--build-arg", f"VERSION={image.version()}"]
    if image.target:
        options += ["--target", image.target]
    if pip_conf := os.environ.get(PIP_CONF):
        options += ["--secret", f"id=pip,src={pip_conf}"]
    if network := os.environ.get(BUILD_NETWORK):
        options += ["--network", network]
    return options


def _files(root: Path, sources: Iterable[str]) -> Iterator[Path]:
    for source in sources:
        place = root / source
        for path in place.rglob("*") if place.is_dir() else [place]:
            if path.is_file() and "__pycache__" not in path.parts:
                yield path
