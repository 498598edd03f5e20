"""No terminal is spoken to outside its network."""

import socket

import pytest

from mt5kit.errors import TerminalUnavailable
from mt5kit.terminal.address import AddressGuard, TerminalAddress


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 8001)) for a in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: found)


def test_an_address_inside_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch, "10.9.0.7")
    guard = AddressGuard(["10.9.0.0/16"])
    assert guard.resolve(TerminalAddress("t", "mt5-api-1", 8001)) == "10.9.0.7"


def test_a_wildcard_dns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch, "203.0.113.9")
    with pytest.raises(TerminalUnavailable, match="outside the terminals network"):
        AddressGuard(["10.9.0.0/16", "fd00::/8"]).resolve(TerminalAddress("t", "mt5-api-9", 8001))


def test_a_name_without_address_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(TerminalUnavailable, match="no address yet") as caught:
        AddressGuard(["10.0.0.0/8"]).resolve(TerminalAddress("t", "nowhere", 8001))
    assert caught.value.retry_after_s


def test_a_guard_without_network_is_refused() -> None:
    with pytest.raises(ValueError, match="no terminals network"):
        AddressGuard([])
