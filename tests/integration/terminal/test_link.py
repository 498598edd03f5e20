"""The link to a simulated terminal: values, identity, reconnects, secrets."""

import asyncio
import gc
import io
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

import msgspec
import psutil
import pytest
import rpyc
import structlog
from prometheus_client import CollectorRegistry
from tests.integration.conftest import Simulated, SimulatedTerminals, freeze

from local_stack.simulator import PlacedTerminal
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistoryQuery, HistorySize
from mt5kit.domain.trades import Deal
from mt5kit.errors import (
    BrokerTimeout,
    LoginRefused,
    Mt5SwarmError,
    StaleToken,
    TerminalTimeout,
    TerminalUnavailable,
    WrongAccount,
)
from mt5kit.secret import Secret
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.channel import TIMEOUTS_TO_DROP
from mt5kit.terminal.chunks import Done, Step
from mt5kit.terminal.connection import Connection
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.history import HistoryReader, deals_page, orders_page
from mt5kit.terminal.link import TerminalLink

SERVER = "Test-Server"
ALPHA, BETA = AccountIdentity(1001, SERVER), AccountIdentity(1002, SERVER)
ALPHA_IN = Credentials(ALPHA, Secret("alpha-pass-1001"))
BETA_IN = Credentials(BETA, Secret("beta-pass-1002"))
# In a process of its own: a server that is closed trips over its own threads.
BARE_SERVER = """
from rpyc.core.service import SlaveService
from rpyc.utils.server import ThreadedServer
server = ThreadedServer(SlaveService, hostname="127.0.0.1", port=0)
print(server.port, flush=True)
server.start()
"""
UNSHOWN = "the-secret-that-must-not-show"
T = TypeVar("T")
LOOPBACK = AddressGuard(["127.0.0.0/8"])


@pytest.fixture(scope="module")
def simulated(simulate: SimulatedTerminals) -> Simulated:
    return simulate(["t-1"])


@pytest.fixture
def terminal(simulated: Simulated) -> PlacedTerminal:
    return simulated.terminals["t-1"]


class Links:
    """Links and the registry they count in."""

    def __init__(self, terminal: PlacedTerminal) -> None:
        self.registry = CollectorRegistry()
        self.metrics = TerminalMetrics(self.registry)
        self.address = terminal.address
        self.made: list[TerminalLink] = []

    def link(self, address: TerminalAddress | None = None) -> TerminalLink:
        link = TerminalLink(address or self.address, LOOPBACK, self.metrics)
        self.made.append(link)
        return link

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
async def links(terminal: PlacedTerminal) -> AsyncIterator[Links]:
    links = Links(terminal)
    yield links
    for link in links.made:
        await link.aclose()


@pytest.fixture(scope="module", autouse=True)
def tokens() -> Iterator[int]:
    """Tokens grow over the whole module: the terminal remembers the highest."""
    return iter(range(1, 10_000))


@pytest.fixture
def token(tokens: Iterator[int]) -> int:
    return next(tokens)


async def test_a_login_looks_in_the_same_turn(links: Links, token: int) -> None:
    look = (await links.link().sign_in(token, ALPHA_IN)).snapshot
    assert look.identity == ALPHA
    assert len(look.positions) == 2
    assert len(look.orders) == 1
    floating = sum(position.profit + position.swap for position in look.positions)
    assert look.account.equity == pytest.approx(look.account.balance + floating, abs=0.01)
    assert links.sample("mt5_logins_total", server=SERVER, outcome="ok") == 1


async def test_reads_name_their_account_and_refuse_others(links: Links, token: int) -> None:
    link = links.link()
    await link.sign_in(token, ALPHA_IN)
    assert (await link.snapshot(token, ALPHA)).identity == ALPHA
    with pytest.raises(WrongAccount):
        await link.snapshot(token, BETA)
    with pytest.raises(WrongAccount):
        await link.snapshot(token, AccountIdentity(1001, "Other-Server"))
    assert links.sample("mt5_wrong_account_refusals_total") == 2


async def test_history_comes_in_pages(links: Links, token: int) -> None:
    link = links.link()
    await link.sign_in(token, ALPHA_IN)
    whole = HistoryQuery(0, 2_000_000_000, "", None, 1000)
    deals = (await link.deals(token, ALPHA, whole)).rows
    orders = (await link.orders(token, ALPHA, whole)).rows
    assert len(deals) == 1 + 2 + 2 * 6
    assert len(orders) == 2 + 2 * 6
    assert [d.ticket for d in deals] == [
        d.ticket for d in sorted(deals, key=lambda d: (d.time_msc, d.ticket), reverse=True)
    ]
    paged: list[Deal] = []
    before = None
    more = True
    while more:
        page = await link.deals(
            token, ALPHA, msgspec.structs.replace(whole, before=before, limit=4)
        )
        paged += page.rows
        more, before = page.more, (page.rows[-1].time_msc, page.rows[-1].ticket)
    assert tuple(paged) == deals


