"""Windows: order between partitions, repeated records, restarts, and hops."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.metrics.windows import (
    BASE_MS,
    HOPS,
    PartitionWindows,
    Scoped,
    add_window,
    hopping,
    start_of,
    window_over,
)
from mesh.core.protocol.record import Record, TopicPartition
from tests.builders import event
from tests.core.metrics.scenario import BEGIN_MS, INBOX, MESH, answer, scenario, stored


def counted(parts: Sequence[PartitionWindows]) -> dict[int, Scoped]:
    base: dict[int, Scoped] = {}
    for part in parts:
        for start, scopes in part.windows.items():
            add_window(base, start, scopes)
    return base


def long_inbox(runs: int = 40) -> list[Record]:
    """Runs 3 s apart, each answered after 4 s and, of every third, again after 50 s."""
    events = []
    for n in range(runs):
        events.append(event(id=f"r{n}", run_id=f"run-{n}", at_ms=BEGIN_MS + 3_000 * n, data=b'{"a":"red box"}'))
        events.append(answer(f"run-{n}", "plan", 3_000 * n + 4_000, 500, words="red lid"))
        if n % 3 == 0:
            events.append(answer(f"run-{n}", "plan>ship", 3_000 * n + 50_000, 700))
    return stored(INBOX, sorted(events, key=lambda each: each.at_ms))


_ONCE = PartitionWindows(MESH, INBOX)
_ONCE.take(long_inbox())
EXPECTED = counted([_ONCE])


@given(st.randoms(use_true_random=False))
def test_the_order_of_records_between_partitions_does_not_matter(random) -> None:  # type: ignore[no-untyped-def]
    waiting = {place: list(records) for place, records in scenario().items()}
    parts = {place: PartitionWindows(MESH, place) for place in waiting}
    while any(waiting.values()):
        place = random.choice([place for place, records in waiting.items() if records])
        parts[place].take([waiting[place].pop(0)])
    others = [PartitionWindows(MESH, place) for place in scenario()]
    for part in others:
        part.take(scenario()[part.place])
    assert counted(list(parts.values())) == counted(others[::-1])


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=6))
def test_a_record_that_is_read_twice_counts_once(spans: list[tuple[int, int]]) -> None:
    records = long_inbox()
    part = PartitionWindows(MESH, INBOX)
    for start, length in spans:
        part.take(records[min(start, part.next_offset) : start + length])
    part.take(records)
    assert part.windows == EXPECTED


@given(st.integers(1, 92), st.integers(0, 92))
def test_a_restart_counts_every_window_that_was_not_settled_again(stop: int, settled: int) -> None:
    """The owner publishes and forgets what it has, goes on, dies, and the next one begins from `restart`."""
    records = long_inbox()
    part, published = PartitionWindows(MESH, INBOX), {}
    for n, record in enumerate(records[:stop]):
        part.take([record])
        if n == settled:
            published.update(part.windows)
            part.changed.clear()
            part.forget()
    offset, since_ms = part.restart()
    assert offset <= part.next_offset
    after = PartitionWindows(MESH, INBOX, since_ms=since_ms, next_offset=offset)
    after.take(records)
    for start in published.keys() - after.windows.keys():
        assert published[start] == EXPECTED[start]
    assert after.windows == {start: scopes for start, scopes in EXPECTED.items() if start >= since_ms}
    assert published.keys() | after.windows.keys() == EXPECTED.keys()


def test_a_restart_of_a_restart_goes_no_further_back_than_needed() -> None:
    records = long_inbox(200)
    part = PartitionWindows(MESH, INBOX)
    for record in records:
        part.take([record])
        part.changed.clear()
        part.forget()
    assert len(part.windows) == 1
    offset, since_ms = part.restart()
    assert since_ms == start_of(part.last_ms)
    kept_ms = MESH.limits.deadline_ms
    assert records[offset].timestamp >= since_ms - kept_ms - BASE_MS


def test_time_does_not_fall_in_a_partition() -> None:
    first, second = long_inbox()[:2]
    part = PartitionWindows(MESH, INBOX)
    part.take([first, second._replace(timestamp=0)])  # type: ignore[attr-defined]
    assert list(part.windows) == [BEGIN_MS]


def test_hopping_windows_are_merges_of_tumbling_ones() -> None:
    for length_ms, hop_ms in HOPS.items():
        hops = hopping(EXPECTED, length_ms)
        assert all(start % hop_ms == 0 for start in hops)
        assert all(b - a >= hop_ms for a, b in zip(hops, list(hops)[1:], strict=False))
        for start, scopes in hops.items():
            assert scopes == window_over(EXPECTED, start, length_ms)
        answers = sum(scopes["mesh"].counts.get("answers", 0) for scopes in hops.values())
        assert answers == 54 * length_ms // hop_ms  # each record is in as many windows
    assert hopping({}, BASE_MS) == {}


def test_a_window_over_chosen_scopes() -> None:
    assert set(window_over(EXPECTED, BEGIN_MS, 60_000, lambda scope: scope == "mesh")) == {"mesh"}
    assert window_over(EXPECTED, 0, BASE_MS) == {}


def test_places_are_kept_apart() -> None:
    assert PartitionWindows(MESH, TopicPartition("mesh.dead", 2)).place == ("mesh.dead", 2)
