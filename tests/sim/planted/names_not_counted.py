"""The size of what replaces a refused record is counted without the names of its headers, however long they are."""

from collections.abc import Iterator
from contextlib import contextmanager

from mesh.core.protocol.record import NewRecord, record_bytes
from mesh.core.publishing import replacement_records
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""

    def without_names(record: NewRecord) -> int:
        return record_bytes(record._replace(headers=[("", value) for _, value in record.headers]))

    with (
        swapped(replacement_records, "record_bytes", without_names),
        swapped(replacement_records, "NAME_BYTES_MAX", 1 << 30),
    ):
        yield
