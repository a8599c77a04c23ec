"""An outcome that the log refuses is replaced by one that says of each result why it is not there: a larger one."""

from collections.abc import Iterator
from contextlib import contextmanager

import orjson

from mesh.core.protocol.record import NewRecord
from mesh.core.publishing import replacement_records
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""

    def outcome(record: NewRecord, text: str, limit: int) -> NewRecord:
        body = orjson.loads(record.value or b"")
        kept = [{name: result.get(name) for name in ("type", "id", "agent")} for result in body["results"]]
        body["results"] = [{**result, "omitted": text} for result in kept]
        return record._replace(value=orjson.dumps(body))

    with swapped(replacement_records, "_outcome", outcome):
        yield
