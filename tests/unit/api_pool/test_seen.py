"""Looks that stay encoded answer exactly as decoded ones would."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from tests.unit.api_pool.looks_made import snapshot

from api_pool.answers import (
    Meta,
    info_answer,
    orders_answer,
    positions_answer,
    snapshot_answer,
)
from api_pool.seen import Seen

META = Meta(
    account_id="a-1",
    terminal_id="t-1",
    instance_id="api-1",
    source="cache",
    as_of="2026-01-31T12:00:00.250Z",
    age_ms=12,
)
SYMBOLS = st.lists(st.sampled_from(["EURUSD", "XAUUSD", 'q"\\', "é", "]["]), max_size=6)


def body(response: Response) -> Any:
    assert response.headers["content-length"] == str(len(response.body))
    assert response.headers["content-type"] == "application/json"
    return json.loads(bytes(response.body))


def test_a_look_tells_whose_and_when_it_is() -> None:
    seen = Seen.of(snapshot(login=42, seen_ms=1234))
    assert (seen.identity.login, seen.identity.server) == (42, "Server-1")
    assert (seen.seen_ms, seen.connected) == (1234, True)
    assert seen.snapshot() == snapshot(login=42, seen_ms=1234)
    again = Seen.of_payload(seen.payload)
    assert (again.identity, bytes(again.account)) == (seen.identity, bytes(seen.account))


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[]", b'{"account": {}}', b'{"account":{},"positions":[]']
)
def test_what_is_no_look_is_refused(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        Seen.of_payload(payload)


@given(SYMBOLS, st.sampled_from(["EURUSD", 'q"\\', "é", "NONE"]))
def test_joined_answers_are_the_encoded_ones(symbols: list[str], wanted: str) -> None:
    look = snapshot(symbols=tuple(symbols))
    plain = msgspec.json.decode(msgspec.json.encode(look))
    meta = msgspec.json.decode(msgspec.json.encode(META))
    seen = Seen.of(look)

    def of(rows: list[dict[str, Any]], symbol: str | None) -> list[dict[str, Any]]:
        return [row for row in rows if symbol in (None, row["symbol"])]

    whole = {"success": True, "account": plain["account"]}
    assert body(info_answer(seen, META)) == whole | {"meta": meta}
    rows = {"positions": plain["positions"], "orders": plain["orders"]}
    assert body(snapshot_answer(seen, META)) == whole | rows | {"meta": meta}
    for symbol in (None, wanted):
        positions = {"success": True, "positions": of(plain["positions"], symbol), "meta": meta}
        assert body(positions_answer(seen, symbol, META)) == positions
        orders = {"success": True, "orders": of(plain["orders"], symbol), "meta": meta}
        assert body(orders_answer(seen, symbol, META)) == orders


def test_fields_stand_in_the_order_of_the_contract() -> None:
    names = list(body(snapshot_answer(Seen.of(snapshot()), META)))
    assert names == ["success", "account", "positions", "orders", "meta"]
