"""Routes about the processes: terminals and brokers."""

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query

from terminal_sim.faults.injection import brief
from terminal_sim.process.wire import iso
from terminal_sim.supervisor.broker_link import BrokerLink
from terminal_sim.supervisor.errors import ControlError
from terminal_sim.supervisor.fleet import Fleet
from terminal_sim.supervisor.member import LOG_LINES, Member
from terminal_sim.supervisor.members import BrokerMember, TerminalMember

VERSION = "5.0.5430"
"""What the simulated terminals call themselves."""

# A forked process starts in a fraction of a second; beyond this something is wrong.
_RESTART_S = 30.0
Lines = Annotated[int, Query(ge=1, le=LOG_LINES)]


def process_routes(fleet: Fleet) -> APIRouter:
    """Return the routes over a fleet."""
    router = APIRouter()

    @router.get("/terminals")
    async def terminals() -> dict[str, Any]:
        members = fleet.terminals.values()
        states = await asyncio.to_thread(lambda: [_terminal(fleet, each) for each in members])
        return {"success": True, "terminals": states}

    @router.post("/terminals/{number}/restart")
    async def restart_terminal(number: int) -> dict[str, Any]:
        member = _numbered(fleet, number)
        await _restart(member, f"Terminal {number}")
        return {"success": True, "terminal": _terminal(fleet, member)}

    @router.get("/terminals/{number}/logs")
    async def terminal_logs(number: int, lines: Lines = 100) -> dict[str, Any]:
        return {"success": True, "logs": _lines(_numbered(fleet, number), lines)}

    @router.get("/brokers")
    async def brokers() -> dict[str, Any]:
        members = fleet.brokers.values()
        here = await asyncio.to_thread(lambda: [_broker(each) for each in members])
        elsewhere = [_elsewhere(server, *where) for server, where in fleet.elsewhere.items()]
        return {"success": True, "brokers": here + elsewhere}

    @router.post("/brokers/{server}/restart")
    async def restart_broker(server: str) -> dict[str, Any]:
        member = broker_here(fleet, server)
        await _restart(member, f"The broker of {server}", fleet.links[server])
        return {"success": True, "broker": _broker(member)}

    @router.get("/brokers/{server}/logs")
    async def broker_logs(server: str, lines: Lines = 100) -> dict[str, Any]:
        return {"success": True, "logs": _lines(broker_here(fleet, server), lines)}

    @router.post("/drain")
    async def drain() -> dict[str, Any]:
        fleet.draining = True
        return {"success": True, "draining": True}

    return router


def broker_here(fleet: Fleet, server: str) -> BrokerMember:
    """Return the broker of a server.

    Raises:
        ControlError: It is run elsewhere, or nowhere.
    """
    if server in fleet.elsewhere:
        host, port = fleet.elsewhere[server]
        said = f"The broker of {server} is run elsewhere, at {host}:{port}: ask its supervisor."
        raise ControlError(404, said, {"host": host, "port": port})
    member = fleet.brokers.get(server)
    if member is None:
        known = ", ".join(fleet.brokers) or "none"
        raise ControlError(
            404, f"No broker of {brief(repr(server))} is run here; there is {known}."
        )
    return member


def _numbered(fleet: Fleet, number: int) -> TerminalMember:
    member = fleet.terminals.get(number)
    if member is None:
        raise ControlError(404, f"There is no terminal {brief(str(number))}.")
    return member


async def _restart(member: Member, name: str, link: BrokerLink | None = None) -> None:
    """Start a process again; a broker has to listen to its supervisor, too, before this is over."""
    if link:
        link.connected.clear()
    try:
        async with asyncio.timeout(_RESTART_S):
            await member.restart()
            if link:
                await link.connected.wait()
    except TimeoutError:
        raise ControlError(503, f"{name} did not start again in time.") from None


def _lines(member: Member, count: int) -> list[dict[str, str]]:
    return [
        {"timestamp": line.timestamp, "level": line.level, "message": line.message}
        for line in list(member.log)[-count:]
    ]


def _terminal(fleet: Fleet, member: TerminalMember) -> dict[str, Any]:
    until_ms, login = member.board.read()
    draining = fleet.draining and member.state == "running"
    return {
        "n": member.settings.number,
        "port": member.port,
        "pid": member.pid,
        "state": "draining" if draining else member.state,
        "in_login_until": iso(until_ms) if until_ms > time.time_ns() // 1_000_000 else None,
        "memory_bytes": memory_bytes(member.pid),
        "version": VERSION,
        "restarts": member.restarts,
        "started_at": iso(member.started_ms) if member.started_ms else None,
        "logged_in": login or None,
    }


def _broker(member: BrokerMember) -> dict[str, Any]:
    server = member.settings.server
    accounts = member.settings.scenario.accounts
    return {
        "server": server,
        "host": member.host,
        "port": member.port,
        "pid": member.pid,
        "state": member.state,
        "memory_bytes": memory_bytes(member.pid),
        "restarts": member.restarts,
        "started_at": iso(member.started_ms) if member.started_ms else None,
        "accounts": [account.login for account in accounts if account.server == server],
        "persists": member.settings.data_dir is not None,
    }


def _elsewhere(server: str, host: str, port: int) -> dict[str, Any]:
    """Return a broker's row of the same shape: what only its own supervisor knows is null."""
    return {
        "server": server,
        "host": host,
        "port": port,
        "pid": None,
        "state": "elsewhere",
        "memory_bytes": None,
        "restarts": None,
        "started_at": None,
        "accounts": [],
        "persists": None,
    }


def memory_bytes(pid: int | None) -> int | None:
    """Return the proportional share of a process's memory, or None where it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:  # it just ended, or this is not Linux
        return None
    lines = (line.split() for line in text.splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == "Pss:"), None)
