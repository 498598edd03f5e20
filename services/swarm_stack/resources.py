"""What the stack reserves, summed up: `docs/sizes.md`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from swarm_stack.sizes import Sizes
from swarm_stack.variables import CORES, MARKET, POOLS

# The server of the PRD, of which it leaves 12 GB to the system.
SERVER_GB: Final = 64.0
SERVER_CORES: Final = 32
FOR_THE_SYSTEM_GB: Final = 12.0
# 15 symbols, a terminal each.
SYMBOLS: Final = 15
# As Docker counts them.
_UNITS: Final = {"M": 1 / 1024, "G": 1.0}


@dataclass(frozen=True, slots=True)
class Need:
    """What one replica reserves and may take: GB of 2^30 bytes, and cores."""

    reserved_gb: float
    limit_gb: float
    reserved_cores: float
    limit_cores: float


@dataclass(frozen=True, slots=True)
class Configuration:
    """Replicas of each service."""

    name: str
    replicas: Mapping[str, int]

    def total(self, needs: Mapping[str, Need]) -> Need:
        """What all of it adds up to."""
        parts = [(needs[name], count) for name, count in self.replicas.items()]
        return Need(
            sum(need.reserved_gb * count for need, count in parts),
            sum(need.limit_gb * count for need, count in parts),
            sum(need.reserved_cores * count for need, count in parts),
            sum(need.limit_cores * count for need, count in parts),
        )


def read_needs(stack_file: Path) -> dict[str, Need]:
    """Needs by service, from a stack file.

    Raises:
        KeyError: A service has no limit or no reservation.
        OSError: The file cannot be read.
    """
    stack: dict[str, Any] = yaml.safe_load(stack_file.read_text(encoding="utf-8"))
    return {name: _need(service) for name, service in stack["services"].items()}


def configurations(services: Iterable[str], sizes: Sizes) -> tuple[Configuration, ...]:
    """The least, the least with the market terminals, and all there can be."""
    names = tuple(services)
    market = -(-SYMBOLS // sizes.terminals.market)

    def counted(which: str, market_replicas: int) -> dict[str, int]:
        counts = dict.fromkeys(names, 1) | {MARKET: market_replicas}
        for pool, terminals in POOLS.items():
            size = sizes.pools.of(pool)
            counts[pool] = counts[terminals] = size.min if which == "min" else size.max
        return counts

    return (
        Configuration("minimum", counted("min", 0)),
        Configuration("minimum and market", counted("min", market)),
        Configuration("full", counted("max", market)),
    )


def sizes_page(stack_file: Path, sizes: Sizes) -> str:
    """The page: what each service takes, and what the configurations add up to."""
    needs = read_needs(stack_file)
    found = configurations(needs, sizes)
    head = ["service", "reserved GB", "limit GB", "cores", *(one.name for one in found)]
    rows = [
        [
            name,
            _gb(need.reserved_gb),
            _gb(need.limit_gb),
            f"{need.reserved_cores:g} to {need.limit_cores:g}",
            *(str(one.replicas[name]) for one in found),
        ]
        for name, need in needs.items()
    ]
    totals = [one.total(needs) for one in found]
    rows += [
        ["**reserved GB**", "", "", "", *(f"**{total.reserved_gb:.1f}**" for total in totals)],
        ["limits, GB", "", "", "", *(f"{total.limit_gb:.1f}" for total in totals)],
        ["**reserved cores**", "", "", "", *(f"**{one.reserved_cores:.2f}**" for one in totals)],
    ]
    table = [_row(head), _row(["---", *["---:"] * (len(head) - 1)]), *map(_row, rows)]
    return _PAGE.format(
        table="\n".join(table),
        reserved=sizes.terminals.reserved_gb,
        limit=sizes.terminals.limit_gb,
        server=f"{SERVER_GB:.0f}",
        cores=SERVER_CORES,
        left=f"{SERVER_GB - totals[-1].reserved_gb:.1f}",
        system=f"{FOR_THE_SYSTEM_GB:.0f}",
        symbols=SYMBOLS,
        over=f"{totals[-1].limit_gb:.0f}",
    )


def _need(service: Mapping[str, Any]) -> Need:
    resources = service["deploy"]["resources"]
    limits, reservations = resources["limits"], resources["reservations"]
    return Need(
        _size_gb(reservations["memory"]),
        _size_gb(limits["memory"]),
        float(reservations["cpus"]),
        _cores(limits["cpus"]),
    )


def _cores(text: str) -> float:
    wanted = {f"${{{name}:?}}": float(cores) for name, cores in CORES.items()}
    return wanted[text] if text in wanted else float(text)


def _size_gb(text: str) -> float:
    return float(text[:-1]) * _UNITS[text[-1]]


def _gb(size: float) -> str:
    return f"{size:.2f}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


_PAGE: Final = """\
# Sizes

Written by `make sizes` from `docker-stack.yml` and `config/stack.toml`; a test says that it is up
to date. What a replica reserves is kept for it; what lies between that and its limit is shared.

{table}

- **The memory of a terminal is an assumption**: {reserved} GB reserved and {limit} GB at most each,
  `reserved_gb` and `limit_gb` in `config/stack.toml`. No real terminal has been measured here; the
  image's authors ask for 1 GB. Watch `memory_bytes` of the supervisors before you rely on it.
- On the {server} GB server of the requirements the full configuration leaves {left} GB unreserved;
  {system} GB of that are meant for the system. The limits add up to {over} GB, more than there is:
  they keep one service from taking the others' memory, and are not all reached at once.
- The requirements plan with {cores} cores. A GB is 2^30 bytes, as Docker counts.
- Market terminals are {symbols}, a symbol each; nothing uses them yet, and none run until they are
  scaled up.
"""
