"""Stand-ins for the base images, built from Debian where the real ones cannot be pulled.

Each has the name, the programs and the user ids that the stack and our Dockerfiles expect of the
real one; nothing else of it is imitated.
"""

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.swarm.docker_cli import Docker, DockerFailed

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# A mirror's copy of a suite in development may be older than it says it may be.
APT_CONF = "etc/apt/apt.conf.d/90mt5-swarm-test"
# The stand-in's label: an image without it was pulled, and is the real one.
LABEL = "mt5-swarm.stand-in"


@dataclass(frozen=True, slots=True)
class Base:
    """A base image and what Debian makes it from.

    Args:
        name: Of the image it stands for.
        suite: Of Debian.
        packages: To be installed.
        steps: Shell commands after that.
        config: Lines of a Dockerfile, at the end.
    """

    name: str
    suite: str
    packages: tuple[str, ...]
    steps: tuple[str, ...] = ()
    config: tuple[str, ...] = ()

    def dockerfile(self) -> str:
        """The stand-in's Dockerfile."""
        steps = [
            "apt-get update -qq",
            f"apt-get install -y -qq --no-install-recommends {' '.join(self.packages)} >/dev/null",
            "rm -rf /var/lib/apt/lists/*",
            *self.steps,
        ]
        lines = [
            f"FROM {suite_image(self.suite)}",
            "RUN export DEBIAN_FRONTEND=noninteractive && " + " && ".join(steps),
            *self.config,
        ]
        return "\n".join(lines) + "\n"


def _user(name: str, number: int) -> str:
    """A user with the number that the real image has."""
    return (
        f"(userdel {name} 2>/dev/null; groupdel {name} 2>/dev/null;"
        f" groupadd --system --gid {number} {name}"
        f" && useradd --system --uid {number} --gid {number} --no-create-home {name})"
    )


BASES = (
    Base("python:3.13-slim-trixie", "trixie", ("python3", "python3-venv")),
    Base("nginx:1.30.6", "forky", ("nginx",), (_user("nginx", 101),)),
    Base(
        "postgres:18.6-trixie",
        "forky",
        ("postgresql-18",),
        (
            # Debian would run a cluster of its own.
            "rm -rf /var/lib/postgresql/* /etc/postgresql",
            "usermod --non-unique --uid 999 postgres",
            "groupmod --non-unique --gid 999 postgres",
            "install -d -o postgres -g postgres /var/lib/postgresql /var/run/postgresql",
        ),
        ("ENV PATH=$PATH:/usr/lib/postgresql/18/bin",),
    ),
    Base(
        "redis:8.0.6",
        "forky",
        ("redis-server", "redis-tools"),
        (
            "usermod --non-unique --uid 999 redis",
            "groupmod --non-unique --gid 999 redis",
            "install -d -o redis /data",
        ),
    ),
    Base(
        "prom/prometheus:v3.5.3",
        "forky",
        ("prometheus",),
        ("install -d -o nobody -g nogroup /prometheus",),
    ),
    Base(
        "prom/alertmanager:v0.33.1",
        "forky",
        ("prometheus-alertmanager",),
        (
            "ln -s /usr/bin/prometheus-alertmanager /usr/bin/alertmanager",
            "install -d -o nobody -g nogroup /alertmanager",
        ),
    ),
    Base(
        "prom/node-exporter:v1.11.1",
        "forky",
        ("prometheus-node-exporter",),
        ("ln -s /usr/bin/prometheus-node-exporter /usr/bin/node_exporter",),
    ),
    Base(
        "oliver006/redis_exporter:v1.86.0",
        "forky",
        ("prometheus-redis-exporter",),
        ("ln -s /usr/bin/prometheus-redis-exporter /redis_exporter",),
    ),
    Base(
        "quay.io/prometheuscommunity/postgres-exporter:v0.19.1",
        "forky",
        ("prometheus-postgres-exporter",),
        ("ln -s /usr/bin/prometheus-postgres-exporter /usr/bin/postgres_exporter",),
    ),
    Base(
        "nginx/nginx-prometheus-exporter:1.5.1",
        "forky",
        ("prometheus-nginx-exporter",),
        ("ln -s /usr/bin/prometheus-nginx-exporter /usr/bin/nginx-prometheus-exporter",),
    ),
)


def suite_image(suite: str) -> str:
    """The name of our image of a suite of Debian."""
    return f"mt5-swarm-test/debian:{suite}"


def ensure_base(docker: Docker, base: Base) -> None:
    """Build a stand-in, unless the image is there: the real one, or a stand-in made like this.

    Raises:
        DockerFailed: It could not be built.
    """
    text = base.dockerfile()
    recipe = hashlib.sha256(text.encode()).hexdigest()[:16]
    if _label(docker, base.name) in (recipe, ""):
        return
    _ensure_suite(docker, base.suite)
    docker(
        *("build", "--network=host", "--label", f"{LABEL}={recipe}", "--tag", base.name, "-"),
        stdin=text.encode(),
        timeout=600,
    )


def _label(docker: Docker, image: str) -> str | None:
    """The recipe of a stand-in, an empty string for a real image, None for none."""
    try:
        found = docker.json("image", "inspect", "--format", "{{json .Config.Labels}}", image)
    except DockerFailed:
        return None
    return str((found or {}).get(LABEL, ""))


def _mirror() -> str:
    """Where this machine has its Debian from."""
    command = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    found = [uri for uri in listed if "security" not in uri]
    if not found:
        raise DockerFailed("apt-get knows no mirror of Debian on this machine")
    return found[0]


def _ensure_suite(docker: Docker, suite: str) -> None:
    image = suite_image(suite)
    if _label(docker, image) is not None:
        return
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates"]
        # A suite that this debootstrap does not know yet is made as the newest it knows.
        script = [] if Path(f"/usr/share/debootstrap/scripts/{suite}").exists() else ["sid"]
        done = subprocess.run(
            [*command, suite, str(root), _mirror(), *script], capture_output=True, check=False
        )
        if done.returncode:
            raise DockerFailed(f"debootstrap {suite}: {done.stdout.decode()[-2000:]}")
        (root / APT_CONF).write_text('Acquire::Check-Valid-Until "false";\n')
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        for package in (root / "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        docker.import_root(root, image, f"LABEL {LABEL}=debian")
