"""What the matrix runs against: a simulator of its own, or the server the environment names.

MT5_CONTRACT_HOST and MT5_CONTRACT_PORT name any RPyC server with a MetaTrader5 module,
MT5_CONTRACT_LOGIN, _PASSWORD and _SERVER an account for it, MT5_CONTRACT_INVESTOR its investor
password if there is one, MT5_CONTRACT_SYMBOL the symbol to look at and trade (EURUSD).
MT5_CONTRACT_TRADE=1 lets the matrix place and close orders of the smallest volume: only with a
demo account.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mt5linux import MetaTrader5
from tests.contract.catalogue import Need

from terminal_sim.testing import running

SCENARIO = Path(__file__).with_name("scenario.toml")
# Long enough to be seen from outside, short enough for many logins.
LOGIN_SECONDS = "0.1"


class UnusableTarget(Exception):
    """The environment names a target that the matrix cannot run against."""


@dataclass(frozen=True)
class Account:
    """Credentials; the passwords show in no repr."""

    login: int
    server: str
    password: str = field(repr=False)
    investor: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Target:
    """Where terminals are and what may be done there.

    Attributes:
        terminals: Host and port of each.
        home: The account that most rows look at.
        second: Another account.
        netting: An account that holds one position of a symbol at a time.
        symbol: To look at and to trade.
        has: The needs it fulfils.
        control_url: Of the simulator.
        control_key: Of the simulator.
    """

    terminals: tuple[tuple[str, int], ...]
    home: Account
    symbol: str
    has: frozenset[Need]
    second: Account | None = None
    netting: Account | None = None
    control_url: str = ""
    control_key: str = field(default="", repr=False)

    @property
    def simulated(self) -> bool:
        """Whether it is our own simulator, of which every row may ask everything."""
        return bool(self.control_url)

    @property
    def login_tries(self) -> int:
        """How often a login may be tried before it counts as refused."""
        return 1 if self.simulated else 3


def real(environment: Mapping[str, str]) -> Target:
    """The target that the environment describes.

    Raises:
        UnusableTarget: A variable is missing.
    """

    def given(name: str) -> str:
        found = environment.get(f"MT5_CONTRACT_{name}")
        if not found:
            raise UnusableTarget(f"MT5_CONTRACT_{name} is missing beside MT5_CONTRACT_HOST")
        return found

    investor = environment.get("MT5_CONTRACT_INVESTOR")
    has = set()
    if environment.get("MT5_CONTRACT_TRADE") == "1":
        has.add(Need.TRADING)
    if investor:
        has.add(Need.INVESTOR)
    return Target(
        terminals=((given("HOST"), int(given("PORT"))),),
        home=Account(int(given("LOGIN")), given("SERVER"), given("PASSWORD"), investor),
        symbol=environment.get("MT5_CONTRACT_SYMBOL", "EURUSD"),
        has=frozenset(has),
    )


@contextmanager
def simulator(environment: Mapping[str, str] | None = None) -> Iterator[Target]:
    """A simulator with two terminals and the accounts of `scenario.toml`.

    Args:
        environment: Of its processes; None for our own.
    """
    server = "Contract-Server"
    key = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory() as folder:
        key_file = Path(folder, "key")
        key_file.write_text(key, encoding="utf-8")
        options = ("--scenario", str(SCENARIO), "--terminals", "2", "--key-file", str(key_file))
        with _with(environment), running(*options, "--login-seconds", LOGIN_SECONDS) as ready:
            yield Target(
                terminals=tuple((where.host, where.port) for where in ready.terminals),
                home=Account(7001, server, "Home-7001-main", "Home-7001-view"),
                second=Account(7002, server, "Second-7002-main"),
                netting=Account(7003, server, "Netting-7003-main"),
                symbol="EURUSD",
                has=frozenset(Need),
                control_url=ready.control_url,
                control_key=key,
            )


@contextmanager
def chosen() -> Iterator[Target]:
    """The real target when the environment names one, a simulator otherwise."""
    if os.environ.get("MT5_CONTRACT_HOST"):
        target = real(os.environ)
        _try(target)
        yield target
        return
    with simulator() as target:
        yield target


def _try(target: Target) -> None:
    """See that a real terminal can be used before hundreds of rows find out.

    Raises:
        UnusableTarget: It cannot; the message is a sentence for a person.
    """
    (host, port), home = target.terminals[0], target.home
    try:
        client = MetaTrader5(host, port)
    except OSError as error:
        raise UnusableTarget(f"no terminal answers at {host}:{port}: {error}") from None
    try:
        given = {"password": home.password, "server": home.server}
        if not (client.initialize() and client.login(home.login, **given)):
            code, text = client.last_error()
            raise UnusableTarget(
                f"the terminal at {host}:{port} refuses {home.login} at {home.server}:"
                f" ({code}, {text!r})"
            )
    finally:
        client._MetaTrader5__conn.close()


@contextmanager
def _with(environment: Mapping[str, str] | None) -> Iterator[None]:
    """Our own environment with more in it while the block lasts."""
    if environment is None:
        yield
        return
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