async def test_a_history_still_loading_after_a_login_is_not_taken_for_empty(
    links: Links, token: int, simulated: Simulated
) -> None:
    link = links.link()
    whole = HistoryQuery(0, 2_000_000_000, "", None, 1000)
    reader = HistoryReader(link, ALPHA, link.settling)
    await link.sign_in(token, ALPHA_IN)
    before = await done(deals_page(reader, whole).step, token)
    fault = {"name": "history_empty", "terminal": 1, "ready_s": 0.3}
    simulated.control.post("/faults", json=fault).raise_for_status()
    try:
        await link.sign_in(token, ALPHA_IN, must_prove=True)
        assert (await link.deals(token, ALPHA, whole)).rows == ()
        assert await link.history_size(token, ALPHA) == HistorySize(0, 0)
        deals = await done(deals_page(reader, whole).step, token)
        orders = await done(orders_page(reader, whole).step, token)
    finally:
        simulated.control.delete("/faults").raise_for_status()
    assert deals == before == await link.deals(token, ALPHA, whole)
    assert orders == await link.orders(token, ALPHA, whole)
    size = await link.history_size(token, ALPHA)
    assert (size.deals, size.orders) == (len(deals.rows), len(orders.rows))


async def done(step: Step[T], token: int) -> T:
    """What the work gives in the end."""
    while True:
        chunk = await step(token)
        if isinstance(chunk, Done):
            return chunk.value
        await asyncio.sleep(chunk.pause_s)


async def test_the_poll_tells_of_changes_and_of_none(links: Links, token: int) -> None:
    link = links.link()
    await link.sign_in(token, ALPHA_IN)
    first = await link.wait_changes(token, ALPHA, "")
    second = await link.wait_changes(token, ALPHA, first.version)
    assert second.version != first.version
    assert second.snapshot != first.snapshot
    unmoved = await link.wait_changes(token, ALPHA, second.version, timeout_s=0)
    assert unmoved.version == second.version or unmoved.snapshot != second.snapshot


async def test_calls_go_on_beside_a_poll(links: Links, token: int) -> None:
    link = links.link()
    await link.sign_in(token, ALPHA_IN)
    look = await link.wait_changes(token, ALPHA, "")
    poll = asyncio.create_task(link.wait_changes(token, ALPHA, look.version))
    for _ in range(20):
        assert (await link.snapshot(token, ALPHA)).identity == ALPHA
    await poll


async def test_a_wrong_password_carries_the_terminals_words(links: Links, token: int) -> None:
    wrong = Credentials(ALPHA, Secret("not-the-password"))
    with pytest.raises(LoginRefused) as refused:
        await links.link().sign_in(token, wrong, must_prove=True)
    assert refused.value.details["mt5_code"] == -6
    assert "Authorization failed" in str(refused.value.details["mt5_text"])
    assert links.sample("mt5_logins_total", server=SERVER, outcome="refused") == 1


async def test_an_unknown_server_ends_in_a_broker_timeout(links: Links, token: int) -> None:
    nowhere = Credentials(AccountIdentity(1001, "No-Such-Server"), Secret("x"))
    with pytest.raises(BrokerTimeout):
        await links.link().sign_in(token, nowhere, deadline_s=3)


async def test_an_older_owner_is_refused(links: Links, tokens: Iterator[int]) -> None:
    older, newer = next(tokens), next(tokens)
    old, new = links.link(), links.link()
    await old.sign_in(older, ALPHA_IN)
    await new.sign_in(newer, BETA_IN)
    with pytest.raises(StaleToken):
        await old.sign_in(older, ALPHA_IN, must_prove=True)
    assert (await new.snapshot(newer, BETA)).identity == BETA


async def test_a_frozen_terminal_is_a_timeout_and_then_serves_again(
    links: Links,
    token: int,
    simulated: Simulated,
) -> None:
    link = links.link()
    link.start()
    await link.sign_in(token, ALPHA_IN)
    pid = int(simulated.states()[0]["pid"])
    # Once, so that a late answer comes on the same connection; and until that is given up.
    for timeouts in (1, TIMEOUTS_TO_DROP + 1):
        freeze(pid)
        try:
            for _ in range(timeouts):
                with pytest.raises(TerminalTimeout):
                    await link.probe(token, deadline_s=0.2)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (await link.snapshot(token, ALPHA)).identity == ALPHA
        assert await link.probe(token) == ALPHA


