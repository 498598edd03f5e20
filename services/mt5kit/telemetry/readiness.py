"""What `/health/ready` says of the parts a service depends on."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from mt5kit.errors import Mt5SwarmError

Probe = Callable[[], Awaitable[None]]
"""Returns if the part answers, and raises one of our errors if not."""


async def dependencies(probes: Mapping[str, Probe]) -> dict[str, str]:
    """`ok` or the sentence of its failure, by name.

    It never makes a service unready: a start-first update could not get its first terminal, and
    a restart of Redis would restart every pool.
    """
    names = tuple(probes)
    return dict(zip(names, await asyncio.gather(*map(_outcome, probes.values())), strict=True))


async def _outcome(probe: Probe) -> str:
    try:
        await probe()
    except Mt5SwarmError as failure:
        return failure.message
    return "ok"
