"""What ``serve`` was told, and what of it cannot be done."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import msgspec

from terminal_sim.scenario.lines import locate, steps
from terminal_sim.scenario.model import Scenario, Server
from terminal_sim.terminal.session import Timing


class ServeError(Exception):
    """The simulator cannot start; the message is one line for a person."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What ``serve`` was told.

    Attributes:
        scenario: Scenario file; None: no brokers are run here, and no faults are planned.
        host: Address of everything that listens.
        terminals: How many.
        port_base: Port of the first terminal; 0 takes free ports.
        broker_port: Port of the first broker run here; 0 takes free ports.
        brokers: Where brokers are that others run, by the names of their servers.
        data_dir: Where brokers keep their journals, made when it is missing; None: they forget
            everything.
        control_port: Port of the API; 0 takes a free port.
        key_file: File with the API's key.
        ready_file: Written when everything listens; removed before.
        timing: How long calls take.
        fault_seed: Of the chances of faults.
        drain_s: How long clients of terminals have to leave at SIGTERM, at most; 0: none.
    """

    scenario: Path | None
    host: str
    terminals: int
    port_base: int
    broker_port: int
    brokers: dict[str, tuple[str, int]]
    data_dir: Path | None
    control_port: int
    key_file: Path | None
    ready_file: Path | None
    timing: Timing
    fault_seed: int
    drain_s: float = 0.0

    def key(self) -> str | None:
        """Read the API's key.

        Raises:
            ServeError: It cannot be read, or is needed and missing.
        """
        if self.key_file:
            try:
                key = self.key_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ServeError(f"{self.key_file}: {reason(error)}") from error
            if not key:
                raise ServeError(f"{self.key_file}: is empty")
            return key
        if not _is_loopback(self.host):
            raise ServeError(
                f"without --key-file only a loopback address is served, not {self.host}"
            )
        return None

    def here(self, scenario: Scenario | None) -> tuple[Server, ...]:
        """Return the servers of a scenario whose brokers nobody else runs."""
        servers = scenario.servers if scenario else ()
        return tuple(server for server in servers if server.name not in self.brokers)

    def check(self, scenario: Scenario | None) -> None:
        """See that what was asked for can be run together.

        Raises:
            ServeError: It cannot.
        """
        for fault in self._faults(scenario):
            raise ServeError(fault)

    def _faults(self, scenario: Scenario | None) -> Iterator[str]:
        if self.ready_file and not self.ready_file.parent.is_dir():
            yield f"{self.ready_file}: its directory does not exist"
        if not self.terminals and not self.here(scenario):
            why = "all brokers are run elsewhere" if scenario else "no brokers without a scenario"
            yield f"there is nothing to run: no terminals, and {why}"
        if scenario is None and not self.brokers:
            yield "terminals need a broker: give --scenario or --broker"
        yield from self._too_high("--port-base", self.port_base, self.terminals)
        yield from self._too_high("--broker-port", self.broker_port, len(self.here(scenario)))
        yield from self._misplaced(scenario)

    def _misplaced(self, scenario: Scenario | None) -> Iterator[str]:
        """Yield planned faults of terminals that are not run, where terminals are run at all."""
        if scenario is None or self.scenario is None or not self.terminals:
            return
        for i, planned in enumerate(scenario.faults):
            number = planned.injection.terminal
            if number is not None and not 1 <= number <= self.terminals:
                place = f"$.faults[{i}].terminal"
                text = self.scenario.read_text(encoding="utf-8")
                line = locate(text, self.scenario.suffix, steps(place))
                said = f"there are terminals 1 to {self.terminals}, not {number}"
                yield f"{self.scenario}: line {line}: {place}: {said}"

    @staticmethod
    def _too_high(option: str, base: int, count: int) -> Iterator[str]:
        if base and base + count - 1 > 65_535:  # noqa: PLR2004 - the last port
            yield f"{option} {base}: {count} ports from there on do not exist"


def reason(error: OSError | UnicodeDecodeError) -> str:
    """Say in a few words why a file could not be used."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
