"""A fresh context for each call: its context variables, with them the OpenTelemetry span, and its decimal context.

A coroutine runs in the context of its task. Without a fresh one, the next call of the same task would find what this
call has set.
"""

import decimal
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Contexts:
    """A factory of contexts that hold what the current one holds now.

    A decimal context is mutable, so it is copied for each call if any module has changed it. Otherwise it is left out:
    Python makes a default one when it is first needed.
    """

    def __init__(self) -> None:
        base = Context()
        self.new: Callable[[], Context] = base.copy
        """Factory of the context for the next call."""
        for variable, value in copy_context().items():
            if variable is not _DECIMAL:
                base.run(variable.set, value)
            elif _settings(value) != _settings(decimal.DefaultContext):
                self.new = partial(_with_decimal, base, value)


def _with_decimal(base: Context, changed: decimal.Context) -> Context:
    made = base.copy()
    made.run(decimal.setcontext, changed.copy())
    return made


async def within(context: Context, call: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine in this context."""
    run = context.run
    try:
        waits_for = run(call.send, None)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]
    return await resume_coroutine(run, call, waits_for)


@coroutine
def resume_coroutine(run: Callable[..., Any], call: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Await the rest of a coroutine that was begun by `run(call.send, None)`. `run`: the method of its context."""
    go_on: Callable[[Any], Any]
    while True:
        try:
            got = yield waits_for
        except GeneratorExit:
            run(call.close)
            raise
        except BaseException as error:  # noqa: BLE001  # thrown into the call, as an `await` does
            go_on, got = call.throw, error
        else:
            go_on = call.send
        try:
            waits_for = run(go_on, got)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        finally:
            del got  # an error's traceback holds this frame: kept here, it would be a cycle


def _settings(context: decimal.Context) -> tuple[Any, ...]:
    """Return all settings but the flags, which any calculation sets."""
    return (context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp, context.traps)


def _decimal_variable() -> Any:
    """Return the context variable of the decimal module, which has no public name."""
    scratch = Context()
    scratch.run(decimal.getcontext)
    return next(iter(scratch))


_DECIMAL = _decimal_variable()
