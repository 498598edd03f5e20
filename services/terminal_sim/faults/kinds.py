"""Every fault: its parameters, what it does, and the complaint from practice it stands for.

The first paragraph of a docstring says what happens, the one that begins with "In practice" why
anybody should care. The control API, the command line and the README show both.
"""

from typing import Annotated, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
# All that a fault holds has a bound: whatever is asked for fits into one message to whom it is for.
Times = Annotated[int, Meta(ge=1, le=1_000_000_000)] | None
Login = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Text = Annotated[str, Meta(max_length=64)]
FunctionNames = Annotated[tuple[Text, ...], Meta(max_length=32)]


class Fault(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="name"
):
    """What all faults have in common.

    Attributes:
        times: The fault ends after it has acted so often; None: no such end.
        seconds: The fault ends after so long; None: no such end.
        ends: Which of the two it takes: what acts all the time is not counted.
    """

    ends: ClassVar[tuple[str, ...]] = ("times", "seconds")

    times: Times = None
    seconds: Annotated[float, Meta(gt=0, le=86_400 * 30)] | None = None


class Latency(Fault, frozen=True, tag="latency"):
    """Calls take longer and hold the interpreter meanwhile.

    ``ms`` is the constant, the mean (normal, exponential), the median (lognormal) or the middle
    (uniform); ``spread_ms`` the deviation or half the width. ``functions``: empty for all.

    In practice: a terminal on a busy host answers in seconds, and every client of it waits.
    """

    ms: Milliseconds
    spread_ms: Milliseconds = 0.0
    distribution: Literal["constant", "uniform", "normal", "lognormal", "exponential"] = "constant"
    functions: FunctionNames = ()


class Freeze(Fault, frozen=True, tag="freeze"):
    """The interpreter is held for ``hold_s``: nothing of the process answers, then all goes on.

    With more ``times``, or none and ``seconds``, it is held again after a pause as long.

    In practice: one slow ``login()`` or ``copy_rates_*`` freezes every connection of the server.
    """

    times: Times = 1
    hold_s: Seconds = 10.0


class Crash(Fault, frozen=True, tag="crash"):
    """The process ends at once, as if it had been killed.

    With more ``times`` its successors end too, as soon as they listen.

    In practice: the terminal or Wine dies, connections are reset, nobody starts it again.
    """

    times: Times = 1


class CrashInCall(Fault, frozen=True, tag="crash_in_call"):
    """The process ends in the middle of the next call (of ``functions``, empty for any).

    In practice: a client that had sent an order never learns whether it was carried out.
    """

    times: Times = 1
    functions: FunctionNames = ()


class IpcError(Fault, frozen=True, tag="ipc_error"):
    """Calls fail with an IPC code of the module.

    In practice: "(-10005, 'IPC timeout')" right after a start, "(-10004, 'No IPC connection')"
    after the terminal has updated itself, "(-10001, 'IPC send failed')" out of the blue.
    """

    code: Literal[-10000, -10001, -10002, -10003, -10004, -10005] = -10004
    functions: FunctionNames = ()


class SlowLogin(Fault, frozen=True, tag="slow_login"):
    """Logins take ``login_s``.

    In practice: a terminal that first has to fetch symbols and history logs in for a minute.
    """

    login_s: Seconds = 40.0


class BrokerDisconnected(Fault, frozen=True, tag="broker_disconnected"):
    """The terminal loses its broker: prices stand still, ``connected`` is False.

    In practice: ``account_info()`` goes on answering, with figures of before the loss.
    """

    ends: ClassVar[tuple[str, ...]] = ("seconds",)


class HistoryEmpty(Fault, frozen=True, tag="history_empty"):
    """For ``ready_s`` after each login the history is empty, without any error.

    In practice: the first ``history_deals_get()`` of a session returns an empty tuple, because the
    terminal has only begun to load the history.
    """

    ready_s: Seconds = 5.0


class AccountSwitched(Fault, frozen=True, kw_only=True, tag="account_switched"):
    """Another account is logged in behind the clients' backs.

    ``password`` may be left out for an account that was logged in here before, or that the
    supervisor's scenario knows.

    In practice: somebody uses the terminal's window over VNC, or a second script calls ``login()``,
    and a reader takes one customer's positions for another's.
    """

    ends: ClassVar[tuple[str, ...]] = ()

    times: Times = 1
    login: Login
    server: Text | None = None
    password: Text | None = None

    def __repr__(self) -> str:
        """Leave the password out: a repr ends up in logs."""
        return f"AccountSwitched(login={self.login}, server={self.server!r})"


