"""What one attempt wrote on the board, for mesh.board: it travels with the answer of its task, in the same append.

So a task is finished, and its offset committed, only when its changes are mirrored, and nobody waits for that by
itself. What comes without an answer (an attempt that was interrupted), or after it, goes alone.
"""

from collections.abc import Callable, Sequence

from mesh.core.board.changelog import BoardChange


class Changes:
    """`alone` is given what has no answer to travel with."""

    __slots__ = ("_alone", "_closed", "_noted")

    def __init__(self, alone: Callable[[Sequence[BoardChange]], None]) -> None:
        self._alone = alone
        self._noted: list[BoardChange] = []
        self._closed = False

    def note(self, change: BoardChange) -> None:
        """The board acknowledged a write."""
        if self._closed:
            self._alone([change])
        else:
            self._noted.append(change)

    def take(self) -> Sequence[BoardChange]:
        """What was noted since the last time."""
        noted, self._noted = self._noted, []
        return noted

    def close(self) -> Sequence[BoardChange]:
        """The rest: there is an answer now, or there will be none."""
        self._closed = True
        return self.take()