async def test_a_frozen_terminal_is_found_while_the_fault_holds_it(
    links: Links, token: int, simulated: Simulated
) -> None:
    link = links.link()
    await link.sign_in(token, ALPHA_IN)
    fault = {"name": "freeze", "terminal": 1, "hold_s": 2.0}
    simulated.control.post("/faults", json=fault).raise_for_status()

    async def answers() -> bool:
        try:
            return await link.probe(token, deadline_s=0.3) == ALPHA
        except TerminalTimeout:
            return False

    async with asyncio.timeout(30):
        while await answers():
            pass
        while not await answers():
            pass
    assert (await link.snapshot(token, ALPHA)).identity == ALPHA


async def test_a_probe_says_who_is_in_and_a_new_terminal_has_nobody(
    links: Links, token: int
) -> None:
    link = links.link()
    signed = await link.sign_in(token, ALPHA_IN, must_prove=True)
    assert signed.logged_in
    assert not (await link.sign_in(token, ALPHA_IN)).logged_in
    assert await link.probe(token) == ALPHA
    wrong = Credentials(ALPHA, Secret("not-the-password"))
    with pytest.raises(LoginRefused):
        await link.sign_in(token, wrong, must_prove=True)
    assert await link.probe(token) is None


async def test_after_a_kill_the_next_call_after_the_restart_works(
    links: Links,
    token: int,
    simulated: Simulated,
) -> None:
    link = links.link()
    link.start()
    await link.sign_in(token, ALPHA_IN)
    before = simulated.states()[0]
    waiting = asyncio.create_task(link.wait_changes(token, ALPHA, ""))
    await waiting
    pid = int(before["pid"])
    # Frozen first, so that the kill surely comes while the call is in the terminal.
    freeze(pid)
    caught = asyncio.create_task(link.snapshot(token, ALPHA))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(caught), 0.2)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(TerminalUnavailable) as away:
        await caught
    assert away.value.retry_after_s
    await asyncio.to_thread(
        lambda: simulated.control.post("/terminals/1/restart").raise_for_status()
    )
    # A new process knows no login; that it answers at all is the reconnect and the re-install.
    with pytest.raises(WrongAccount):
        await link.snapshot(token, ALPHA)
    assert (await link.sign_in(token, ALPHA_IN)).snapshot.identity == ALPHA
    assert (await link.wait_changes(token, ALPHA, "")).snapshot.identity == ALPHA
    assert links.sample("mt5_terminal_up", terminal="t-1") == 1
    assert (links.sample("mt5_terminal_reconnects_total", terminal="t-1") or 0) >= 1


async def test_nobody_there_is_unavailable_with_advice(links: Links, token: int) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = TerminalAddress("ghost", "127.0.0.1", unused.getsockname()[1])
        with pytest.raises(TerminalUnavailable) as away:
            await links.link(address).snapshot(token, ALPHA)
    assert away.value.retry_after_s


async def test_what_is_no_rpyc_server_is_unavailable(links: Links, token: int) -> None:
    def chatter(server: socket.socket) -> None:
        connection, _ = server.accept()
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=chatter, args=(server,))
        thread.start()
        address = TerminalAddress("web", "127.0.0.1", server.getsockname()[1])
        with pytest.raises(TerminalUnavailable):
            await links.link(address).snapshot(token, ALPHA)
        thread.join()


