"""The commands, as `make` calls them."""

import datetime as dt
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console

from swarm_stack import scaling
from swarm_stack.certificates import CertificateInvalid, read_certificate, self_signed
from swarm_stack.convergence import NotConverged
from swarm_stack.deployment import FILE as DEPLOYMENT_FILE
from swarm_stack.deployment import DeploymentInvalid, read_deployment
from swarm_stack.engine import Engine, EngineFailed
from swarm_stack.jobs import JobFailed
from swarm_stack.observed import services_of, stack_is_gone
from swarm_stack.offline_copy import CopyUnreadable, read_copy, write_copy
from swarm_stack.removal import remove_stack
from swarm_stack.resources import sizes_page
from swarm_stack.restoring import Restorer, RestoreRefused
from swarm_stack.rewrapping import RewrapRefused, rewrap
from swarm_stack.secret_groups import ALL, made
from swarm_stack.sizes import Sizes
from swarm_stack.stack import (
    MAIN_FILE,
    SIMULATED_FILE,
    Deployer,
    DeployFailed,
    DeployRefused,
    Plan,
)
from swarm_stack.status import show_status
from swarm_stack.swarm_secrets import SecretsMissing, SwarmSecrets
from swarm_stack.upstreams import with_slots

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False, no_args_is_help=True)
out = Console(highlight=False, soft_wrap=True)

FAILURES: Final = (
    CertificateInvalid,
    CopyUnreadable,
    DeployFailed,
    DeployRefused,
    DeploymentInvalid,
    EngineFailed,
    JobFailed,
    NotConverged,
    OSError,
    RestoreRefused,
    RewrapRefused,
    SecretsMissing,
    ValueError,
    scaling.ScaleLate,
    scaling.ScaleRefused,
)
CERTIFICATES: Final = Path("certs")
NGINX_CONF: Final = Path("nginx.conf")
SIZES_PAGE: Final = Path("docs/sizes.md")

Stack = Annotated[str, typer.Option(envvar="STACK", help="Name of the stack.", metavar="STACK")]
Simulated = Annotated[bool, typer.Option("--sim", help="On simulated terminals.")]
Settings = Annotated[
    Path, typer.Option(envvar="DEPLOYMENT", help="The deployment's settings, TOML.")
]
Domain = Annotated[str | None, typer.Option(help="The name under which clients come.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(envvar="PASSPHRASE_FILE", help="File with the passphrase; else you are asked."),
]


@app.callback()
def main() -> None:
    """Deploy mt5-swarm on a Docker Swarm, and operate it there."""
    # A connection that breaks off ends a command as Ctrl-C does: what it stopped is started again.
    for ending in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)


@app.command()
def deploy(  # noqa: PLR0913, PLR0917 - options of a command
    stack: Stack = "mt5",
    sim: Simulated = False,
    domain: Domain = None,
    settings: Settings = DEPLOYMENT_FILE,
    without: Annotated[str, typer.Option(help="Services to leave out, by commas: grafana.")] = "",
    extra: Annotated[
        list[Path] | None, typer.Option(help="More stack files, which override.")
    ] = None,
    patience_s: Annotated[
        float | None,
        typer.Option(help="How long it may take; else half an hour, and more by terminals."),
    ] = None,
) -> None:
    """Build the images and bring the stack to this tree, the first time or again."""
    with _told():
        engine = _engine()
        plan = Plan(
            stack=stack,
            deployment=read_deployment(settings, domain=domain, simulated=sim),
            sizes=Sizes.read(),
            simulated=sim,
            without=frozenset(name.strip() for name in without.split(",") if name.strip()),
            extra_files=tuple(extra or ()),
            patience_s=patience_s,
        )
        deployer = Deployer(engine, plan, _say)
        deployer.build()
        deployer.deploy()
        _say(f"{stack} runs: {plan.deployment.origin}/health")


@app.command()
def build(
    stack: Stack = "mt5",
    sim: Simulated = False,
    domain: Domain = None,
    settings: Settings = DEPLOYMENT_FILE,
) -> None:
    """Build the images, and publish them where deployment.toml names a registry."""
    with _told():
        Deployer(_engine(), _plan(stack, settings, domain, sim=sim), _say).build()


@app.command()
def status(stack: Stack = "mt5") -> None:
    """Show what runs, and what is wrong; ends with 1 if something is."""
    with _told():
        services = services_of(_engine(), stack)
        if not services:
            _fail(f"there is no stack {stack} here: make deploy")
        if not show_status(out, stack, services):
            raise typer.Exit(1)


