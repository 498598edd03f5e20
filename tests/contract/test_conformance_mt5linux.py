"""Every row of the matrix through mt5linux's own client."""

from collections.abc import Callable

import pytest
from tests.contract.catalogue import Row
from tests.contract.clients import StockClient
from tests.contract.conftest import ROW
from tests.contract.matrix import parameters, run
from tests.contract.targets import Target


@pytest.mark.parametrize(("row", "client"), list(parameters(StockClient.name)))
def test_row(
    row: Row, client: str, target: Target, record_property: Callable[[str, object], None]
) -> None:
    record_property(ROW, f"{row.label}-{client}")
    run(row, client, target)
