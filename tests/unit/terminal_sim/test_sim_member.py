"""What a supervisor keeps of a process that ends, without any process."""

import asyncio
import os
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from terminal_sim.process.wire import Acted, Listening, LogLine, Message, encode
from terminal_sim.supervisor.member import Member, Starting


class EndedProcess:
    """A process that has ended as soon as it was started."""

    pid = 1

    def __init__(self) -> None:
        self.sentinel, writing = os.pipe()
        os.close(writing)

    def join(self) -> None:
        """There is nothing to wait for."""

    def close(self) -> None:
        os.close(self.sentinel)

    def terminate(self) -> None:
        """It has ended."""


class Talkative(Member):
    """Its process says a lot and ends at once."""

    words: tuple[Message, ...] = ()

    def __init__(self) -> None:
        super().__init__("talkative", "127.0.0.1", 1, Starting())
        self.heard: list[Message] = []

    def _pipes(self) -> tuple[Connection, Connection]:
        ours, theirs = Pipe()
        for word in self.words:
            theirs.send_bytes(encode(word))
        return ours, theirs

    def _launch(self, pipe: Connection) -> Any:
        return EndedProcess()

    def _hear(self, message: Message) -> None:
        self.heard.append(message)


async def run_once(member: Talkative) -> str:
    keeping = asyncio.create_task(member.keep())
    words = await asyncio.wait_for(member.failing(), 30)
    await member.stop()
    await asyncio.wait_for(keeping, 30)
    return words


async def test_the_last_words_of_a_process_are_heard() -> None:
    member = Talkative()
    member.words = tuple(Acted(fault_id) for fault_id in range(50))
    await run_once(member)
    assert member.heard[:50] == list(member.words)


async def test_a_process_that_fails_at_once_has_its_last_complaint_told() -> None:
    member = Talkative()
    member.words = LogLine("now", "ERROR", "no such file"), LogLine("now", "INFO", "bye")
    assert await run_once(member) == "no such file"
    assert [line.message for line in member.log][:2] == ["no such file", "bye"]


async def test_a_process_that_says_nothing_is_told_as_well() -> None:
    assert await run_once(Talkative()) == "it ended at once"


async def test_whoever_waits_is_told_when_it_listens() -> None:
    member, told = Talkative(), []
    member.on_listening = lambda: told.append(member.state)
    member.words = (Listening(5),)
    await run_once(member)
    assert told[0] == "running"
    assert member.state == "stopped"
    assert not member.listening.is_set()