class AutotradingOff(Fault, frozen=True, tag="autotrading_off"):
    """The terminal's AutoTrading button is off: requests end in 10027.

    In practice: "AutoTrading disabled by client" after an update or a first start.
    """


class MemoryGrowth(Fault, frozen=True, tag="memory_growth"):
    """The process grows by ``mb_per_s`` up to ``limit_mb``; mended, it gives the memory back.

    In practice: a terminal keeps the history of every chart it has shown.
    """

    ends: ClassVar[tuple[str, ...]] = ("seconds",)

    mb_per_s: Annotated[float, Meta(gt=0, le=1000)] = 10.0
    limit_mb: Annotated[float, Meta(gt=0, le=4096)] = 200.0


class UnstableLink(Fault, frozen=True, tag="unstable_link"):
    """Bytes between clients and the terminal are delayed, or lost.

    Each write waits ``delay_ms`` give or take ``jitter_ms``. With the probability ``loss`` a write
    is lost: ``cut`` sends a part of it and resets the connection, ``silence`` sends nothing any
    more and leaves the connection open.

    In practice: a NAT forgets the connection, a VPN drops: a reset in mid-answer, or no answer
    ever.
    """

    delay_ms: Milliseconds = 0.0
    jitter_ms: Milliseconds = 0.0
    loss: Share = 0.0
    how: Literal["cut", "silence"] = "cut"


class LoginRejected(Fault, frozen=True, tag="login_rejected"):
    """The broker refuses logins (of ``login``, or all), whatever the password.

    In practice: "(-6, 'Terminal: Authorization failed')" for good credentials, right after another
    login or while the broker's access server restarts.
    """

    login: Login | None = None


class LoginRateLimit(Fault, frozen=True, tag="login_rate_limit"):
    """The broker accepts ``count`` logins in ``window_s`` from a terminal and refuses more.

    In practice: brokers count logins and block the address of whoever logs in all day long.
    """

    count: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 5
    window_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0


class AnswerLost(Fault, frozen=True, tag="answer_lost"):
    """An order is carried out, its answer never arrives.

    The client gets ``answer``: the retcode 10012 (request cancelled by timeout), 10031 (no
    connection), or None with "(-10005, 'IPC timeout')".

    In practice: the order is sent again and the position is there twice.
    """

    answer: Literal["timeout", "connection", "none"] = "timeout"
    login: Login | None = None


class Requote(Fault, frozen=True, tag="requote"):
    """Market orders get 10004 with new prices and are not carried out.

    In practice: a fast market on an instant-execution account.
    """

    login: Login | None = None


class TradeRefused(Fault, frozen=True, tag="trade_refused"):
    """Trade requests end in ``retcode`` and are not carried out.

    In practice: 10006 rejected, 10021 no quotes, 10024 too many requests, 10026 the server disables
    automated trading, 10028 locked.
    """

    retcode: Annotated[int, Meta(ge=10004, le=10045)] = 10006
    login: Login | None = None
    symbol: Text | None = None


class MarketClosed(Fault, frozen=True, tag="market_closed"):
    """Trading in ``symbol`` (or in all) is closed: requests end in 10018; stops do not trigger.

    In practice: a holiday the calendar does not know.
    """

    symbol: Text | None = None


class ClockShift(Fault, frozen=True, tag="clock_shift"):
    """The server's wall clock is put forward by ``by_s`` (back when negative); mended, back again.

    3600 is a daylight-saving jump on a day of its own; only whole minutes are taken. What was
    stamped before keeps its stamp.

    In practice: positions "opened in the future", and bars that no calendar explains.
    """

    ends: ClassVar[tuple[str, ...]] = ("seconds",)

    by_s: Annotated[int, Meta(ge=-86_400, le=86_400, multiple_of=60)] = 3600


TerminalFault: TypeAlias = (
    Latency
    | Freeze
    | Crash
    | CrashInCall
    | IpcError
    | SlowLogin
    | BrokerDisconnected
    | HistoryEmpty
    | AccountSwitched
    | AutotradingOff
    | MemoryGrowth
    | UnstableLink
)
"""Faults of one terminal."""
BrokerFault: TypeAlias = (
    LoginRejected | LoginRateLimit | AnswerLost | Requote | TradeRefused | MarketClosed | ClockShift
)
"""Faults of a broker, felt by all its terminals."""
