"""Images of ours for tests that run containers by themselves, without the stack."""

import os
import tempfile
from pathlib import Path

from tests.swarm.docker_cli import Docker

ROOT = Path(__file__).parents[2]


def build_image(
    docker: Docker, dockerfile: str, tag: str, *options: str, context: Path = ROOT
) -> str:
    """Build an image from the tree as it is; its name.

    Args:
        docker: With the base images.
        dockerfile: From the root of the repository.
        tag: What to call it.
        options: More of `docker build`.
        context: What it is built from.

    Raises:
        DockerFailed: It could not be built.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
        conf.write("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
        conf.flush()
        pip = os.environ.get("PIP_CONF") or conf.name
        secret = ("--secret", f"id=pip,src={pip}")
        file = ("--file", str(ROOT / dockerfile))
        docker(
            *("build", "--network=host", *secret, *file, "--tag", tag, *options, str(context)),
            timeout=900,
        )
    return tag
