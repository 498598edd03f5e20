"""Each server reaches its own terminal and no other, whoever asks and however.

The stand-in for the module does what the real one does: without a path it takes any terminal.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.integration.terminal_image.stage import Stage, connected, staged

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.secret import Secret
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.link import TerminalLink

SERVER = "Test-Server"
COUNT = 3


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory, volume: Path) -> Iterator[Stage]:
    """Three terminals that run."""
    with staged(tmp_path_factory.mktemp("trio"), COUNT) as stage:
        stage.take_over(volume)
        stage.start()
        stage.running()
        yield stage


@pytest.fixture
def crossed(trio: Stage) -> Iterator[Callable[[int], None]]:
    """Makes the module reach the terminal of another number, as if names of pipes were mixed up."""
    path = trio.prefix / "crossed"

    def cross(number: int) -> None:
        path.write_text(f"C:\\mt5\\{number}")

    yield cross
    path.unlink(missing_ok=True)


def link_to(stage: Stage, number: int) -> TerminalLink:
    address = TerminalAddress(f"t-{number}", "127.0.0.1", stage.port_base + number - 1)
    metrics = TerminalMetrics(CollectorRegistry())
    return TerminalLink(address, AddressGuard(["127.0.0.0/8"]), metrics)


def account_kept(stage: Stage, number: int) -> str | None:
    path = stage.config(number) / "accounts.dat"
    return path.read_text().split()[0] if path.exists() else None


def forget(stage: Stage) -> None:
    for number in range(1, COUNT + 1):
        (stage.config(number) / "accounts.dat").unlink(missing_ok=True)


async def test_links_sign_in_at_the_same_time_and_each_at_its_own_terminal(trio: Stage) -> None:
    forget(trio)
    links = {number: link_to(trio, number) for number in range(1, COUNT + 1)}
    for link in links.values():
        link.start()

    async def look(number: int) -> None:
        identity = AccountIdentity(1000 + number, SERVER)
        credentials = Credentials(identity, Secret("right"))
        signed = await links[number].sign_in(1, credentials)
        assert (signed.logged_in, signed.snapshot.identity) == (True, identity)

    try:
        await asyncio.gather(*(look(number) for number in links))
        for number, link in links.items():
            assert await link.probe(1) == AccountIdentity(1000 + number, SERVER)
            assert account_kept(trio, number) == str(1000 + number)
    finally:
        for link in links.values():
            await link.aclose()


@pytest.mark.parametrize(
    "arguments",
    [
        ((), {"path": "C:\\mt5\\1\\terminal64.exe"}),
        (("C:\\mt5\\1\\terminal64.exe",), {}),
        (("C:\\Program Files\\MetaTrader 5\\terminal64.exe",), {}),
    ],
)
def test_another_terminals_path_is_refused(
    trio: Stage, arguments: tuple[tuple[str, ...], dict[str, str]]
) -> None:
    positional, named = arguments
    with connected(trio, 2) as link:
        mt5 = link.modules.MetaTrader5
        with pytest.raises(Exception, match=r"bound to C:.mt5.2.terminal64\.exe"):
            mt5.initialize(*positional, **named)
        assert mt5.initialize()
        assert mt5.terminal_info().path == "C:\\mt5\\2"


def test_its_own_path_may_be_given_in_any_spelling(trio: Stage) -> None:
    with connected(trio, 2) as link:
        assert link.modules.MetaTrader5.initialize("c:/MT5/2/Terminal64.exe", portable=False)


def test_who_reaches_another_terminal_is_disconnected(
    trio: Stage, crossed: Callable[[int], None]
) -> None:
    crossed(3)
    with connected(trio, 2) as link:
        mt5 = link.modules.MetaTrader5
        with pytest.raises(Exception, match=r"reached C:.mt5.3 instead of C:.mt5.2"):
            mt5.initialize()
        assert mt5.terminal_info() is None
        assert trio.row(2)["logged_in"] is None


def test_no_account_is_logged_in_at_another_terminal(trio: Stage) -> None:
    forget(trio)
    with connected(trio, 2) as link:
        mt5: Any = link.modules.MetaTrader5
        assert mt5.initialize()
        # Whatever has happened since, the module is at another terminal now.
        mt5._state["path"] = "C:\\mt5\\3"
        with pytest.raises(Exception, match=r"reached C:.mt5.3"):
            mt5.login(1002, password="right", server=SERVER)
        assert account_kept(trio, 3) is None
        assert account_kept(trio, 2) is None
        assert mt5.initialize()
        assert mt5.login(1002, password="right", server=SERVER)
        assert account_kept(trio, 2) == "1002"


async def test_a_link_is_told_when_its_terminal_is_not_its_own(
    trio: Stage, crossed: Callable[[int], None]
) -> None:
    forget(trio)
    crossed(1)
    link = link_to(trio, 2)
    link.start()
    with connected(trio, 2) as other:
        other.modules.MetaTrader5.shutdown()
    try:
        credentials = Credentials(AccountIdentity(1002, SERVER), Secret("right"))
        with pytest.raises(Exception, match="WrongTerminal"):
            await link.sign_in(2, credentials)
        assert [account_kept(trio, number) for number in (1, 2, 3)] == [None] * 3
    finally:
        await link.aclose()
