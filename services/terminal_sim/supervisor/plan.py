"""The faults a scenario plans: begun at their times after everything listens."""

import asyncio
import logging

from terminal_sim.scenario.planned import PlannedFault
from terminal_sim.supervisor.fault_book import FaultBook, NoSuchTarget, TooManyFaults

_LOG = logging.getLogger("terminal_sim.supervisor")


def follow(book: FaultBook) -> None:
    """Begin each planned fault when its time comes."""
    loop = asyncio.get_running_loop()
    for planned in book.planned:
        loop.call_later(planned.after_s, _begin, book, planned)


def _begin(book: FaultBook, planned: PlannedFault) -> None:
    try:
        book.inject(planned.injection)
    except NoSuchTarget as nowhere:  # a container with terminals alone, or brokers alone
        _LOG.info("a planned fault is left out: %s", nowhere)
    except TooManyFaults as full:
        _LOG.warning("a planned fault is left out: %s", full)
    except BlockingIOError:
        _LOG.warning("a planned fault is left out: the terminal takes no more commands")
