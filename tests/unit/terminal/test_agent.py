"""The agent against a hand-written MetaTrader5 module, in this process."""

import ast
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import mt5kit.terminal
from mt5kit.terminal.link import POLL_MARGIN_S

SOURCE = Path(mt5kit.terminal.__file__).parent / "agent.py"


MANY = 2**31 - 1


class Info(NamedTuple):
    login: int
    server: str
    equity: float
    balance: float = 0.0
    credit: float = 0.0


class Terminal(NamedTuple):
    connected: bool
    trade_allowed: bool


class Deal(NamedTuple):
    ticket: int
    time_msc: int
    symbol: str


class FakeModule(ModuleType):
    """A terminal's module: one login, and hooks that a test may put into a call."""

    def __init__(self) -> None:
        super().__init__("MetaTrader5")
        self.login_now: tuple[int, str] | None = (1, "S")
        self.equity = 10.0
        self.balance = 0.0
        self.away = False
        self.timeouts: list[int] = []
        self.totals: tuple[int | None, int | None] = (0, 0)
        self.error = (1, "Success")
        self.during_positions: Callable[[], None] = lambda: None
        self.deals: tuple[Deal, ...] = ()
        self.refuse_login: tuple[int, str] | None = None
        self.mute = False
        self.initialize = self._initialize
        self.login = self._login
        self.shutdown = lambda: None

    def _initialize(self, timeout: int = 60_000) -> bool:
        self.timeouts.append(timeout)
        self.error = (-10003, "IPC initialize failed") if self.away else (1, "Success")
        return not self.away

    def _login(self, login: int, password: str = "", server: str = "", timeout: int = 0) -> bool:
        self.timeouts.append(timeout)
        if self.refuse_login:
            self.error = self.refuse_login
            self.login_now = None
            return False
        self.login_now = (login, server)
        return True

    def last_error(self) -> tuple[int, str]:
        return self.error

    def account_info(self) -> Info | None:
        if self.mute:
            self.error = (-10005, "IPC timeout")
            return None
        if self.login_now is None:
            self.error = (
                (-10004, "No IPC connection") if self.away else (-1, "Terminal: Call failed")
            )
            return None
        return Info(*self.login_now, self.equity, self.balance)

    def terminal_info(self) -> Terminal | None:
        if self.away:
            return None
        return Terminal(connected=True, trade_allowed=True)

    def positions_get(self) -> tuple[()]:
        self.during_positions()
        return ()

    def orders_get(self) -> tuple[()]:
        return ()

    def history_deals_total(self, first: int, last: int) -> int | None:
        if (first, last) != (0, 2**31 - 1):
            return len(self.deals)
        self.error = (-1, "no deals") if self.totals[0] is None else (1, "Success")
        return self.totals[0]

    def history_orders_total(self, first: int, last: int) -> int | None:
        assert (first, last) == (0, 2**31 - 1)
        self.error = (-1, "no orders") if self.totals[1] is None else (1, "Success")
        return self.totals[1]

    def history_deals_get(self, *_span: int) -> tuple[Deal, ...]:
        return self.deals


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> FakeModule:
    fake = FakeModule()
    monkeypatch.setitem(sys.modules, "MetaTrader5", fake)
    return fake


@pytest.fixture
def load(module: FakeModule) -> Iterator[Callable[[], Any]]:
    """Installs the agent as a connection does: its own namespace, the process's one fence."""

    def load() -> Any:
        spec = importlib.util.spec_from_file_location("agent_under_test", SOURCE)
        assert spec is not None
        assert spec.loader is not None
        agent = importlib.util.module_from_spec(spec)
        # namedtuples stand in for the module's structs; only these methods differ.
        spec.loader.exec_module(agent)
        return agent

    sys.modules.pop("_mt5_swarm_fence", None)
    yield load
    sys.modules.pop("_mt5_swarm_fence", None)


def call(agent: Any, instance: Any, op: str, token: int, *args: Any) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(agent.invoke(instance, op, token, 1.0, args))
    return reply


def test_a_snapshot_holds_everything_of_one_look(load: Callable[[], Any]) -> None:
    agent = load()
    answer = call(agent, agent.Agent(), "snapshot", 5, 1, "S")["answer"]
    assert answer["account"] == {
        "login": 1,
        "server": "S",
        "equity": 10.0,
        "balance": 0.0,
        "credit": 0.0,
    }
    assert answer["positions"] == answer["orders"] == []
    assert answer["terminal"] == {"connected": True, "trade_allowed": True}


