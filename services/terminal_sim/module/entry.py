"""What every function of the module has in common."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol

from terminal_sim.module.arguments import Refusal, check_arity
from terminal_sim.terminal.frozen_sleep import hold_interpreter
from terminal_sim.terminal.session import SUCCESS, Terminal

P = ParamSpec("P")


class HasTerminal(Protocol):
    """A group of functions over one terminal."""

    @property
    def terminal(self) -> Terminal:
        """The terminal they act on."""
        ...


def entry(
    failure: object = None, *, arity: int | None = None
) -> Callable[[Callable[..., object]], Callable[..., Any]]:
    """Make a method a function of the module.

    The result holds the terminal's lock, knows what the broker has told by then, sets
    ``last_error()``, answers ``failure`` when the method refuses, holds the interpreter for the
    configured time of a call, and suffers whatever faults are on.

    Args:
        failure: What a refused call returns.
        arity: Number of arguments of a function that takes no keywords; None when it parses its
            arguments itself.
    """

    def decorate(
        method: Callable[Concatenate[Any, P], object],
    ) -> Callable[Concatenate[HasTerminal, P], object]:
        @wraps(method)
        def call(self: HasTerminal, /, *args: P.args, **kwargs: P.kwargs) -> object:
            if arity is not None:
                check_arity(method.__name__, arity, args, kwargs)
            with self.terminal.lock:
                return _answer(
                    self.terminal, method.__name__, failure, lambda: method(self, *args, **kwargs)
                )

        return call

    return decorate


def _answer(
    terminal: Terminal, function: str, failure: object, work: Callable[[], object]
) -> object:
    if terminal.timing.call_seconds:
        hold_interpreter(terminal.timing.call_seconds)
    try:
        if terminal.faults:
            terminal.mischance.before(function)
        terminal.pump()
        answer, error = work(), SUCCESS
    except Refusal as refused:
        answer, error = failure, refused.error
    terminal.error = error
    if terminal.faults:
        terminal.mischance.after(function)
    return answer
