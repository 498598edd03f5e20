"""Every row of the matrix that our agent can express, through it."""

from collections.abc import Callable

import pytest
from tests.contract.catalogue import Row
from tests.contract.clients import AgentClient
from tests.contract.conftest import ROW
from tests.contract.matrix import parameters, run
from tests.contract.targets import Target


@pytest.mark.parametrize(("row", "client"), list(parameters(AgentClient.name)))
def test_row(
    row: Row, client: str, target: Target, record_property: Callable[[str, object], None]
) -> None:
    record_property(ROW, f"{row.label}-{client}")
    run(row, client, target)