@pytest.mark.parametrize("who", [(2, "S"), (1, "T"), None])
def test_another_account_is_an_error_and_no_data(
    load: Callable[[], Any], module: FakeModule, who: tuple[int, str] | None
) -> None:
    agent = load()
    module.login_now = who
    reply = call(agent, agent.Agent(), "snapshot", 5, 1, "S")
    assert reply.keys() == {"error"}
    assert reply["error"]["kind"] == ("not_logged_in" if who is None else "wrong_account")


def test_a_switch_between_check_and_read_is_an_error(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()

    def switch() -> None:
        module.login_now = (2, "S")

    module.during_positions = switch
    assert call(agent, agent.Agent(), "snapshot", 5, 1, "S")["error"]["kind"] == "wrong_account"


def test_a_switch_and_back_between_the_checks_is_an_error(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    instance = agent.Agent()

    def there_and_back() -> None:
        module.login(2, password="x", server="S")
        module.login(1, password="x", server="S")

    module.during_positions = there_and_back
    assert call(agent, instance, "snapshot", 5, 1, "S")["error"]["kind"] == "wrong_account"


def test_a_switch_that_nobody_counted_is_an_error_too(
    load: Callable[[], Any], module: FakeModule
) -> None:
    """By hand, in the terminal's window: there after the first check, and back before the last."""
    agent = load()
    accounts = iter([(1, "S"), (2, "S"), (1, "S"), (1, "S")])

    def account_info() -> Info:
        return Info(*next(accounts), 10.0)

    module.account_info = account_info  # type: ignore[method-assign]
    assert call(agent, agent.Agent(), "snapshot", 5, 1, "S")["error"]["kind"] == "wrong_account"


def test_logins_are_counted_once_however_many_agents_are_installed(
    load: Callable[[], Any], module: FakeModule
) -> None:
    first, second = load(), load()
    first.Agent()
    fence = second.Agent().fence
    module.login(2, password="x", server="S")
    assert fence.logins == 2


def test_a_lower_token_is_refused_across_agents(load: Callable[[], Any]) -> None:
    old, new = load(), load()
    older, newer = old.Agent(), new.Agent()
    assert "answer" in call(old, older, "snapshot", 5, 1, "S")
    assert "answer" in call(new, newer, "snapshot", 6, 1, "S")
    assert call(old, older, "snapshot", 5, 1, "S")["error"]["kind"] == "stale_token"
    assert call(old, older, "sign_in", 5, 1, "pw", "S", 1000, True)["error"]["kind"] == (
        "stale_token"
    )


def test_sign_in_reuses_the_session_unless_it_must_prove(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    instance = agent.Agent()
    module.refuse_login = (-6, "Authorization failed")
    assert "answer" in call(agent, instance, "sign_in", 5, 1, "wrong", "S", 1000, False)
    refused = call(agent, instance, "sign_in", 5, 1, "wrong", "S", 1000, True)
    assert refused["error"] == {
        "kind": "login_refused",
        "code": -6,
        "text": "Authorization failed",
    }


REFUSED = {"kind": "login_refused", "code": -6, "text": "Authorization failed"}


def sign_in(
    agent: Any, instance: Any, login: int = 2, password: str = "pw", **how: Any
) -> dict[str, Any]:
    token, server = how.get("token", 5), how.get("server", "S")
    prove = how.get("prove", False)
    # As the link gives it: of what is stored, and none of what is typed.
    seal = b"" if prove else how.get("seal", repr((login, password, server)).encode())
    return call(agent, instance, "sign_in", token, login, password, server, 1000, prove, seal)


def test_refused_credentials_are_not_tried_again(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    instance = agent.Agent()
    module.refuse_login = (-6, "Authorization failed")
    assert sign_in(agent, instance)["error"] == REFUSED
    module.refuse_login = (-6, "Another text")
    for _ in range(3):
        assert sign_in(agent, instance)["error"] == REFUSED
    assert len(module.timeouts) == 1
    # Any other password, login or server is tried.
    for other in ({"password": "px"}, {"login": 3}, {"server": "T"}):
        assert sign_in(agent, instance, **other)["error"]["text"] == "Another text"
    assert len(module.timeouts) == 4


def test_another_owner_does_not_try_refused_credentials_either(
    load: Callable[[], Any], module: FakeModule
) -> None:
    old, new = load(), load()
    module.refuse_login = (-6, "Authorization failed")
    assert sign_in(old, old.Agent(), token=5)["error"] == REFUSED
    module.refuse_login = None
    assert sign_in(new, new.Agent(), token=6)["error"] == REFUSED
    assert len(module.timeouts) == 1


def test_what_a_person_proves_is_not_taken_for_what_was_refused(
    load: Callable[[], Any], module: FakeModule
) -> None:
    old, new = load(), load()
    older, newer = old.Agent(), new.Agent()
    module.refuse_login = (-6, "Authorization failed")
    assert sign_in(old, older)["error"] == REFUSED
    # Typed again it is tried each time, and remembered of nobody.
    for _ in range(2):
        assert sign_in(new, newer, prove=True, token=6)["error"] == REFUSED
    assert len(module.timeouts) == 3
    module.refuse_login = None
    assert "answer" in sign_in(new, newer, prove=True, token=6)
    module.login_now = None
    # The same password, stored once more: proven here or at another terminal.
    assert "answer" in sign_in(new, newer, token=6, seal=b"of a later connect")
    module.login_now = None
    assert sign_in(new, newer, token=6)["error"] == REFUSED


@pytest.mark.parametrize("error", [(-10005, "IPC timeout"), (-1, "Terminal: Call failed")])
def test_only_a_refusal_by_the_broker_is_remembered(
    load: Callable[[], Any], module: FakeModule, error: tuple[int, str]
) -> None:
    agent = load()
    instance = agent.Agent()
    module.refuse_login = error
    assert sign_in(agent, instance)["error"]["code"] == error[0]
    module.refuse_login = None
    assert "answer" in sign_in(agent, instance)


def test_an_account_that_is_in_is_read_whatever_was_refused(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    instance = agent.Agent()
    module.refuse_login = (-6, "Authorization failed")
    sign_in(agent, instance)
    module.login_now = (2, "S")
    assert sign_in(agent, instance)["answer"]["logged_in"] is False


def test_what_is_remembered_of_refusals_is_bounded(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    instance = agent.Agent()
    agent.MOST_REFUSED = 3
    module.refuse_login = (-6, "Authorization failed")
    for number in range(5):
        sign_in(agent, instance, password=f"hunter{number}")
    assert len(instance.fence.refused) == 3
    tried = len(module.timeouts)
    sign_in(agent, instance, password="hunter4")
    assert len(module.timeouts) == tried
    # The oldest was forgotten.
    sign_in(agent, instance, password="hunter0")
    assert len(module.timeouts) == tried + 1


def test_a_fence_of_an_older_version_learns_to_remember(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    fence = agent.Agent().fence
    del fence.refused
    assert agent.Agent().fence is fence
    assert fence.refused == {}
    known = fence.refused
    agent.Agent()
    assert fence.refused is known


def test_a_fault_tells_its_type_and_nothing_it_held(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()

    def fail(*_args: object, **kwargs: object) -> bool:
        raise RuntimeError(f"login with {kwargs}")

    instance = agent.Agent()
    module.login = fail
    raw = agent.invoke(instance, "sign_in", 5, 1.0, (2, "hunter2", "S", 1000, True))
    assert b"hunter2" not in raw
    assert json.loads(raw)["error"] == {"kind": "fault", "text": "RuntimeError", "code": 0}


def test_numbers_that_json_has_not_are_no_answer(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    module.equity = float("nan")
    assert call(agent, agent.Agent(), "snapshot", 5, 1, "S")["error"]["kind"] == "fault"


def test_a_call_behind_a_held_lock_gives_up(load: Callable[[], Any]) -> None:
    agent = load()
    instance = agent.Agent()
    with instance.fence.lock:
        reply = json.loads(agent.invoke(instance, "snapshot", 5, 0.01, (1, "S")))
    assert reply["error"]["kind"] == "busy"


def poll(
    agent: Any,
    instance: Any,
    since: str,
    timeout_s: float,
    token: int = 5,
    *,
    hold_s: float = 0.0,
) -> dict[str, Any]:
    return call(agent, instance, "wait_changes", token, 1, "S", since, timeout_s, hold_s)


def test_the_poll_answers_at_once_then_waits_for_a_change(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    instance = agent.Agent()
    call(agent, instance, "open_poll", 5)
    first = poll(agent, instance, "", 60)["answer"]
    same = poll(agent, instance, first["version"], 0.01)["answer"]
    assert same["version"] == first["version"]
    module.equity = 11.0
    changed = poll(agent, instance, first["version"], 60)["answer"]
    assert changed["version"] != first["version"]
    assert changed["snapshot"]["account"]["equity"] == 11.0


def timed_poll(load: Callable[[], Any]) -> tuple[Any, Any, "FakeClock"]:
    """An agent with an open poll, whose clock moves when it is slept on."""
    agent = load()
    clock = FakeClock()
    agent.time = clock
    instance = agent.Agent()
    call(agent, instance, "open_poll", 5)
    return agent, instance, clock


def watch(agent: Any, instance: Any, polls: int, timeout_s: float) -> None:
    """Poll so many times, each as soon as the last has answered."""
    version = ""
    for _ in range(polls):
        version = poll(agent, instance, version, timeout_s)["answer"]["version"]


def test_looks_are_close_while_things_move_and_rare_in_silence(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent, instance, clock = timed_poll(load)
    looks: list[float] = []
    module.during_positions = lambda: looks.append(clock.now)
    # The first answers at once.
    watch(agent, instance, 21, 1.0)
    assert looks[0] == 0.0
    for before, after in pairwise(looks):
        # A look at the end of a poll may come sooner.
        assert after - before <= min(max(before / 20, 0.02), 0.1) + 1e-9
    assert sum(look <= 0.4 for look in looks) == pytest.approx(21, abs=1)
    assert sum(look > 10 for look in looks) == pytest.approx(100, abs=12)
    module.equity = 11.0
    looks.clear()
    watch(agent, instance, 1, 1.0)
    changed_at = looks[0]
    watch(agent, instance, 2, 0.4)
    assert sum(look - changed_at <= 0.4 for look in looks) == pytest.approx(21, abs=2)


def test_who_comes_back_at_once_gets_no_more_looks_than_who_waits(
    load: Callable[[], Any], module: FakeModule
) -> None:
    """In a market that moves with every look the round trip would set the pace."""
    agent, instance, clock = timed_poll(load)

    def move() -> None:
        module.equity += 1

    module.during_positions = move
    watch(agent, instance, 101, 60)
    assert clock.now == pytest.approx(100 * 0.02)


def test_who_can_tell_nothing_for_a_while_gets_the_one_look_after_it(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent, instance, clock = timed_poll(load)
    looks: list[float] = []
    module.during_positions = lambda: looks.append(clock.now)
    first = poll(agent, instance, "", 60)["answer"]["version"]
    assert poll(agent, instance, first, 60, hold_s=0.1)["answer"]["version"] == first
    module.equity = 11.0
    changed = poll(agent, instance, first, 60, hold_s=0.05)["answer"]
    assert changed["snapshot"]["account"]["equity"] == 11.0
    assert looks == pytest.approx([0.0, 0.1, 0.15])


def test_a_look_that_waited_for_the_processor_is_no_dear_one(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent, instance, clock = timed_poll(load)
    costs = iter([0.001, 0.001, 0.5, 0.001, 0.001])
    looks: list[float] = []

    def take() -> None:
        looks.append(clock.now)
        clock.now += next(costs, 0.001)

    module.during_positions = take
    watch(agent, instance, 5, 0.0)
    assert looks[3] - (looks[2] + 0.5) == pytest.approx(0.009)


@pytest.mark.parametrize("timeout_s", [0.0, 0.5, 5.0])
def test_looking_takes_a_tenth_of_the_time_at_most(
    load: Callable[[], Any], module: FakeModule, timeout_s: float
) -> None:
    agent, instance, clock = timed_poll(load)
    costs: list[float] = []

    def take_long() -> None:
        clock.now += 0.1
        costs.append(0.1)

    module.during_positions = take_long
    watch(agent, instance, 30, timeout_s)
    assert sum(costs) <= 0.1 * clock.now + 0.1


def test_one_look_that_was_held_up_does_not_keep_the_next_from_the_caller(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent, instance, clock = timed_poll(load)

    def freeze() -> None:
        clock.now += 10

    module.during_positions = freeze
    watch(agent, instance, 1, 0.0)
    module.during_positions = lambda: None
    before = clock.now
    watch(agent, instance, 1, 0.0)
    assert clock.now - before == agent.LONGEST_REST
    # The caller waits 3 s longer than the poll.
    assert agent.LONGEST_REST < POLL_MARGIN_S


def test_a_new_poll_answers_at_once_however_long_the_last_look_took(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent, instance, clock = timed_poll(load)

    def take_long() -> None:
        clock.now += 0.1

    module.during_positions = take_long
    watch(agent, instance, 1, 0.0)
    before = clock.now
    call(agent, instance, "open_poll", 5)
    watch(agent, instance, 1, 60)
    assert clock.now - before == pytest.approx(0.1)


def test_waiting_for_a_login_is_not_what_a_look_costs(load: Callable[[], Any]) -> None:
    """Or the poll would rest as long as if its own look had taken that long."""
    agent, instance, clock = timed_poll(load)
    instance.fence.lock = SlowLock(clock)
    watch(agent, instance, 3, 60)
    assert 0 < max(clock.slept) <= agent.LONGEST_STEP + 1e-9


class FakeClock:
    """Moves only when slept on; stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    perf_counter = time = monotonic

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class SlowLock:
    """Held by a login of 10 s whenever somebody comes."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def __enter__(self) -> None:
        self.clock.now += 10

    def __exit__(self, *_error: object) -> None:
        pass


def waiting_poll(load: Callable[[], Any], then: Callable[[Any, Any], None]) -> dict[str, Any]:
    """The answer of a poll that waits for 60 s, when `then(agent, instance)` happens meanwhile."""
    agent = load()
    instance = agent.Agent()
    call(agent, instance, "open_poll", 5)
    version = poll(agent, instance, "", 60)["answer"]["version"]
    answers: list[dict[str, Any]] = []
    waiter = threading.Thread(target=lambda: answers.append(poll(agent, instance, version, 60)))
    waiter.start()
    then(agent, instance)
    waiter.join(30)
    assert not waiter.is_alive()
    return answers[0]


def test_a_newer_poll_ends_an_older_one(load: Callable[[], Any]) -> None:
    def newer(agent: Any, _instance: Any) -> None:
        call(agent, agent.Agent(), "open_poll", 5)

    assert waiting_poll(load, newer)["error"]["kind"] == "superseded"


def test_a_newer_owner_ends_a_poll(load: Callable[[], Any]) -> None:
    def newer(agent: Any, _instance: Any) -> None:
        call(agent, agent.Agent(), "snapshot", 6, 1, "S")

    assert waiting_poll(load, newer)["error"]["kind"] == "stale_token"


def test_another_login_ends_a_poll(load: Callable[[], Any], module: FakeModule) -> None:
    def switch(_agent: Any, _instance: Any) -> None:
        module.login_now = (2, "S")

    assert waiting_poll(load, switch)["error"]["kind"] == "wrong_account"


def test_history_pages_newest_first_without_gap_or_repeat(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    instance = agent.Agent()
    # Several rows of one millisecond: the cursor must tell them apart.
    module.deals = tuple(Deal(n, n // 3, "EURUSD" if n % 2 else "XAUUSD") for n in range(1, 20))
    seen: list[int] = []
    before = None
    while True:
        args = (1, "S", "deals", (0, 9), "", before, 4, MANY)
        page = call(agent, instance, "history", 5, *args)["answer"]
        seen += [row["ticket"] for row in page["rows"]]
        if not page["more"]:
            break
        before = (page["rows"][-1]["time_msc"], page["rows"][-1]["ticket"])
    assert seen == list(range(19, 0, -1))
    only = call(agent, instance, "history", 5, 1, "S", "deals", (0, 9), "XAUUSD", None, 100, MANY)
    assert {row["symbol"] for row in only["answer"]["rows"]} == {"XAUUSD"}


def test_a_window_becomes_no_more_dictionaries_than_a_page_has_rows(
    load: Callable[[], Any], module: FakeModule
) -> None:
    made = []

    class Counted(Deal):
        def _asdict(self) -> dict[str, Any]:
            made.append(self.ticket)
            return super()._asdict()

    agent = load()
    module.deals = tuple(Counted(n, n, "EURUSD") for n in range(1000))
    args = (1, "S", "deals", (0, 9), "", None, 3, MANY)
    assert call(agent, agent.Agent(), "history", 5, *args)["answer"]["more"]
    assert made == [999, 998, 997]


def test_more_rows_than_allowed_are_counted_and_not_made(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    instance = agent.Agent()
    module.deals = tuple(Deal(n, n, "EURUSD") for n in range(11))
    given = (1, "S", "deals", (0, 9), "", None, 100)
    assert len(call(agent, instance, "history", 5, *given, 11)["answer"]["rows"]) == 11
    module.history_deals_get = lambda *_: None  # type: ignore[method-assign, assignment]
    error = call(agent, instance, "history", 5, *given, 10)["error"]
    assert (error["kind"], error["code"]) == ("too_many", 11)


def test_the_size_of_a_history_is_of_all_time(load: Callable[[], Any], module: FakeModule) -> None:
    agent = load()
    instance = agent.Agent()
    module.totals = (7, 3)
    size = call(agent, instance, "history_size", 5, 1, "S")["answer"]
    assert size == {"deals": 7, "orders": 3, "funded": False}
    module.balance = 0.01
    assert call(agent, instance, "history_size", 5, 1, "S")["answer"]["funded"] is True
    module.login_now = (2, "S")
    assert call(agent, instance, "history_size", 5, 1, "S")["error"]["kind"] == "wrong_account"


@pytest.mark.parametrize(("totals", "text"), [((None, 3), "no deals"), ((3, None), "no orders")])
def test_a_history_that_cannot_be_counted_says_why(
    load: Callable[[], Any],
    module: FakeModule,
    totals: tuple[int | None, int | None],
    text: str,
) -> None:
    agent = load()
    module.totals = totals
    error = call(agent, agent.Agent(), "history_size", 5, 1, "S")["error"]
    assert error == {"kind": "failed", "text": text, "code": -1}


def test_a_probe_says_who_is_in(load: Callable[[], Any], module: FakeModule) -> None:
    agent = load()
    instance = agent.Agent()
    answer = call(agent, instance, "probe", 5, 500)["answer"]
    assert answer == {"identity": {"login": 1, "server": "S"}}
    module.login_now = None
    assert call(agent, instance, "probe", 5, 500)["answer"] == {"identity": None}
    assert module.timeouts == []
    assert call(agent, instance, "probe", 4, 500)["error"]["kind"] == "stale_token"


def test_a_probe_of_a_terminal_that_is_away_fails(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    module.login_now, module.away = None, True
    error = call(agent, agent.Agent(), "probe", 5, 500)["error"]
    assert (error["kind"], error["code"]) == ("failed", -10003)
    assert len(module.timeouts) == 1
    assert 0 < module.timeouts[0] <= 500


def test_a_probe_of_a_terminal_that_tells_nothing_of_its_account_fails(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    module.mute = True
    error = call(agent, agent.Agent(), "probe", 5, 500)["error"]
    assert (error["kind"], error["code"]) == ("failed", -10005)


def test_metatrader_gets_no_more_time_than_the_caller_has_left(
    load: Callable[[], Any], module: FakeModule
) -> None:
    agent = load()
    instance = agent.Agent()
    clock = FakeClock()
    agent.time = clock
    instance.fence.lock = HeldFor(clock, 0.75)
    # The caller waits for a second: three quarters of it go by before the lock is free.
    assert "answer" in call(agent, instance, "sign_in", 5, 2, "pw", "S", 9000, False)
    assert module.timeouts == [250]
    instance.fence.lock = HeldFor(clock, 1.0)
    assert call(agent, instance, "sign_in", 5, 3, "pw", "S", 9000, False)["error"]["kind"] == "busy"
    assert module.timeouts == [250]


class HeldFor:
    """A lock that is free so many seconds after somebody comes."""

    def __init__(self, clock: "FakeClock", seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds

    def acquire(self, timeout: float) -> bool:
        self.clock.now += min(self.seconds, timeout)
        return True

    def release(self) -> None:
        pass


def test_an_unknown_operation_is_refused(load: Callable[[], Any]) -> None:
    agent = load()
    assert call(agent, agent.Agent(), "check_token", 5)["error"]["code"] == -7


def test_it_is_one_file_for_an_old_python() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 9))
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported - set(sys.stdlib_module_names) == {"MetaTrader5"}
