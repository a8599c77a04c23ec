"""No value that is too large for the log stops the mesh: neither of a run nor on a topic."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mesh import InvalidInput
from mesh.adapters.ports import Appended
from mesh.core.protocol.codec import read_event
from mesh.core.protocol.event import REQUESTED, Event
from mesh.core.protocol.record import NewRecord, record_bytes
from tests.large_kit import Large, large_mesh

LIMIT = 30_000


async def test_an_outcome_over_the_limit_is_cut_and_the_run_behind_it_ends(tmp_path: Path) -> None:
    async with large_mesh(f"sqlite:{tmp_path / 'mesh.db'}", tmp_path / "b.db", "t", record_bytes_max=LIMIT) as mesh:
        body: dict[str, Any] = await mesh.run("big", parts=6)
        assert (body["ending"], body["tasks"]) == ("completed", 7)
        assert len(body["results"]) + body["results_omitted"] == 384
        assert (await mesh.run("small"))["ending"] == "completed"
        assert len(await mesh.records(mesh.ends)) == 385, "each event left once"


async def test_an_outcome_with_many_failures_over_the_limit_is_cut(tmp_path: Path) -> None:
    async with large_mesh(f"sqlite:{tmp_path / 'mesh.db'}", tmp_path / "b.db", "t", record_bytes_max=LIMIT) as mesh:
        body: dict[str, Any] = await mesh.run("big", parts=64, fails=900)
        assert body["ending"] == "failed"
        assert len(body["failures"]) + body.get("failures_omitted", 0) == 64
        assert (await mesh.run("small"))["ending"] == "completed"


def poison(mesh: Large, topic: str) -> NewRecord:
    """A record that the log just takes, and whose dead letter it does not take."""
    bare = NewRecord(topic, b"k", b"not json", [("", b"v")], 0)
    record = bare._replace(headers=[("h" * (LIMIT - record_bytes(bare) - 4), b"v")])
    assert record_bytes(record) <= LIMIT
    return record


@pytest.mark.parametrize("topic", ["asks.t", "t.inbox", "t.tasks.split"])
async def test_a_header_that_no_dead_letter_can_carry_stops_no_partition(tmp_path: Path, topic: str) -> None:
    async with large_mesh(f"sqlite:{tmp_path / 'mesh.db'}", tmp_path / "b.db", "t", record_bytes_max=LIMIT) as mesh:
        (verdict,) = await mesh.log.append([poison(mesh, topic)])
        assert isinstance(verdict, Appended)
        ids = await mesh.put_good(20)
        await mesh.ended(ids)
        kinds = [event.kind for r in await mesh.records("t.inbox") if isinstance(event := read_event(r), Event)]
        assert kinds.count(REQUESTED) == 20, "no request was written twice"
        async with asyncio.timeout(20):
            while not (letters := await mesh.records("t.dead")):
                pass
        headers = dict(letters[0].headers)
        assert [headers[f"__dlq.errors.{name}"] for name in ("topic", "partition", "offset")] == [
            topic.encode(),
            b"0",
            b"0",
        ]
        assert headers["mesh-dlq-omitted"]


async def test_a_request_over_the_limit_is_refused_at_the_entry_with_the_limit(tmp_path: Path) -> None:
    log = f"sqlite:{tmp_path / 'mesh.db'}"
    async with large_mesh(log, tmp_path / "b.db", "t", record_bytes_max=LIMIT, up=False) as mesh:
        with pytest.raises(InvalidInput, match=f"the limit is {LIMIT}") as refused:
            mesh.client.request("ask", {"id": "x", "text": "y" * LIMIT})
        assert refused.value.code == "too_large"
        near = mesh.client.request("ask", {"id": "x", "text": "y" * (LIMIT - 1_000)})
        assert await mesh.client.send([near])
