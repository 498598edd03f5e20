"""The stack under test: deployed by the same commands that an operator has."""

import datetime as dt
import json
import os
import re
import secrets
import signal
import ssl
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tests.cluster_plan import ClusterAccount, ClusterPlan, account_at, scenario_of
from tests.swarm.docker_cli import CLIENT, Docker
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
STACK = "mt5test"
ORIGIN = "https://localhost:18443"
COMMAND_S = 900.0
NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)
ACCOUNTS = 12
PLAN = ClusterPlan(accounts=ACCOUNTS, positions=3)
# All at once, since a door behind which nobody is keeps one waiting.
PROBE = """
import asyncio, json, sys
async def opens(host, port):
    try:
        async with asyncio.timeout(8):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return (host, port)
    except OSError:
        return None
async def main():
    doors = json.loads(sys.argv[1])
    found = await asyncio.gather(*(opens(*door) for door in doors))
    print(json.dumps([door for door in found if door]))
asyncio.run(main())
"""


class CommandFailed(AssertionError):
    """A make command ended with another code than was expected; says what it printed."""


@dataclass
class Deployed:
    """One deployment of the stack.

    Args:
        docker: The engine it is on.
        directory: For what the commands write.
        passphrase: Of the offline copy of the secrets.
        accounts: At the simulated broker, by id.
    """

    docker: Docker
    directory: Path
    passphrase: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    accounts: dict[str, ClusterAccount] = field(
        default_factory=lambda: {
            account.account_id: account for account in map(account_at, range(ACCOUNTS))
        }
    )

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._passphrase_file.write_text(self.passphrase)
        self._passphrase_file.chmod(0o600)
        self._pip_conf.write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
        self.scenario.write_bytes(scenario_of(self.accounts, PLAN))

    @property
    def scenario(self) -> Path:
        """What the simulated broker begins with."""
        return self.directory / "scenario.json"

    @property
    def copy(self) -> Path:
        """The offline copy of the secrets."""
        return self.directory / "secrets.enc"

    @property
    def _passphrase_file(self) -> Path:
        return self.directory / "passphrase"

    @property
    def _pip_conf(self) -> Path:
        return self.directory / "pip.conf"

    # -- commands --------------------------------------------------------------------------------

    def make(self, target: str, *variables: str, arguments: str = "", fails: bool = False) -> str:
        """Run a make target as an operator would; what it printed.

        Raises:
            CommandFailed: It ended otherwise than expected.
        """
        command = ["make", "--no-print-directory", target, *variables]
        if arguments:
            command.append(f"ARGS={arguments}")
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if bool(done.returncode) is not fails:
            raise CommandFailed(f"{' '.join(command)}: {done.returncode}\n{done.stdout}")
        return done.stdout

    def make_secrets(self) -> str:
        """`make secrets`."""
        return self.make("secrets", arguments=f"--copy {self.copy}")

    def make_certificate(self) -> str:
        """`make certs`."""
        return self.make("certs", arguments=f"--out {self.directory}")

    def deploy(self, *, fails: bool = False, more: str = "") -> str:
        """`make deploy` at test size; Grafana is left out, since it cannot be installed here."""
        extra = ROOT / "tests/swarm/test-size.yml"
        return self.make(
            "deploy",
            "WITHOUT=grafana",
            arguments=f"--extra {extra} --patience-s 300 {more}",
            fails=fails,
        )

    def secret(self, name: str) -> str:
        """A secret from the offline copy."""
        return self.make("open-copy", f"FILE={self.copy}", f"NAME={name}")

    def scale(self, **counts: int) -> None:
        """`docker service scale`, as an operator types it, and nothing else."""
        wanted = [f"{STACK}_{name.replace('_', '-')}={count}" for name, count in counts.items()]
        self.docker("service", "scale", "--detach", *wanted)

    def restorable_to(self) -> dt.datetime:
        """The last instant that `make backups` names; the first of all times without a backup."""
        found = re.findall(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)", self.make("backups"))
        return max(map(dt.datetime.fromisoformat, found), default=NEVER)

    # -- what runs -------------------------------------------------------------------------------

    def containers(self, service: str) -> list[str]:
        """Ids of the containers of a service that run here."""
        label = f"label=com.docker.swarm.service.name={STACK}_{service}"
        return self.docker("ps", "--quiet", "--no-trunc", "--filter", label).split()

    def healthy(self, service: str) -> list[str]:
        """Ids of those that run and are healthy, or have no health check."""
        found = self.containers(service)
        if not found:
            return []
        states = self.docker.json_lines("inspect", "--format", "{{json .State}}", *found)
        return [
            one
            for one, state in zip(found, states, strict=True)
            if state["Status"] == "running"
            and state.get("Health", {}).get("Status", "healthy") == "healthy"
        ]

    def kill(self, container: str) -> None:
        """`kill -9` of a container's first process, from outside: nobody is told."""
        pid = int(self.docker("inspect", "--format", "{{.State.Pid}}", container))
        os.kill(pid, signal.SIGKILL)

    def wait_healthy(self, service: str, count: int, patience_s: float = 180.0) -> None:
        """Until exactly so many replicas of a service are healthy, and no other runs."""
        wait_for(
            lambda: len(self.healthy(service)) == len(self.containers(service)) == count,
            lambda: f"{service} has not {count} healthy replicas: {self.containers(service)}",
            patience_s,
        )

    def wait_updated(self, service: str, old: set[str], patience_s: float = 300.0) -> None:
        """Until an update that was ordered is done, and none of the containers of before runs."""

        def updated() -> bool:
            shown = self.docker.json("service", "inspect", "--format", "{{json .UpdateStatus}}",
                                     f"{STACK}_{service}")  # fmt: skip
            # It has none between the order and its beginning.
            status = shown or {"State": "updating"}
            assert status["State"] in {"updating", "completed"}, status
            return status["State"] == "completed" and not old & set(self.containers(service))

        wait_for(updated, f"{service} is not updated", patience_s)

    def addresses(self) -> dict[str, list[str]]:
        """Every address of every container of the stack, by service."""
        found: dict[str, list[str]] = {}
        label = f"label=com.docker.stack.namespace={STACK}"
        ids = self.docker("ps", "--quiet", "--no-trunc", "--filter", label).split()
        for one in self.docker.json("inspect", *ids):
            service = one["Config"]["Labels"]["com.docker.swarm.service.name"]
            networks = one["NetworkSettings"]["Networks"].values()
            places = [network["IPAddress"] for network in networks if network["IPAddress"]]
            # Also its address on the bridge to the outside, which all containers have.
            printed = self.docker("exec", one["Id"], "hostname", "-I", check=False)
            found.setdefault(service.removeprefix(f"{STACK}_"), []).extend(
                sorted({*places, *printed.split()})
            )
        return found

    def probe(
        self, network: str, hosts: Sequence[str], ports: Sequence[int]
    ) -> set[tuple[str, int]]:
        """Which of these doors open to a container that joins one of the stack's networks."""
        name = f"{STACK}-probe-{network}"
        doors = json.dumps([(host, port) for host in hosts for port in ports])
        self.docker(
            *("service", "create", "--mode", "replicated-job", "--restart-condition", "none"),
            *("--detach", "--name", name, "--network", f"{STACK}_{network}"),
            *("python:3.13-slim-trixie", "python3", "-c", PROBE, doors),
        )
        try:
            printed = wait_for(
                lambda: self.docker("service", "logs", "--raw", name, check=False),
                f"the probe in {network} says nothing",
            )
        finally:
            self.docker("service", "rm", name)
        return {(host, port) for host, port in json.loads(printed)}

    # -- how it is reached -----------------------------------------------------------------------

    def trust(self) -> ssl.SSLContext:
        """TLS that trusts nothing but the deployment's certificate."""
        return ssl.create_default_context(cafile=str(self.directory / "certificate.pem"))

    def headers(self, account: ClusterAccount, api_key: str) -> dict[str, str]:
        """Of a request for an account."""
        return {"X-API-Key": api_key, "X-User-ID": str(account.user_id)}

    def client(self, api_key: str) -> httpx.Client:
        """A client of the API, through nginx."""
        return httpx.Client(
            base_url=ORIGIN,
            verify=self.trust(),
            headers={"X-API-Key": api_key},
            timeout=60.0,
            trust_env=False,
        )

    def connect_all(self, api_key: str, count: int) -> float:
        """Connect the first accounts through nginx; seconds until the first good answer.

        Raises:
            AssertionError: One is not connected.
        """
        began, first = time.monotonic(), 0.0
        with self.client(api_key) as client:
            for account in list(self.accounts.values())[:count]:
                answer = client.post("/api/mt5/connect", json=account.connect_body())
                assert answer.status_code == httpx.codes.OK, answer.text
                first = first or time.monotonic() - began
        return first

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return kept | {
            "STACK": STACK,
            "SIM": "1",
            "DOCKER": CLIENT,
            "DOCKER_HOST": self.docker.host or os.environ.get("DOCKER_HOST", ""),
            "DEPLOYMENT": str(ROOT / "tests/swarm/deployment.toml"),
            "PASSPHRASE_FILE": str(self._passphrase_file),
            "PIP_CONF": os.environ.get("PIP_CONF") or str(self._pip_conf),
            "BUILD_NETWORK": "host",
            "TEST_SCENARIO": str(self.scenario),
        }
