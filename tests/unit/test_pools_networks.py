"""Neither pool sends a password to a store that lies outside its networks, and says why."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.named_servers import ELSEWHERE, HERE, Dns

from api_pool.context import ProcessContext
from api_pool.settings import ApiSettings
from api_pool.turns import LookTurn
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.errors import TerminalUnavailable
from mt5kit.networks import Networks
from mt5kit.state.postgres import DatabaseUnavailable
from mt5kit.state.redis import StateUnavailable
from mt5kit.vault import KeyRing
from websocket_pool.context import StreamContext
from websocket_pool.settings import StreamSettings


class Stranger:
    """Whoever answers for names that are not there: takes connections, and what is sent."""

    def __init__(self) -> None:
        self.come = 0

    def met(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.come += 1
        writer.close()


@pytest.fixture
async def stranger(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Stranger, int]]:
    Dns({name: [HERE] for name in ("redis", "postgres", "api-2")}).rule(monkeypatch)
    stranger = Stranger()
    server = await asyncio.start_server(stranger.met, HERE, 0)
    yield stranger, server.sockets[0].getsockname()[1]
    server.close()


def common(tmp_path: Path, port: int) -> dict[str, Any]:
    ring = tmp_path / "ring.json"
    ring.write_bytes(KeyRing.generate().dump())
    return {
        "instance_id": "one",
        "services_networks": tuple(ELSEWHERE),
        "redis_url": SecretStr(f"redis://:secret@redis:{port}/0"),
        "worker_database_url": SecretStr(f"postgresql://worker:secret@postgres:{port}/mt5"),
        "key_ring_file": ring,
        "terminals_networks": ("127.0.0.0/8",),
    }


async def test_the_api_pool(
    stranger: tuple[Stranger, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who, port = stranger
    monkeypatch.setattr(Networks, "own_address", lambda _: "10.77.2.7")
    settings = ApiSettings(
        **common(tmp_path, port),
        internal_key=SecretStr("inside"),
        database_url=SecretStr(f"postgresql://app:secret@postgres:{port}/mt5"),
        api_keys={"test": hashlib.sha256(b"key").hexdigest()},
        api_terminals=(),
        ws_base_url="wss://stream.example",
    )
    context = await ProcessContext.from_settings(settings)
    with pytest.raises(StateUnavailable, match="redis resolves outside"):
        await context.redis_probe.ping()
    for database in (context.database, context.worker_database):
        with pytest.raises(DatabaseUnavailable, match="postgres resolves outside"):
            await database.ping()
    look = LookTurn("alpha", AccountIdentity(7, "S"), 0)
    with pytest.raises(TerminalUnavailable, match="outside"):
        await context.forwarder.take(f"http://api-2:{port}", "t-1", look, 1)
    await context.aclose()
    assert not who.come


async def test_the_websocket_pool(stranger: tuple[Stranger, int], tmp_path: Path) -> None:
    who, port = stranger
    settings = StreamSettings(**common(tmp_path, port), stream_terminals=())
    context = await StreamContext.from_settings(settings)
    probes = context.probes()
    with pytest.raises(StateUnavailable, match="redis resolves outside"):
        await probes["redis"]()
    with pytest.raises(DatabaseUnavailable, match="postgres resolves outside"):
        await probes["postgres"]()
    await context.aclose()
    assert not who.come
