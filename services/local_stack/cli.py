"""`run` and `stop`: what `make run` and `make stop` call."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import psutil
import typer
from rich.console import Console

from local_stack.credentials import console_url, write_credentials
from local_stack.embedded_process import EmbeddedServerError
from local_stack.stack import RunningStack, bind, running_stack
from local_stack.watch import watch
from mt5kit.telemetry.logs import configure_logs

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
out = Console(highlight=False, soft_wrap=True)

DataDir = Annotated[Path, typer.Option(help="Where all data lives.")]
# Stopping writes a checkpoint and ends 22 terminals.
STOP_PATIENCE_S: Final = 40.0


@app.command()
def run(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    accounts: Annotated[int, typer.Option(min=3, max=200, help="At the simulated broker.")] = 3,
    data_dir: DataDir = Path(".local"),
) -> None:
    """Run everything until Ctrl-C."""
    data_dir = data_dir.absolute()
    try:
        with _pid_file(data_dir), bind(port) as listener, _logging_to(data_dir / "services.log"):
            asyncio.run(_run(listener, accounts, data_dir))
    except EmbeddedServerError as failure:
        out.print(f"[bold red]error:[/] {failure}", markup=True)
        raise typer.Exit(1) from None


@app.command()
def stop(data_dir: DataDir = Path(".local")) -> None:
    """Stop what `run` started; the data stays."""
    process = _running(data_dir)
    if process is None:
        out.print("nothing is running")
        return
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_PATIENCE_S
    # It takes its pid file away as its last act, whoever reaps the process afterwards.
    while _running(data_dir) is not None:
        if time.monotonic() > deadline:
            out.print(f"[bold red]error:[/] process {process.pid} does not end; kill it by hand")
            raise typer.Exit(1)
        time.sleep(0.05)
    out.print("stopped")


async def _run(listener: socket.socket, accounts: int, data_dir: Path) -> None:
    began = time.monotonic()
    ended = asyncio.Event()
    running = asyncio.current_task()
    loop = asyncio.get_running_loop()

    def end() -> None:
        # Before all stands, stopping means giving up the start; after it, ending the wait.
        if ready:
            ended.set()
        elif running is not None:
            running.cancel()

    ready = False
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    status = out.status("starting") if out.is_terminal else contextlib.nullcontext()
    with status as spinner, contextlib.suppress(asyncio.CancelledError):

        def report(step: str) -> None:
            line = f"[dim]{time.monotonic() - began:5.1f} s[/]  {step}"
            if spinner is not None:
                spinner.update(f"{step} ...")
            out.print(line)

        async with running_stack(data_dir, listener, accounts, report) as stack:
            write_credentials(data_dir, stack)
            if spinner is not None:
                spinner.stop()
            _greet(stack, data_dir, time.monotonic() - began)
            ready = True
            servers = stack.servers
            databases = (servers.postgres, servers.redis)
            watching = asyncio.create_task(watch(databases, servers.simulator, report))
            waiting = asyncio.create_task(ended.wait())
            await asyncio.wait((watching, waiting), return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                await watching
            watching.cancel()
            await asyncio.wait((watching,))
    out.print("stopped; the data stays in " + str(data_dir))


def _greet(stack: RunningStack, data_dir: Path, took_s: float) -> None:
    first = stack.demo.accounts[0]
    key = f"-H 'X-API-Key: {stack.demo.api_key}' -H 'X-User-ID: {first.user_id}'"
    read = f"curl -s {key} {stack.base_url}/api/mt5/account/{first.account_id}/snapshot"
    assign = (
        f"curl -s {key} -H 'Content-Type: application/json'"
        f' -d \'{{"account_id":"{first.account_id}"}}\' {stack.base_url}/api/ws/assign'
    )
    key_file = stack.servers.simulator.key_file
    simulator = (
        f"TERMINAL_SIM_URL={stack.control_url} TERMINAL_SIM_KEY_FILE={key_file}"
        f" {sys.executable} -m terminal_sim"
    )
    url = "python3 -c 'import json,sys; print(json.load(sys.stdin)[\"websocket_url\"])'"
    out.print()
    out.print(f"[bold green]mt5-swarm is up[/] on [bold]{stack.base_url}[/] ({took_s:.1f} s)")
    out.print(f"{len(stack.connected)} demo accounts connected; credentials in {data_dir}/")
    out.print("\n[dim]the page (this link signs in once):[/]")
    out.print(console_url(stack), markup=False)
    out.print("\n[dim]an account over REST:[/]")
    out.print(read, markup=False)
    out.print("\n[dim]its live stream, with a plain WebSocket client:[/]")
    out.print(f'{sys.executable} -m websockets "$({assign} | {url})"', markup=False)
    out.print("\n[dim]somebody else trades at the simulated broker; `fault` breaks something:[/]")
    out.print(f"{simulator} open EURUSD buy 0.5 --account {first.login}", markup=False)
    out.print("\nCtrl-C ends it.")


def _running(data_dir: Path) -> psutil.Process | None:
    """The process of a stack that runs on this data directory."""
    try:
        pid, born = (data_dir / "run.pid").read_text().split()
        process = psutil.Process(int(pid))
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None
    # The birth time tells it from a later process with a recycled number.
    return process if process.create_time() == float(born) else None


@contextlib.contextmanager
def _pid_file(data_dir: Path) -> Iterator[None]:
    if (other := _running(data_dir)) is not None:
        raise EmbeddedServerError(
            f"a stack already runs on {data_dir} (process {other.pid}): `make stop` ends it"
        )
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / "run.pid"
    path.write_text(f"{os.getpid()} {psutil.Process().create_time()}")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    with path.open("a", encoding="utf-8", buffering=1) as log:
        path.chmod(0o600)
        configure_logs(log)
        yield
