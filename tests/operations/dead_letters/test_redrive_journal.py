"""The ledger on the log."""

from collections.abc import Sequence

import pytest

from mesh.adapters.ports import Refused
from mesh.app.wiring import topic_specs
from mesh.core.dead_letters.redrive_log import DROPPED, PLANNED, RedriveEntry
from mesh.core.errors import InvalidInput
from mesh.core.protocol.record import NewRecord
from mesh.operations.dead_letters.redrive_journal import Journal
from tests.operations.dead_letters.conftest import Shop


def entries(*letters: str) -> list[RedriveEntry]:
    return [RedriveEntry(letter, 1, PLANNED, "ann", 0) for letter in letters]


async def test_what_was_noted_is_read_and_a_ledger_that_was_never_written_is_empty(shop: Shop) -> None:
    journal = Journal(shop.mesh.log, shop.mesh.topology)
    assert (await journal.read())[1] == 0
    many = [f"d{n}" for n in range(250)]
    assert await journal.note(entries(*many)) == list(range(250)), "in several appends"
    ledger, end = await journal.read()
    assert (end, [ledger.of(letter)[0].letter for letter in many]) == (250, many)


async def test_the_first_writer_is_reported(shop: Shop) -> None:
    journal = Journal(shop.mesh.log, shop.mesh.topology)
    await journal.note(entries("d0"))
    _, end = await journal.read()
    await journal.note(entries("d1", "d2"))
    ours = await journal.note(entries("d2", "d3", "d0"))
    await journal.note(entries("d3"))
    assert await journal.noted_before(["d2:r1", "d3:r1", "d0:r1"], end, ours) == {"d2:r1"}
    assert await journal.noted_before([], end, []) == set()


async def test_a_refused_entry_is_an_error_that_says_what_to_do(shop: Shop) -> None:
    class Refusing:
        url = "test"

        async def append(self, records: Sequence[NewRecord]) -> Sequence[Refused]:
            return [Refused("unknown_topic", "no such topic") for _ in records]

    with pytest.raises(InvalidInput, match="`mesh topics create`") as raised:
        await Journal(Refusing(), shop.mesh.topology).note([RedriveEntry("d", 0, DROPPED, "ann", 0)])  # type: ignore[arg-type]
    assert raised.value.code == "unknown_topic"


def test_the_ledger_is_compacted_and_has_one_partition(shop: Shop) -> None:
    (spec,) = [spec for spec in topic_specs(shop.mesh.topology) if spec.name == "mesh.redrives"]
    assert (spec.partitions, spec.config["cleanup.policy"]) == (1, "compact")
