"""Routes that break things, and mend them."""

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body

from terminal_sim.faults.catalogue import descriptions
from terminal_sim.faults.injection import FaultRefused, parameters, read
from terminal_sim.process.wire import iso
from terminal_sim.supervisor.errors import ControlError
from terminal_sim.supervisor.fault_book import FaultBook, NoSuchTarget, StillHeld, TooManyFaults
from terminal_sim.supervisor.fault_entry import Entry

# How long an answer waits for terminals to say that a fault is on; a frozen one says so later.
_APPLIED_S = 3.0


def fault_routes(book: FaultBook) -> APIRouter:
    """Return the routes over the faults of a supervisor."""
    router = APIRouter()

    @router.get("/faults")
    async def faults() -> dict[str, Any]:
        catalogue = msgspec.to_builtins(descriptions())
        active = [_shown(entry) for entry in book.active()]
        return {"success": True, "catalogue": catalogue, "active": active}

    @router.post("/faults", status_code=201)
    async def begin(asked: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        entries = _begun(book, asked)
        await _applied(entries)
        errors = [entry.error for entry in entries if entry.error]
        shown = [_shown(entry) for entry in entries]
        if len(errors) == len(entries):
            raise ControlError(409, f"The fault could not begin: {errors[0]}", {"faults": shown})
        return {"success": True, "faults": shown}

    @router.delete("/faults")
    async def mend_all() -> dict[str, Any]:
        try:
            return {"success": True, "mended": await book.mend_all()}
        except StillHeld as held:
            raise ControlError(409, str(held)) from None

    @router.delete("/faults/{fault_id}")
    async def mend(fault_id: int) -> dict[str, Any]:
        try:
            mended = await book.mend(fault_id)
        except StillHeld as held:
            raise ControlError(409, str(held)) from None
        if not mended:
            raise ControlError(404, f"No fault {fault_id} is on; it may have ended by itself.")
        return {"success": True, "mended": 1}

    return router


def _begun(book: FaultBook, asked: dict[str, Any]) -> list[Entry]:
    try:
        return book.inject(read(asked))
    except FaultRefused as refused:
        raise ControlError(422, f"{refused}.") from None
    except NoSuchTarget as nowhere:
        raise ControlError(404, str(nowhere)) from None
    except TooManyFaults as full:
        raise ControlError(409, str(full)) from None
    except BlockingIOError:
        raise ControlError(503, "The terminal takes no more commands; restart it.") from None


async def _applied(entries: list[Entry]) -> None:
    waiting = [asyncio.create_task(entry.applied.wait()) for entry in entries]
    _, late = await asyncio.wait(waiting, timeout=_APPLIED_S)
    for each in late:
        each.cancel()


def _shown(entry: Entry) -> dict[str, Any]:
    where = {"server": entry.server} if entry.terminal is None else {"terminal": entry.terminal}
    fields = msgspec.structs.asdict(entry.fault)
    given = {name: fields[name] for name in parameters(type(entry.fault))}
    if given.get("password"):
        given["password"] = "***"  # noqa: S105 - in place of one
    return {
        "id": entry.id,
        "name": entry.fault.__struct_config__.tag,
        **where,
        "parameters": given,
        "since": iso(entry.since_ms),
        "acted": entry.acted,
        "applied": entry.applied.is_set() and entry.error is None,
        "error": entry.error,
    }
