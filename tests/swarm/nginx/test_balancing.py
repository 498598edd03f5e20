"""Which replica gets what, and what nginx does when one fails."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPSConnection
from uuid import uuid4

import pytest
from tests.swarm.nginx.client import PATIENCE_S, SECRET, connected, refused, request, trusting
from tests.swarm.nginx.conftest import REPLICAS
from tests.swarm.nginx.site import Nginx, Site, StandIn
from tests.waiting import wait_for
from websockets.sync.client import ClientConnection, connect

# The first of them makes the image.
pytestmark = pytest.mark.timeout(600)

IDS = [f"account-{number}" for number in range(150)]


def unlimited(conf: str) -> str:
    """The same, for more handshakes than an address may make."""
    assert conf.count("rate=20r/s") == 2
    return conf.replace("rate=20r/s", "rate=10000r/s")


@pytest.fixture(scope="module")
def wide(site: Site, replicas: dict[str, StandIn]) -> Nginx:
    return site.nginx("wide", change=unlimited)


def placed(nginx: Nginx, ids: list[str] = IDS) -> dict[str, str]:
    """The replica that each account's stream comes to."""
    host, port = nginx.https
    found = {}
    with closing(HTTPSConnection(host, port, context=trusting())) as connection:
        for account in ids:
            connection.request("GET", f"/ws/account/{account}?ticket={SECRET}")
            answer = connection.getresponse()
            assert answer.status == 200
            found[account] = str(json.load(answer)["replica"])
    return found


def open_socket(nginx: Nginx, target: str) -> ClientConnection:
    host, port = nginx.https
    url = f"wss://{host}:{port}{target}"
    try:
        return connect(url, ssl=trusting(), compression=None, open_timeout=PATIENCE_S)
    except TimeoutError as late:
        raise AssertionError(f"no answer to {target}; {nginx.logs()[-4000:]}") from late


def sent(mark: str, *replicas: StandIn) -> int:
    """How many requests with this mark came to replicas, once one is in their logs."""

    def told() -> int:
        return sum(len(replica.got(mark)) for replica in replicas)

    wait_for(told, "nobody got it")
    return told()


def test_slots_come_and_go_and_each_moves_its_share(site: Site, wide: Nginx) -> None:
    two = placed(wide)
    assert set(two.values()) == {"first", "second"}
    assert placed(wide) == two

    third = site.stand_in("ws-third", "ws-3")
    wait_for(lambda: "ws-third" in placed(wide).values(), "the new slot is not used")
    three = placed(wide)
    moved = {account for account in IDS if three[account] != two[account]}
    assert {three[account] for account in moved} == {"ws-third"}
    # A third, give or take what 160 points on the ring for each slot make of it.
    assert 0.2 < len(moved) / len(IDS) < 0.5

    # What a start-first update does: a slot has two addresses, then another one.
    again = site.stand_in("ws-third-again", "ws-3")
    wait_for(
        lambda: "ws-third-again" in placed(wide, sorted(moved)).values(),
        "the second address of the slot is not used",
    )
    both = placed(wide)
    assert {both[account] for account in moved} == {"ws-third", "ws-third-again"}
    assert {account: both[account] for account in IDS if account not in moved} == {
        account: two[account] for account in IDS if account not in moved
    }
    third.remove()
    wait_for(
        lambda: set(placed(wide, sorted(moved)).values()) == {"ws-third-again"},
        "the address that left is still used",
    )

    again.remove()
    wait_for(lambda: placed(wide) == two, "the slot that left is still used")


def test_an_encoded_account_is_the_same_account(wide: Nginx) -> None:
    ids = IDS[:20]
    encoded = {account: account.replace("a", "%61", 1) for account in ids}
    where = placed(wide, list(encoded.values()))
    assert {account: where[encoded[account]] for account in ids} == placed(wide, ids)


def test_sockets_without_an_account_go_anywhere(wide: Nginx) -> None:
    assert {wide.asked("/ws/quotes")["replica"] for _ in range(30)} == {"first", "second"}


def test_a_socket_says_and_hears(nginx: Nginx) -> None:
    with open_socket(nginx, f"/ws/account/spoken?ticket={SECRET}") as socket:
        first = str(socket.recv())
        assert f'"target": "/ws/account/spoken?ticket={SECRET}"' in first
        assert '["upgrade", "websocket"]' in first
        for said in ("ping", "x" * 4000):
            socket.send(said)
            assert socket.recv() == said


