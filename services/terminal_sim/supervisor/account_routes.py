"""Routes by which people act on accounts, as from another terminal, a phone or the web."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query

from terminal_sim.broker.messages import Act, Look, Seen, Snapshot, Traded
from terminal_sim.broker.values import TradeRequest
from terminal_sim.catalogue import catalogue
from terminal_sim.supervisor import people
from terminal_sim.supervisor.errors import ControlError
from terminal_sim.supervisor.fleet import Fleet
from terminal_sim.supervisor.process_routes import broker_here

_DONE = frozenset(("TRADE_RETCODE_DONE", "TRADE_RETCODE_PLACED", "TRADE_RETCODE_DONE_PARTIAL"))
Login = Annotated[int, Path(ge=1, le=2**63 - 1)]
_ACCOUNT = "/accounts/{server}/{login}"


def account_routes(fleet: Fleet) -> APIRouter:
    """Return the routes over the accounts of the brokers run here."""
    router = APIRouter()
    _add_positions(router, fleet)
    _add_orders(router, fleet)

    @router.get(_ACCOUNT)
    async def look(server: str, login: Login) -> dict[str, Any]:
        return {"success": True, "account": people.shown(await Person(fleet, server, login).see())}

    @router.post(_ACCOUNT + "/deposits", status_code=201)
    async def deposit(server: str, login: Login, wanted: people.Deposit) -> dict[str, Any]:
        person = Person(fleet, server, login)
        return await person.act(None, wanted.reason, deposit=wanted.amount)

    return router


def _add_positions(router: APIRouter, fleet: Fleet) -> None:
    @router.post(_ACCOUNT + "/positions", status_code=201)
    async def open_position(server: str, login: Login, wanted: people.Opening) -> dict[str, Any]:
        return await Person(fleet, server, login).act(wanted.request(), wanted.reason)

    @router.patch(_ACCOUNT + "/positions/{ticket}")
    async def move_stops(
        server: str, login: Login, ticket: int, wanted: people.Stops
    ) -> dict[str, Any]:
        person = Person(fleet, server, login)
        held = _found("position", ticket, (await person.see()).positions)
        return await person.act(wanted.request(held), wanted.reason)

    @router.delete(_ACCOUNT + "/positions/{ticket}")
    async def close_position(
        server: str,
        login: Login,
        ticket: int,
        volume: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
        by: people.By = "client",
    ) -> dict[str, Any]:
        person = Person(fleet, server, login)
        held = _found("position", ticket, (await person.see()).positions)
        return await person.act(people.closing(held, volume), people.Body(by=by).reason)


def _add_orders(router: APIRouter, fleet: Fleet) -> None:
    @router.post(_ACCOUNT + "/orders", status_code=201)
    async def place(server: str, login: Login, wanted: people.Placing) -> dict[str, Any]:
        return await Person(fleet, server, login).act(wanted.request(), wanted.reason)

    @router.patch(_ACCOUNT + "/orders/{ticket}")
    async def move(server: str, login: Login, ticket: int, wanted: people.Moving) -> dict[str, Any]:
        person = Person(fleet, server, login)
        pending = _found("pending order", ticket, (await person.see()).orders)
        return await person.act(wanted.request(pending), wanted.reason)

    @router.delete(_ACCOUNT + "/orders/{ticket}")
    async def remove(
        server: str, login: Login, ticket: int, by: people.By = "client"
    ) -> dict[str, Any]:
        person = Person(fleet, server, login)
        pending = _found("pending order", ticket, (await person.see()).orders)
        return await person.act(people.removal(pending), people.Body(by=by).reason)


class Person:
    """Somebody who may act on an account without its password.

    Args:
        fleet: Runs the broker.
        server: Server of the account.
        login: Its number.

    Raises:
        ControlError: The broker is run elsewhere, or nowhere.
    """

    def __init__(self, fleet: Fleet, server: str, login: int) -> None:
        self._link = fleet.links[broker_here(fleet, server).settings.server]
        self._login = login

    async def see(self) -> Snapshot:
        """Return the account as the broker has it.

        Raises:
            BrokerDown: The broker cannot be asked.
            BrokerRefused: There is no such account.
        """
        seen = await self._link.ask(lambda number, key: Look(number, self._login, key), Seen)
        return seen.account

    async def act(
        self, request: TradeRequest | None, reason: int, *, deposit: float = 0.0
    ) -> dict[str, Any]:
        """Act, and return what the broker made of it.

        Raises:
            ControlError: It refused; its retcode is in the details.
            BrokerDown: The broker cannot be asked, or did not answer.
            BrokerRefused: There is no such account.
        """
        done = await self._link.ask(
            lambda number, key: Act(number, self._login, request, deposit, reason, key), Traded
        )
        result = msgspec.structs.asdict(done.result)
        constants = catalogue().constants
        if result["retcode"] not in {constants[name] for name in _DONE}:
            said = f"The broker answered {result['retcode']}: {result['comment']}"
            raise ControlError(409, said, result)
        return {"success": True, **result}


def _found(kind: str, ticket: int, held: tuple[Any, ...]) -> Any:  # noqa: ANN401 - position or order
    for each in held:
        if each.ticket == ticket:
            return each
    raise ControlError(404, f"The account has no {kind} {ticket}.")