@app.command()
def scale(
    service: Annotated[str, typer.Argument(help="api-pool, websocket-pool or mt5-market.")],
    replicas: Annotated[int, typer.Argument(help="How many it is to have.")],
    stack: Stack = "mt5",
) -> None:
    """Scale a pool together with its terminals, without losing a request or a stream."""
    with _told():
        scaling.scale(_engine(), stack, service, replicas, Sizes.read(), _say)


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="A service of the stack; all if none.")] = "",
    stack: Stack = "mt5",
    lines: Annotated[int, typer.Option(help="How many to begin with.")] = 100,
    follow: Annotated[bool, typer.Option(help="Go on until Ctrl-C.")] = False,
) -> None:
    """Print what services say."""
    with _told():
        engine = _engine()
        known = services_of(engine, stack)
        if service and service not in known:
            _fail(f"{stack} has no service {service}; it has: {', '.join(sorted(known))}")
        if follow and not service:
            _fail(f"one service can be followed: SERVICE={'|'.join(sorted(known))}")
        for name in [service] if service else sorted(known):
            if follow:
                engine.show("service", "logs", "--tail", str(lines), "--follow", f"{stack}_{name}")
                continue
            # By tasks: of a service the engine waits for a task that never had a container.
            for task in reversed(known[name].tasks):
                if task.container:
                    engine.show("service", "logs", "--tail", str(lines), task.task_id)


