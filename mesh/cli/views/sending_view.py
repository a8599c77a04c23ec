"""What commands say about letters and requests that they send again."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from mesh.cli.framework.output import Output
from mesh.cli.framework.signals import terminable
from mesh.cli.framework.text import counted

if TYPE_CHECKING:
    from mesh.core.dead_letters.redrive_plan import AlreadyDone

SHOWN_MAX: Final = 50
T = TypeVar("T")


def already_done(output: Output, steps: "Sequence[AlreadyDone]", name: str, noun: str) -> None:
    """Note why nothing is to be done, by reason. `name`: of the only one."""
    reasons = Counter((step.message, step.remedy) for step in steps)
    for (message, remedy), number in reasons.most_common(SHOWN_MAX):
        about = name if len(steps) == 1 else counted(number, noun)
        output.note(f"nothing to do for {about}: {message}", (f"; {remedy}", "dim"))


async def with_progress(output: Output, total: int, send: Callable[[Callable[[int], None]], Awaitable[T]]) -> T:
    """Send under a progress bar. An interruption says that the rest can be sent."""
    done = 0
    with terminable(), output.progress(total) as bar:

        def count(more: int) -> None:
            nonlocal done
            done += more
            bar.advance(more, f"{done:,} of {total:,} sent")

        try:
            return await send(count)
        except asyncio.CancelledError:
            output.note(f"{done:,} of {total:,} sent; the same command sends exactly the rest")
            raise


def elsewhere(output: Output, number: int, noun: str) -> None:
    """Note what another process sends."""
    if number:
        output.note(f"{counted(number, noun)} left out: another process sends them at this moment")