async def test_an_rpyc_server_without_the_module_is_unavailable(links: Links, token: int) -> None:
    """What a terminal's container is during its first boot."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BARE_SERVER, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        link = links.link(TerminalAddress("booting", "127.0.0.1", port))
        link.start()
        for _ in range(3):
            with pytest.raises(TerminalUnavailable):
                await link.snapshot(token, ALPHA)
        await link.aclose()
    finally:
        server.kill()
        await server.communicate()


async def test_a_peer_that_never_answers_is_a_timeout(links: Links, token: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = TerminalAddress("silent", "127.0.0.1", silent.getsockname()[1])
        with pytest.raises(TerminalTimeout):
            await links.link(address).snapshot(token, ALPHA, deadline_s=0.3)


async def test_another_account_behind_our_back_never_shows(
    links: Links, token: int, terminal: PlacedTerminal
) -> None:
    """A stock client logs two accounts in by turns, thousands of times, while readers read."""
    link = links.link()
    balance = (await link.sign_in(token, ALPHA_IN)).snapshot.account.balance
    switches = 3000
    stop = threading.Event()
    done = []

    def interfere() -> None:
        conn = rpyc.connect(terminal.host, terminal.port, service=rpyc.core.service.ClassicClient)
        conn.execute("import MetaTrader5 as mt5")
        passwords = ((1002, "beta-pass-1002"), (1001, "alpha-pass-1001"))
        login = conn.namespace["mt5"].login
        for turn in range(switches):
            if stop.is_set():
                break
            number, password = passwords[turn % 2]
            login(number, password=password, server=SERVER)
            done.append(turn)
        conn.close()

    thread = threading.Thread(target=interfere)
    thread.start()
    right = wrong = refused = 0
    try:
        while thread.is_alive():
            try:
                look = await link.snapshot(token, ALPHA)
            except WrongAccount:
                refused += 1
                continue
            # By the figures too: each account has a balance of its own.
            if look.identity == ALPHA and look.account.balance == balance:
                right += 1
            else:
                wrong += 1
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)
    assert len(done) == switches
    assert wrong == 0
    assert right > 0
    assert refused > 0


async def test_a_password_shows_nowhere(links: Links, token: int, written_log: io.StringIO) -> None:
    structlog.get_logger("probe").info("probe", password=Secret(UNSHOWN))
    wrong = Credentials(ALPHA, Secret(UNSHOWN))
    shown = [repr(wrong), str(wrong), f"{wrong}"]
    for server in (SERVER, "No-Such-Server"):
        credentials = Credentials(AccountIdentity(1001, server), Secret(UNSHOWN))
        try:
            await links.link().sign_in(token, credentials, must_prove=True, deadline_s=2)
        except Mt5SwarmError as failure:
            lines = traceback.TracebackException.from_exception(failure, capture_locals=True)
            shown += ["".join(lines.format()), repr(failure.details)]
    # Broken while the arguments are on their way, revealed.
    broken = Connection(links.address, LOOPBACK)
    await asyncio.to_thread(broken.open, 5)
    await broken.attach(lambda: None)
    asked = broken.ask("sign_in", token, (1001, Secret(UNSHOWN), SERVER, 1000, True), 5)
    broken.abort()
    with pytest.raises(TerminalUnavailable) as gone:
        await asked
    lines = traceback.TracebackException.from_exception(gone.value, capture_locals=True)
    shown.append("".join(lines.format()))
    assert len(shown) > 4
    assert "probe" in written_log.getvalue()
    shown.append(written_log.getvalue())
    assert not [text for text in shown if UNSHOWN in text]


def threads() -> set[str]:
    names = {thread.name for thread in threading.enumerate()}
    return {name.rsplit("_", 1)[0] for name in names if name.startswith("mt5-")}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_thread_has_a_name_and_is_there_while_connecting(links: Links) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = links.link(TerminalAddress("silent", "127.0.0.1", silent.getsockname()[1]))
        link.start()
        await until(lambda: threads() == {"mt5-silent-call"})
        await link.aclose()
    await until(lambda: not threads())


async def test_a_connected_link_has_no_thread_and_a_closed_one_no_connection(
    terminal: PlacedTerminal, token: int
) -> None:
    links = Links(terminal)
    link = links.link()
    await link.sign_in(token, ALPHA_IN)
    await link.wait_changes(token, ALPHA, "")
    await until(lambda: not threads())
    assert len(connections(terminal)) == 2
    await link.aclose()
    gc.collect()
    await until(lambda: not connections(terminal))
    assert not threads()


def connections(terminal: PlacedTerminal) -> list[object]:
    """Of this process to the terminal."""
    peers = [connection.raddr for connection in psutil.Process().net_connections()]
    return [peer for peer in peers if tuple(peer)[1:] == (terminal.port,)]


async def test_objects_that_rpyc_had_do_not_take_the_function_with_them(
    links: Links, token: int
) -> None:
    """A proxy that dies has the other side forget its object."""
    link = links.link()
    for _ in range(3):
        await link.sign_in(token, ALPHA_IN)
        gc.collect()
        assert await link.probe(token) == ALPHA


async def test_a_terminal_that_dies_is_noticed_before_anybody_calls(
    links: Links, token: int, simulated: Simulated
) -> None:
    link = links.link()
    await link.sign_in(token, ALPHA_IN)
    assert links.sample("mt5_terminal_up", terminal="t-1") == 1
    os.kill(int(simulated.states()[0]["pid"]), signal.SIGKILL)
    await until(lambda: not link.connected)
    assert links.sample("mt5_terminal_up", terminal="t-1") == 0
    restart = "/terminals/1/restart"
    await asyncio.to_thread(lambda: simulated.control.post(restart).raise_for_status())
    assert (await link.sign_in(token, ALPHA_IN)).snapshot.identity == ALPHA