@app.command()
def secrets(
    stack: Stack = "mt5",
    given: Annotated[
        Path | None,
        typer.Option("--from", help="Directory of files, each the value of the secret it is named"),
    ] = None,
    from_copy: Annotated[
        Path | None, typer.Option(help="An offline copy whose secrets this swarm is to have.")
    ] = None,
    renew: Annotated[str, typer.Option(help="Secrets to make anew, by commas.")] = "",
    copy: Annotated[Path | None, typer.Option(help="The offline copy to write.")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make the secrets that are missing, and an encrypted offline copy of what was made."""
    with _told():
        store = SwarmSecrets(_engine(), stack)
        values = _given(given)
        if from_copy is not None:
            held = read_copy(from_copy, _passphrase(passphrase_file, new=False))
            # What only the operator has is none of the swarm's.
            values |= {name: value for name, value in held.items() if name in ALL}
        anew = frozenset(name.strip() for name in renew.split(",") if name.strip())
        try:
            fresh = made(frozenset(store.versions()), values, anew)
        except KeyError as unknown:
            _fail(f"there is no secret {unknown.args[0]}")
        if not fresh.swarm:
            _say("all secrets are there")
            return
        path = copy or Path(f"{stack}-secrets-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.enc")
        # First the copy: a key ring that only the swarm has is lost with it.
        write_copy(path, fresh.offline, _passphrase(passphrase_file, new=True))
        store.add(fresh.swarm)
        _say(f"made {', '.join(sorted(fresh.swarm))}")
        _say(
            f"{path} holds them, encrypted. Keep it where the swarm is not: Docker gives no secret"
            " back, and without the key ring the stored passwords are lost."
        )
        if "api_key" in fresh.offline:
            _say(f"the key for callers of the API: make open-copy FILE={path} NAME=api_key")


@app.command()
def open_copy(
    path: Annotated[Path, typer.Argument(help="An offline copy of `make secrets`.")],
    name: Annotated[str, typer.Argument(help="A secret's name; the names if none.")] = "",
    passphrase_file: PassphraseFile = None,
) -> None:
    """Print one secret of an offline copy, to be piped to where it is needed."""
    with _told():
        values = read_copy(path, _passphrase(passphrase_file, new=False))
        if not name:
            _say("\n".join(sorted(values)))
            return
        if name not in values:
            _fail(f"{path} has no {name}; it has {', '.join(sorted(values))}")
        typer.echo(values[name], nl=False)


@app.command()
def rewrap_keys(
    stack: Stack = "mt5",
    sim: Simulated = False,
    domain: Domain = None,
    settings: Settings = DEPLOYMENT_FILE,
    actor: Annotated[str, typer.Option(help="Who does it, for the audit log.")] = "operator",
) -> None:
    """Put every stored password under the active key of the key ring that the pools have."""
    with _told():
        plan = _plan(stack, settings, domain, sim=sim, named=False)
        rewrap(_engine(), plan, actor, _say)
        _say("no stored password is under another key")


@app.command()
def certs(  # noqa: PLR0913, PLR0917 - options of a command
    stack: Stack = "mt5",
    sim: Simulated = False,
    domain: Domain = None,
    settings: Settings = DEPLOYMENT_FILE,
    chain: Annotated[Path | None, typer.Option(help="A certificate chain, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    made_in: Annotated[
        Path, typer.Option("--out", help="Where a certificate made here is written.")
    ] = CERTIFICATES,
) -> None:
    """Give nginx a certificate: yours, or one made here, which only a trial is content with."""
    with _told():
        plan = _plan(stack, settings, domain, sim=sim, named=chain is None)
        deployer = Deployer(_engine(), plan, _say)
        if (chain is None) != (key is None):
            _fail("a certificate and its key come together: CERT=fullchain.pem KEY=privkey.pem")
        if chain is not None and key is not None:
            certificate = read_certificate(chain, key)
        else:
            certificate = self_signed(plan.deployment.domain)
            made_in.mkdir(parents=True, exist_ok=True)
            (made_in / "certificate.pem").write_bytes(certificate.chain)
            _say(
                "made a certificate that nobody trusts by himself; for a trial:"
                f" curl --cacert {made_in}/certificate.pem ..."
            )
        deployer.build()
        deployer.install_certificate(certificate)
        _say(f"nginx has it; it expires on {certificate.expires:%Y-%m-%d}")


@app.command()
def backups(
    stack: Stack = "mt5",
    sim: Simulated = False,
    domain: Domain = None,
    settings: Settings = DEPLOYMENT_FILE,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="First copy them back from their second place.")
    ] = False,
) -> None:
    """Show to which times the database can be restored."""
    with _told():
        plan = _plan(stack, settings, domain, sim=sim, named=False)
        engine = _engine()
        restorer = Restorer(engine, plan, _say)
        if fetch:
            Deployer(engine, plan, _say).build()
            restorer.fetch()
        _say(restorer.backups())


@app.command()
def restore(
    to: Annotated[str, typer.Argument(help="A time with its zone: 2026-11-29T22:15:00Z.")],
    stack: Stack = "mt5",
    sim: Simulated = False,
    domain: Domain = None,
    settings: Settings = DEPLOYMENT_FILE,
) -> None:
    """Bring the database back to a time. Nothing answers meanwhile; Redis begins empty."""
    with _told():
        plan = _plan(stack, settings, domain, sim=sim, named=False)
        Restorer(_engine(), plan, _say).restore(to)
        _say(f"the database of {stack} is that of {to}")


@app.command()
def sizes() -> None:
    """Write what is made from config/stack.toml: nginx.conf's slots, and docs/sizes.md."""
    with _told():
        text = NGINX_CONF.read_text(encoding="utf-8")
        NGINX_CONF.write_text(with_slots(text, Sizes.read()), encoding="utf-8")
        _say(f"wrote the slots of {NGINX_CONF}")
        SIZES_PAGE.write_text(sizes_page(MAIN_FILE, Sizes.read()), encoding="utf-8")
        _say(f"wrote {SIZES_PAGE}")


@app.command()
def undeploy(
    stack: Stack = "mt5",
    data: Annotated[
        bool, typer.Option("--data", help="Also volumes: accounts, backups, everything.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--secrets", help="Also secrets: without a copy, passwords are lost.")
    ] = False,
) -> None:
    """Remove the stack; its data and its secrets stay, unless you say otherwise."""
    with _told():
        engine = _engine()
        if stack_is_gone(engine, stack) and not data and not forget:
            _fail(f"there is no stack {stack} here")
        remove_stack(engine, stack, (MAIN_FILE, SIMULATED_FILE), data=data, report=_say)
        if forget:
            _say(f"removed {SwarmSecrets(engine, stack).remove_all()} secrets")
        if not data:
            _say(f"the data stays in volumes {stack}_*; make undeploy ARGS=--data removes it")


def _plan(stack: str, settings: Path, domain: str | None, *, sim: bool, named: bool = True) -> Plan:
    deployment = read_deployment(settings, domain=domain, simulated=sim, named=named)
    return Plan(stack=stack, deployment=deployment, sizes=Sizes.read(), simulated=sim)


def _engine() -> Engine:
    engine = Engine()
    engine.require_manager()
    return engine


def _given(directory: Path | None) -> dict[str, bytes]:
    """Values by the names of their files; what editors leave at the end is not part of one."""
    if directory is None:
        return {}
    files = [path for path in sorted(directory.iterdir()) if not path.name.startswith(".")]
    return {path.name: path.read_bytes().rstrip(b"\r\n") for path in files if path.is_file()}


def _passphrase(file: Path | None, *, new: bool) -> str:
    if file is not None:
        return file.read_text(encoding="utf-8").strip()
    if not os.isatty(0):
        _fail("a passphrase is needed: PASSPHRASE_FILE=...")
    asked: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=new)
    return asked


def _say(text: str) -> None:
    out.print(text, markup=False)


def _fail(reason: str) -> NoReturn:
    typer.secho(reason, err=True, fg=typer.colors.RED)
    raise typer.Exit(1)


@contextmanager
def _told() -> Iterator[None]:
    """A failure that a person can act on is a sentence, and no traceback."""
    try:
        yield
    except FAILURES as failure:
        _fail(str(failure))
