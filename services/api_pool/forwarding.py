"""Turns on other replicas' terminals: forwarded once, with the same request id."""

from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog

from api_pool.turns import ProofTurn, Taken, TurnRequest
from mt5kit import errors
from mt5kit.errors import (
    CallerError,
    Mt5SwarmError,
    ServiceOverloaded,
    TerminalMoved,
    TerminalTimeout,
    TerminalUnavailable,
    Unavailable,
)
from mt5kit.networks import Networks
from mt5kit.secret import Secret
from mt5kit.terminal.protocol import LOGIN_DEADLINE_S

log = structlog.get_logger(__name__)

PATH: Final = "/internal/turns"
KEY_HEADER: Final = "X-Internal-Key"
CONNECT_TIMEOUT_S: Final = 1.0
# The owner gives a turn up before we give the owner up: a login and a look, and telling of it.
ANSWER_MARGIN_S: Final = LOGIN_DEADLINE_S + 10.0
# As many as two terminals let wait; whoever finds them all taken would not get a turn in time.
MOST_CONNECTIONS: Final = 400
POOL_TIMEOUT_S: Final = 0.5
# A pooled connection that idles for longer may be one its owner is just closing.
KEEPALIVE_S: Final = 3.0


class ForwardedTurn(msgspec.Struct, frozen=True):
    """A turn on its way to the owner. It has no further way to go: the owner never forwards."""

    terminal_id: str
    deadline_s: float
    turn: TurnRequest


class ForwardedError(msgspec.Struct, frozen=True):
    """An exception of `mt5kit.errors` by the name of its class.

    `bases` are the names of the classes that it is one of, the nearest first: a replica of an older
    version takes it for the first that it knows.
    """

    kind: str
    message: str
    details: dict[str, object]
    retry_after_s: float | None
    bases: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: Mt5SwarmError) -> "ForwardedError":
        """What is told of an error; of our own faults, no more than that they are."""
        if not isinstance(error, (CallerError, Unavailable)):
            return cls("InternalFault", "the owner of the terminal failed", {}, None)
        # A store's own error crosses as what it is to a caller: not now.
        kind, *bases = (one.__name__ for one in type(error).__mro__ if one in _KINDS.values())
        return cls(kind, error.message, error.details, error.retry_after_s, tuple(bases))

    def raised(self) -> Mt5SwarmError:
        """The error again."""
        known = (_KINDS[one] for one in (self.kind, *self.bases) if one in _KINDS)
        kind = next(known, errors.InternalFault)
        return kind(self.message, details=self.details, retry_after_s=self.retry_after_s)


class ForwardedAnswer(msgspec.Struct, frozen=True):
    """Exactly one of the two."""

    taken: Taken | None = None
    error: ForwardedError | None = None


_KINDS: Final[dict[str, type[Mt5SwarmError]]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, Mt5SwarmError)
}


class Forwarder:
    """Speaks to the other replicas of the pool.

    Args:
        key: What opens their `/internal/`.
        lease_ttl_s: After which a dead owner's terminals are another's.
        transport: How requests travel; a test may give its own.
        networks: Outside which nobody is told the key. Names are refused with it: what they
            resolve to may be anybody's.
    """

    def __init__(
        self,
        key: Secret,
        lease_ttl_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
        networks: Networks | None = None,
    ) -> None:
        self._lease_ttl_s = lease_ttl_s
        self._networks = networks
        self._client = httpx.AsyncClient(
            headers={KEY_HEADER: key.reveal(), "Content-Type": "application/json"},
            limits=httpx.Limits(max_connections=MOST_CONNECTIONS, keepalive_expiry=KEEPALIVE_S),
            transport=transport,
            # Never through a proxy of the environment: the owner is next door.
            trust_env=False,
        )

    async def take(self, url: str, terminal_id: str, turn: TurnRequest, deadline_s: float) -> Taken:
        """Let the owner at `url` take the turn; raises as `Owner.take`.

        Raises:
            TerminalMoved: It cannot be reached or does not hold the terminal, so nothing was
                begun; or it ended during a read, which may be asked for again.
            TerminalTimeout: It did not answer in time, or ended while credentials were tried.
            ServiceOverloaded: Too many turns are on their way already.
            TerminalUnavailable: The owner is not to be spoken to where it says it is.
        """
        self._check(url)
        body = msgspec.json.encode(ForwardedTurn(terminal_id, deadline_s, turn))
        bound = structlog.contextvars.get_contextvars()
        headers = {"X-Request-ID": str(bound["request_id"])} if "request_id" in bound else {}
        timeout = httpx.Timeout(
            deadline_s + ANSWER_MARGIN_S, connect=CONNECT_TIMEOUT_S, pool=POOL_TIMEOUT_S
        )
        try:
            answer = await self._client.post(
                url + PATH, content=body, headers=headers, timeout=timeout
            )
        except httpx.PoolTimeout as crowded:
            raise ServiceOverloaded(
                "too many wait for other replicas' terminals", retry_after_s=deadline_s
            ) from crowded
        except (httpx.ConnectError, httpx.ConnectTimeout) as unreached:
            raise self._gone("the terminal's owner cannot be reached") from unreached
        except httpx.TimeoutException as late:
            raise TerminalTimeout("the terminal's owner did not answer") from late
        except httpx.HTTPError as lost:
            if isinstance(turn, ProofTurn):
                # Never a second try of a password by ourselves.
                raise TerminalTimeout("the terminal's owner ended meanwhile") from lost
            raise self._gone("the terminal's owner ended meanwhile") from lost
        return _taken(answer, turn)

    def _check(self, url: str) -> None:
        host = urlsplit(url).hostname or ""
        if self._networks is not None and not self._networks.permits(host):
            log.error("owner_outside_networks", host=host)
            raise TerminalUnavailable(
                "the terminal's owner is outside the permitted networks", retry_after_s=5
            )

    def _gone(self, why: str) -> TerminalMoved:
        return TerminalMoved(why, retry_after_s=self._lease_ttl_s)

    async def aclose(self) -> None:
        """Hang up."""
        await self._client.aclose()


def _taken(answer: httpx.Response, turn: TurnRequest) -> Taken:
    if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        # It stopped meanwhile; a password may have been tried.
        if isinstance(turn, ProofTurn):
            raise TerminalTimeout("the terminal's owner ended meanwhile")
        raise TerminalMoved("the terminal's owner is stopping")
    if answer.status_code != HTTPStatus.OK:
        raise TerminalUnavailable("the terminal's owner refused us", retry_after_s=5)
    told = msgspec.json.decode(answer.content, type=ForwardedAnswer)
    if told.error is not None:
        raise told.error.raised()
    if told.taken is None:
        raise TerminalUnavailable("the terminal's owner answered nothing")
    return told.taken
