"""How much one address may ask for (contracts §1)."""

from typing import Any

import pytest
from tests.swarm.nginx.client import SECRET
from tests.swarm.nginx.site import Nginx, Site

# The first of them makes the image.
pytestmark = pytest.mark.timeout(600)

CLOSE = "Connection: close"
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: " + "x" * 24)


def too_often(told: dict[str, Any]) -> int:
    """How many were refused; every refusal has the shape of a failure."""
    refusals = [body for body in told["bodies"] if body.get("success") is False]
    for body in refusals:
        assert (body["code"], body["retry_after_s"], body["details"]) == ("RATE_LIMITED", 1, {})
    assert len(refusals) == told["statuses"].get("429", 0)
    return len(refusals)


def test_an_address_holds_a_hundred_sockets(site: Site, nginx: Nginx) -> None:
    told = site.crowd(nginx, 110, "/ws/account/crowded", *UPGRADE)
    assert told["statuses"]["101"] == 100
    assert too_often(told) == 10


def test_an_address_makes_so_many_handshakes_at_once(site: Site, nginx: Nginx) -> None:
    told = site.crowd(nginx, 130, "/ws/account/hasty", CLOSE)
    # The burst and one more; what comes later than that is a matter of the clock.
    assert 101 <= told["statuses"]["200"] < 130
    assert too_often(told) == 130 - told["statuses"]["200"]


def test_requests_without_a_key_are_limited(site: Site, nginx: Nginx) -> None:
    told = site.crowd(nginx, 60, "/api/health", CLOSE)
    assert 21 <= told["statuses"]["200"] < 60
    assert too_often(told) == 60 - told["statuses"]["200"]


def test_requests_with_a_key_are_not(site: Site, nginx: Nginx) -> None:
    told = site.crowd(nginx, 60, "/api/x", CLOSE, f"X-API-Key: {SECRET}")
    assert told["statuses"] == {"200": 60}


def test_services_learn_the_address_of_a_client(site: Site, nginx: Nginx) -> None:
    told = site.crowd(nginx, 1, "/api/x", CLOSE, "X-Forwarded-For: 203.0.113.9")
    (body,) = told["bodies"]
    assert dict(body["headers"])["x-forwarded-for"] == told["address"]
