"""Which addresses may be spoken to."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.named_servers import Dns

from mt5kit.networks import Networks, OutsideNetworks

PRIVATE = ["10.77.2.0/24", "fd00:77::/64"]


@given(st.ip_addresses())
def test_an_address_is_permitted_just_if_a_block_holds_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    networks = Networks(PRIVATE)
    held = any(address in ipaddress.ip_network(block) for block in PRIVATE)
    assert networks.permits(str(address)) is held
    assert networks.permits("10.77.2.7")
    assert networks.permits("fd00:77::7")


def test_a_name_is_no_address_inside() -> None:
    assert not Networks(["0.0.0.0/0", "::/0"]).permits("api-2")


async def test_what_resolves_outside_is_told_from_what_does_not_resolve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Dns({"redis": ["203.0.113.9", "10.77.2.5"], "api-9": ["203.0.113.9"]}).rule(monkeypatch)
    networks = Networks(PRIVATE)
    assert networks.resolve("redis", 6379) == "10.77.2.5"
    assert await networks.resolved("redis", 6379) == "10.77.2.5"
    with pytest.raises(OutsideNetworks, match="api-9"):
        networks.resolve("api-9", 8000)
    with pytest.raises(OutsideNetworks, match="api-9"):
        await networks.resolved("api-9", 8000)
    with pytest.raises(socket.gaierror):
        networks.resolve("nobody", 1)


def test_our_own_address_is_the_one_inside() -> None:
    assert Networks(["127.0.0.0/8"]).own_address() == "127.0.0.1"
    with pytest.raises(ValueError, match=r"no address inside 203\.0\.113\.0/24"):
        Networks(["203.0.113.0/24"]).own_address()


def test_without_blocks_there_is_no_restriction() -> None:
    assert Networks.of([]) is None
    with pytest.raises(ValueError, match="network"):
        Networks.of(["10.77.2.0/24", "everywhere"])
