"""Compare two states of an inbox partition: the one in a checkpoint with the one that its records give. Pure."""

from mesh.core.state.checkpoint import Snapshot
from mesh.core.state.partition_state import Partition
from mesh.core.state.row_codec import current_codec


def state_difference(expected: Partition, got: Partition) -> str:
    """Return the first difference as a sentence; "" if there is none."""
    if expected.offset != got.offset:
        return f"it stands at offset {got.offset} instead of {expected.offset}"
    for what, ours, theirs in zip(("open", "ended"), _rows(expected), _rows(got), strict=True):
        for id in sorted(ours.keys() | theirs.keys()):
            if ours.get(id) != theirs.get(id):
                if id not in theirs:
                    return f"run {id}, which is {what}, is not there"
                return f"run {id} {'is another one' if id in ours else f'is {what} there'}"
    if (expected.control, expected.breakers) != (got.control, got.breakers):
        return "switches or breakers stand otherwise"
    return ""


def _rows(state: Partition) -> tuple[dict[str, bytes], dict[str, bytes]]:
    whole = Snapshot(state)
    write_run, write_ended = current_codec().write_run, current_codec().write_ended
    runs = {id: run if isinstance(run, bytes) else write_run(run) for id, run in whole.runs.items()}
    ended = {id: one if isinstance(one, bytes) else write_ended(one) for id, one in whole.ended.items()}
    return runs, ended
