"""Names without a task: asked of a hostile DNS server, and of none."""

import re

import pytest
from tests.swarm.docker_cli import DockerFailed
from tests.swarm.nginx.client import SECRET
from tests.swarm.nginx.site import Nginx, Site, StandIn
from tests.waiting import wait_for

# The first of them makes the image.
pytestmark = pytest.mark.timeout(600)

# Each slot gets some of them.
IDS = [f"account-{number}" for number in range(40)]


def replicas_of(nginx: Nginx, ids: list[str]) -> set[str]:
    return {nginx.asked(f"/ws/account/{account}?ticket={SECRET}")["replica"] for account in ids}


def asked_for(thief: StandIn) -> set[tuple[str, str]]:
    return {(line["asked"], line["way"]) for line in thief.lines() if "asked" in line}


def test_an_address_outside_is_never_connected_to(site: Site, replicas: dict[str, StandIn]) -> None:
    thief = site.start_python("thief", "wildcard_dns.py", "outside")
    wait_for(lambda: '"listening"' in thief.logs(), "the thief does not listen")
    address = site.address(thief, "outside")
    nginx = site.nginx("robbed", dns=address, outside=True)
    # It is really asked, by UDP and TCP, and Docker believes it.
    ways = {("ws-8", "udp"), ("ws-8", "tcp"), ("ws-9", "udp")}
    wait_for(lambda: ways <= asked_for(thief), "nobody asks the thief")
    for name in ("ws-8", "ws-9"):
        assert address in nginx.run("getent", "ahostsv4", name)

    # What there is, works.
    for _ in range(10):
        assert nginx.asked(f"/api/x?ticket={SECRET}")["replica"] in replicas
    assert replicas_of(nginx, IDS) == {"first", "second"}
    # A slot that comes is used, and one that leaves is not any more.
    ninth = site.stand_in("ninth", "ws-9")
    wait_for(lambda: "ninth" in replicas_of(nginx, IDS), "the slot that came is not used")
    ninth.remove()
    wait_for(
        lambda: replicas_of(nginx, IDS) == {"first", "second"}, "the slot that left is still used"
    )
    assert [line for line in thief.lines() if "taken" in line] == []
    nginx.remove()


def test_as_the_stack_runs_it_no_outside_server_is_asked(nginx: Nginx) -> None:
    resolver = nginx.run("cat", "/etc/resolv.conf")
    assert "nameserver 127.0.0.11" in resolver
    # The server of this container's `dns` setting is its own; it knows nothing, at once.
    for name in ("ws-9", "example.com"):
        try:
            found = nginx.run("getent", "ahostsv4", name)
        except DockerFailed:
            found = ""
        assert found == ""
    assert "Operation timed out" not in nginx.logs()


def test_slots_without_a_task_are_nothing_to_log(nginx: Nginx) -> None:
    assert not re.search(r"ws-\d+ could not be resolved", nginx.logs())