def test_the_pages_socket_is_upgraded_too(nginx: Nginx) -> None:
    with open_socket(nginx, "/console/_nicegui_ws/socket.io/?EIO=4&transport=websocket") as socket:
        assert '"replica": "third"' in str(socket.recv())


def test_requests_go_where_least_is_under_way(nginx: Nginx, replicas: dict[str, StandIn]) -> None:
    mark = uuid4().hex

    def at_work() -> set[str]:
        return {name for name, replica in replicas.items() if replica.got(mark)}

    with ExitStack() as slow:
        for _ in range(2):
            waiting = slow.enter_context(connected(nginx.https, trusting()))
            waiting.sendall(request(f"/api/x?{mark}&wait=60"))
        wait_for(lambda: len(at_work()) == 2, "they do not wait, each at one replica")
        quick = Counter(nginx.asked("/api/x")["replica"] for _ in range(12))
    assert set(quick) == set(REPLICAS) - at_work()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_is_asked_of_another_replica(
    nginx: Nginx, replicas: dict[str, StandIn], method: str
) -> None:
    for name in REPLICAS:
        assert nginx.ask(f"/api/x?do=hang_up&but={name}", method).status == 200


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "PUT", "LOCK", "BREW"])
def test_what_may_change_something_is_never_sent_twice(
    nginx: Nginx, replicas: dict[str, StandIn], method: str
) -> None:
    mark = uuid4().hex
    answer = nginx.ask(f"/api/x?{mark}&do=hang_up", method, body=b"{}")
    told = refused(answer, 503, "SERVICE_OVERLOADED")
    assert (told["details"], told["retry_after_s"]) == ({"outcome": "unknown"}, 1)
    assert sent(mark, *replicas.values()) == 1


def test_a_replica_that_is_killed_in_the_middle_of_a_change(
    site: Site, nginx: Nginx, replicas: dict[str, StandIn]
) -> None:
    mark = uuid4().hex
    victim = site.stand_in("victim", "tasks.api-pool")
    wait_for(lambda: nginx.asked("/api/x")["replica"] == "victim", "the victim is not used")
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(nginx.ask, f"/api/x?{mark}&wait=8", "POST", body=b"{}") for _ in range(8)
        ]
        all_of_them = (victim, *replicas.values())
        wait_for(lambda: sent(mark, *all_of_them) == 8, "they are not all under way")
        hit = len(victim.got(mark))
        assert hit, "the victim has nothing to do"
        victim.send("KILL")
        answers = [answer.result() for answer in asked]
    got = sent(mark, *all_of_them)
    victim.remove()
    assert got == 8
    assert Counter(answer.status for answer in answers) == {503: hit, 200: 8 - hit}


def test_what_was_not_sent_is_asked_of_another_replica(site: Site, nginx: Nginx) -> None:
    deaf = site.stand_in("deaf", "tasks.api-pool", DEAF="yes")
    address = f"{site.address(deaf, 'services')}:8000"

    def tried() -> set[str]:
        """The methods of which it was asked."""
        # One more than there are, or each would come to the same replica every time.
        for method in (*methods, "GET"):
            assert nginx.ask("/api/deaf", method).status == 200
        ours = [line for line in nginx.lines() if line.get("path") == "/api/deaf"]
        return {line["method"] for line in ours if line["upstream"].startswith(address)}

    methods = {"GET", "POST", "PATCH", "DELETE"}
    wait_for(lambda: tried() == methods, "the deaf replica is not tried by all of them")
    deaf.remove()


def test_a_service_that_left_and_came_back(site: Site) -> None:
    other = site.nginx("lonely", change=lambda conf: conf.replace("tasks.console:", "tasks.lone:"))
    told = refused(other.ask("/console/x"), 503, "SERVICE_OVERLOADED")
    assert told["details"] == {}
    lone = site.stand_in("lone", "tasks.lone")
    wait_for(lambda: other.ask("/console/x").status == 200, "it is not used")
    lone.remove()
    wait_for(lambda: other.ask("/console/x").status == 503, "it is still used")
    site.stand_in("lone-again", "tasks.lone")
    wait_for(lambda: other.ask("/console/x").status == 200, "it is not used when it came back")
    other.remove()
