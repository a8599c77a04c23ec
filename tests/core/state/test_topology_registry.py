"""The fold of mesh.topologies."""

from dataclasses import replace

from mesh.core.protocol.record import StoredRecord
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.model import Topology
from mesh.core.topology.serialization import pinned_bytes
from tests.builders import topology


def made(digest: str) -> Topology:
    return replace(topology(a="x"), digest=digest)


FIRST, SECOND = made("f" * 16), made("5" * 16)


def record(offset: int, key: bytes | None, value: bytes | None) -> StoredRecord:
    return StoredRecord("mesh.topologies", 0, offset, 0, key, value, ())


def test_the_first_topology_names_the_owner_and_the_order_is_that_of_the_records() -> None:
    kept = Registry("mesh.inbox")
    assert kept.owner == ""
    for offset, one in enumerate((SECOND, FIRST, SECOND)):
        kept.fold(record(offset, one.digest.encode(), pinned_bytes(one)))
    assert list(kept.topologies) == [SECOND.digest, FIRST.digest]
    assert kept.owner == SECOND.name


def test_what_cannot_be_read_is_named_and_owns_nothing() -> None:
    kept = Registry("mesh.inbox")
    kept.fold(record(0, b"d", b"{}"))
    kept.fold(record(1, None, None))
    assert (kept.owner, kept.topologies, sorted(kept.unreadable)) == ("", {}, ["", "d"])
