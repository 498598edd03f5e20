"""Work that nobody waits for goes on whatever happens to it, and ends with the process."""

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from mt5kit.service import background as background_module
from mt5kit.service.background import Background
from mt5kit.state.redis import StateUnavailable


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_a_loop_survives_every_failure_and_says_once_that_a_store_is_away() -> None:
    failures = [StateUnavailable("away"), StateUnavailable("away"), ValueError("odd"), None]
    rounds = 0

    async def work() -> None:
        nonlocal rounds
        failure = failures[min(rounds, len(failures) - 1)]
        rounds += 1
        if failure is not None:
            raise failure

    background = Background()
    with capture_logs() as logs:
        background.every("work", 0, work)
        await until(lambda: rounds > 10)
        await background.aclose()
    assert [line["event"] for line in logs] == ["background_work_waits", "background_work_failed"]
    before = rounds
    await asyncio.sleep(0)
    assert rounds == before


async def test_what_runs_once_may_finish_at_the_end() -> None:
    written: list[str] = []
    release = asyncio.Event()

    async def write() -> None:
        await release.wait()
        written.append("look")

    async def fail() -> None:
        raise ValueError("odd")

    background = Background()
    background.spawn("write", write())
    with capture_logs() as logs:
        background.spawn("fail", fail())
        closing = asyncio.create_task(background.aclose())
        await asyncio.sleep(0)
        release.set()
        await closing
    assert written == ["look"]
    assert [line["event"] for line in logs] == ["background_work_failed"]


async def test_what_does_not_finish_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, "FINISH_S", 0.01)
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    background = Background()
    background.spawn("hang", hang())
    await background.aclose()
    assert ended.is_set()
