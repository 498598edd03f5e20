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

    The result sets ``last_error()``, answers ``failure`` when the method refuses, and holds the
    interpreter for the configured time of a call.

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
            terminal = self.terminal
            if terminal.timing.call_seconds:
                hold_interpreter(terminal.timing.call_seconds)
            try:
                answer = method(self, *args, **kwargs)
            except Refusal as refused:
                terminal.error = refused.error
                return failure
            terminal.error = SUCCESS
            return answer

        return call

    return decorate
