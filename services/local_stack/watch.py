"""What a stack does about its servers when one of them dies while it runs."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from local_stack.embedded_process import EmbeddedServer, EmbeddedServerError

# A person who has killed one sees it come back before asking twice.
LOOK_S: Final = 0.5


async def watch(
    revived: Sequence[EmbeddedServer], needed: EmbeddedServer, report: Callable[[str], None]
) -> None:
    """Start the databases again whenever they end, until cancelled.

    Args:
        revived: Servers that come back at the same address.
        needed: The one without which there is nothing to run: its ports would be others.
        report: Told of each restart.

    Raises:
        EmbeddedServerError: `needed` has ended, or a server cannot be started again.
    """
    while True:
        await asyncio.sleep(LOOK_S)
        for server in revived:
            if not server.running:
                report(f"{server.title} ended; starting it again")
                await asyncio.to_thread(server.start)
        if not needed.running:
            raise EmbeddedServerError(f"{needed.title} ended; its log is {needed.log_file}")
