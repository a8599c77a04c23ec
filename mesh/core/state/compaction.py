"""Which pieces of a checkpoint the next one takes the place of, so that neither they nor what is written grow. Pure.

Like a binary counter: a new piece takes in the last ones as long as they are at most twice as large as it is, so each
piece of a chain is more than twice as large as the one behind it. A row is thus written again about as often as the
number of runs can be halved, and a chain is as long; both whatever the number of events.

What was taken in lies on the log until the first piece goes, since only what lies before that is trimmed. So the first
one is written anew when most of what lies there, or most of what is read, is of no use any more.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from mesh.core.state.checkpoint import CHUNK_ROWS, Extent

TAKEN_IN: Final = 2
"""How much larger than the new piece one may be that goes into it."""
PIECES_MAX: Final = 16
"""From then on a piece is written thoroughly even in a hurry. The note of 40 still fits the metadata of a commit."""
HURRY_ROWS_MAX: Final = 8 * CHUNK_ROWS
"""Of older pieces, taken into one that is written in a hurry: less than 10 ms."""
RECORDS_FREE: Final = 16
"""That may lie there in vain beside as many as are of use."""


class Piece(NamedTuple):
    """One piece of a chain. `ids` are those of its rows; of the first piece nobody asks for them."""

    place: Extent
    rows: int
    ids: Sequence[str] = ()


def extend_chain(
    chain: Sequence[Piece], touched: Iterable[str], live: int, *, hurry: bool = False
) -> tuple[Sequence[Piece], Sequence[str] | None]:
    """What stays of a chain, and whose rows the next piece has; None: all, it begins a new chain.

    `touched`: what changed since the chain was written; `live`: rows of the whole state. In a hurry little is taken in.
    """
    touched = list(touched)
    stays, rows = list(chain), len(touched)
    hurry = hurry and len(chain) < PIECES_MAX
    while stays and stays[-1].rows <= TAKEN_IN * rows:
        more = live if len(stays) == 1 else stays[-1].rows
        if hurry and rows + more - len(touched) > HURRY_ROWS_MAX:
            break
        rows += more
        stays.pop()
    if not stays or (not hurry and _wasteful(stays, chain[-1].place.last, rows, live)):
        return (), None
    taken_in = (id for piece in chain[len(stays) :] for id in piece.ids)
    return stays, list(dict.fromkeys((*taken_in, *touched)))


def _wasteful(stays: Sequence[Piece], last: int, rows: int, live: int) -> bool:
    """Whether most of the records that lie there, or of the rows in them, are of no use."""
    lying = last - stays[0].place.first + 1
    of_use = sum(piece.place.records for piece in stays)
    return lying > 2 * of_use + RECORDS_FREE or sum(piece.rows for piece in stays) + rows > 2 * live + CHUNK_ROWS
