"""Compaction: which pieces of a checkpoint the next piece replaces, so that reads and writes stay bounded. Pure.

The method resembles a binary counter. A new piece merges the last pieces as long as each is at most twice as large as
the new one. So each piece of a chain is more than twice as large as the one behind it. A row is written again about as
often as the number of runs can be halved. A chain has about as many pieces. Neither depends on the number of events.

Merged pieces stay on the log until the first piece is replaced, since only records before the first piece are trimmed.
So a new chain is begun when most of the records on the log, or most of the rows that are read, are useless.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from mesh.core.state.checkpoint import CHUNK_ROWS, Extent

TAKEN_IN: Final = 2
"""Largest size of a piece that is merged into the new one, as a multiple of the new piece's rows."""
PIECES_MAX: Final = 16
"""Length of a chain from which pieces are merged in full even if `quick`. A note of 40 pieces still fits the metadata
of a commit."""
QUICK_ROWS_MAX: Final = 8 * CHUNK_ROWS
"""Rows of older pieces that are merged into one that is written quickly: less than 10 ms of work."""
RECORDS_FREE: Final = 16
"""Useless records that are tolerated on the log, in addition to as many as are useful."""


class Piece(NamedTuple):
    """One piece of a chain. `ids`: ids of its rows; not needed for the first piece."""

    place: Extent
    rows: int
    ids: Sequence[str] = ()


def extend_chain(
    chain: Sequence[Piece], touched: Iterable[str], live: int, *, quick: bool = False
) -> tuple[Sequence[Piece], Sequence[str] | None]:
    """Return the pieces of a chain that stay, and the ids of the next piece. None: all ids, a new chain begins.

    `touched`: ids that changed since the chain was written; `live`: rows of the whole state. If `quick`, only a few
    rows are merged (QUICK_ROWS_MAX).
    """
    touched = list(touched)
    stays, rows = list(chain), len(touched)
    quick = quick and len(chain) < PIECES_MAX
    while stays and stays[-1].rows <= TAKEN_IN * rows:
        more = live if len(stays) == 1 else stays[-1].rows
        if quick and rows + more - len(touched) > QUICK_ROWS_MAX:
            break
        rows += more
        stays.pop()
    if not stays or (not quick and _is_oversized(stays, chain[-1].place.last, rows, live)):
        return (), None
    taken_in = (id for piece in chain[len(stays) :] for id in piece.ids)
    return stays, list(dict.fromkeys((*taken_in, *touched)))


def _is_oversized(stays: Sequence[Piece], last: int, rows: int, live: int) -> bool:
    """Return whether most of the records on the log, or most of the rows in the pieces, are useless."""
    lying = last - stays[0].place.first + 1
    of_use = sum(piece.place.records for piece in stays)
    return lying > 2 * of_use + RECORDS_FREE or sum(piece.rows for piece in stays) + rows > 2 * live + CHUNK_ROWS
