"""Where the other replicas reach this one."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from api_pool.settings import ApiSettings
from mt5kit.networks import Networks
from websocket_pool.settings import StreamSettings


def settings(**changes: Any) -> ApiSettings:
    given: dict[str, Any] = {
        "instance_id": "mt5_api-pool.1.k3j2n8m4p0q7r1s5t9v2w6x8z",
        "port": 8000,
        "internal_key": SecretStr("inside"),
        "redis_url": SecretStr("redis://redis"),
        "database_url": SecretStr("postgresql://postgres/mt5"),
        "worker_database_url": SecretStr("postgresql://postgres/mt5"),
        "key_ring_file": Path("ring"),
        "api_keys": {},
        "api_terminals": (),
        "terminals_networks": ("10.77.4.0/23",),
        "ws_base_url": "wss://stream.example",
    }
    return ApiSettings(**(given | changes))


def test_without_networks_it_is_reached_by_its_name() -> None:
    assert settings().reached_at == "http://mt5_api-pool.1.k3j2n8m4p0q7r1s5t9v2w6x8z:8000"
    assert settings(internal_url="http://api-1:9").reached_at == "http://api-1:9"


def test_inside_networks_it_is_reached_by_its_address_and_no_name_is_looked_up() -> None:
    inside = {"services_networks": ("127.0.0.0/8",)}
    assert settings(**inside).reached_at == "http://127.0.0.1:8000"
    given = settings(**inside, internal_url="http://127.0.0.9:80")
    assert given.reached_at == "http://127.0.0.9:80"


@pytest.mark.parametrize("url", ["http://api-1:8000", "http://10.1.2.3:8000"])
def test_an_address_that_the_others_would_refuse_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValidationError, match="inside SERVICES_NETWORKS"):
        settings(services_networks=("127.0.0.0/8",), internal_url=url)


def test_a_host_outside_the_networks_cannot_start() -> None:
    with pytest.raises(ValueError, match="no address inside"):
        _ = settings(services_networks=("203.0.113.0/24",)).reached_at


def test_supervisors_are_not_asked_without_a_key() -> None:
    with pytest.raises(ValidationError, match="SUPERVISOR_KEY"):
        settings(supervisor_port=8100)
    assert settings(supervisor_port=8100, supervisor_key=SecretStr("key")).supervisor_port
    with pytest.raises(ValidationError, match="SUPERVISOR_KEY"):
        StreamSettings(
            redis_url=SecretStr("redis://redis"),
            worker_database_url=SecretStr("postgresql://postgres/mt5"),
            key_ring_file=Path("ring"),
            stream_terminals=(),
            terminals_networks=("10.77.4.0/23",),
            supervisor_port=8100,
        )


def test_an_address_of_ours_may_be_of_the_sixth_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Networks, "own_address", lambda _: "fd00:77::5")
    assert settings(services_networks=("fd00:77::/64",)).reached_at == "http://[fd00:77::5]:8000"
