"""Which rows run with which client, and how one runs."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import tests.contract.rows  # noqa: F401 - enters the rows
from tests.contract.case import Case, open_case
from tests.contract.catalogue import OF_CLIENTS, Need, Row, rows
from tests.contract.clients import AgentClient, StockClient
from tests.contract.targets import Target
from tests.contract.trading import tidy

CLIENTS = {kind.name: kind.gives for kind in (StockClient, AgentClient)}


def expressible(row: Row, client: str) -> bool:
    """Whether a client has an operation for what a row asks."""
    return row.needs & OF_CLIENTS <= CLIENTS[client]


def parameters(*clients: str, core: bool = False) -> Iterator[object]:
    """A parameter set for each row and client that can express it; without clients, for all."""
    for row in rows():
        for client in clients or CLIENTS:
            if expressible(row, client) and (row.core or not core):
                yield pytest.param(row, client, id=f"{row.label}-{client}")


def run(row: Row, client: str, target: Target) -> None:
    """Run one row; skips it when the target lacks something, saying what."""
    lacking = sorted(row.needs - OF_CLIENTS - target.has)
    if lacking:
        pytest.skip(f"needs {', '.join(lacking)}")
    with closing(open_case(target, client)) as case:
        if Need.TRADING not in row.needs:
            row.body(case)
            return
        refuse_real_money(case)
        try:
            row.body(case)
        finally:
            clear(case, row)


def refuse_real_money(case: Case) -> None:
    """Fail before anything is traded on an account that is no demo account."""
    if case.client.account()["trade_mode"] == case.constant("ACCOUNT_TRADE_MODE_REAL"):
        pytest.fail("this is an account with real money: the matrix does not trade on it")


def clear(case: Case, row: Row) -> None:
    """Take away what a trading row has opened."""
    if Need.NETTING in row.needs:
        case.log_in(case.target.netting)
    else:
        case.at_home()
    tidy(case)
