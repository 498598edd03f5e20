"""The demo's people: accounts, their passwords and users, and the scenario they live in."""

import datetime as dt
import os
import secrets
from pathlib import Path
from uuid import UUID, uuid4

import msgspec

SERVER = "MT5Swarm-Demo"
CLOCK = "EET-US"
# The three that are connected at start belong to one user, so that the console shows them.
CONNECTED = 3
FIRST_LOGIN = 5_000_001
# Small enough that a day of paying the spread leaves a robot's account alive.
ROBOT_VOLUME = 0.02

# (symbol, volume of a position that moves by some dollars a second)
_SYMBOLS = (
    ("EURUSD", 1.0),
    ("XAUUSD", 0.2),
    ("GBPUSD", 0.8),
    ("USDJPY", 1.2),
    ("BTCUSD", 0.1),
    ("US30", 0.5),
    ("AUDUSD", 1.5),
    ("NDX100", 0.4),
    ("USDCHF", 1.0),
    ("GBPJPY", 0.6),
    ("ETHUSD", 1.0),
    ("USDCAD", 1.0),
    ("XAGUSD", 0.3),
    ("NZDUSD", 1.0),
    ("AUDJPY", 0.7),
)


class DemoAccount(msgspec.Struct, frozen=True):
    """An account at the simulated broker; `account_id` is what our API calls it."""

    account_id: str
    user_id: UUID
    login: int
    password: str
    investor_password: str
    server: str = SERVER

    def __repr__(self) -> str:
        return f"DemoAccount({self.account_id!r}, login={self.login})"


class Demo(msgspec.Struct, frozen=True):
    """What is made once and kept: service keys, secrets, accounts."""

    created_at: dt.datetime
    seed: int
    api_key: str
    admin_api_key: str
    supervisor_key: str
    session_secret: str
    accounts: tuple[DemoAccount, ...]

    def __repr__(self) -> str:
        return f"Demo({len(self.accounts)} accounts)"


def load_demo(path: Path, count: int) -> Demo:
    """The demo of a data directory with at least `count` accounts; made or grown as needed."""
    demo = msgspec.json.decode(path.read_bytes(), type=Demo) if path.exists() else _new_demo()
    if len(demo.accounts) < count:
        owner = demo.accounts[0].user_id if demo.accounts else uuid4()
        grown = [_account(number, owner) for number in range(len(demo.accounts), count)]
        demo = msgspec.structs.replace(demo, accounts=(*demo.accounts, *grown))
        write_private(path, msgspec.json.format(msgspec.json.encode(demo)))
    return demo


def scenario_of(demo: Demo) -> bytes:
    """The simulator's scenario, as JSON."""
    accounts = [_holdings(demo, number) for number in range(len(demo.accounts))]
    servers = [{"name": SERVER, "company": "mt5-swarm demo", "clock": CLOCK}]
    return msgspec.json.encode({"seed": demo.seed, "servers": servers, "accounts": accounts})


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    unfinished.rename(path)


def _new_demo() -> Demo:
    return Demo(
        created_at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        seed=secrets.randbelow(2**31),
        api_key=secrets.token_urlsafe(32),
        admin_api_key=secrets.token_urlsafe(32),
        supervisor_key=secrets.token_urlsafe(32),
        session_secret=secrets.token_urlsafe(32),
        accounts=(),
    )


def _account(number: int, owner: UUID) -> DemoAccount:
    return DemoAccount(
        account_id=f"demo-{number + 1}",
        user_id=owner if number < CONNECTED else uuid4(),
        login=FIRST_LOGIN + number,
        password=secrets.token_urlsafe(12),
        investor_password=secrets.token_urlsafe(12),
    )


def _holdings(demo: Demo, number: int) -> dict[str, object]:
    account = demo.accounts[number]
    # A stride that shares no factor with 15 gives neighbours different symbols.
    held = [_SYMBOLS[(number * 4 + step) % len(_SYMBOLS)] for step in range(3 + number % 3)]
    positions = [
        {
            "symbol": symbol,
            "type": "sell" if (number + step) % 3 == 1 else "buy",
            "volume": volume,
            "opened_at": _before(demo, hours=5 * step + 2),
        }
        for step, (symbol, volume) in enumerate(held)
    ]
    pending, volume = _SYMBOLS[(number * 4 + 7) % len(_SYMBOLS)]
    order = {
        "symbol": pending,
        "type": "buy_limit",
        "volume": volume,
        "placed_at": _before(demo, hours=1),
    }
    robot_symbol, _ = _SYMBOLS[(number * 4 + 9) % len(_SYMBOLS)]
    robot = {
        "symbol": robot_symbol,
        "volume": ROBOT_VOLUME,
        "starts_at": _before(demo, hours=24),
        "period_s": 45 + number,
        "hold_s": 30,
    }
    return {
        "login": account.login,
        "password": account.password,
        "investor_password": account.investor_password,
        "server": account.server,
        "name": f"Demo {number + 1}",
        "balance": 50_000 + 10_000 * (number % 5),
        "leverage": 100,
        "registered_at": _before(demo, hours=24 * 30),
        "positions": positions,
        "orders": [order],
        # The second account keeps still but for prices: a place to look at them.
        "robot": None if number == 1 else robot,
    }


def _before(demo: Demo, *, hours: int) -> str:
    return (demo.created_at - dt.timedelta(hours=hours)).isoformat()
