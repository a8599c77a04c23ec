"""The past of the board in a file: the same as in memory, in flat memory, and gone afterwards."""

import pickle
import random
import resource
from pathlib import Path

from mesh.adapters.sqlite import stored_past
from mesh.adapters.sqlite.stored_past import StoredPast
from mesh.core.board.past_values import MemoryPast, PastValue

KIB_MAX = 100_000


def test_it_answers_as_the_past_in_memory_does(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(stored_past, "STEP", 7)
    for seed in range(20):
        chance = random.Random(seed)
        since_ms = chance.choice((0, 30))
        memory = MemoryPast(since_ms)
        with StoredPast(since_ms) as stored:
            for number in range(120):
                counter = number - chance.choice((0, 0, 0, 9))
                value = PastValue(
                    chance.choice("abcdefghijk"),
                    chance.choice((b"1", b"2", None)),
                    f"{chance.choice(('x', 'x', 'y'))}:{counter}",
                    number // 2,
                    chance.choice(("p/1", "q/2")),
                )
                memory.take(value)
                stored.take(value)
            for at_ms in (0, 20, 30, 45, 99):
                for but in ((), ("p/1",)):
                    assert stored.values(at_ms, but=but) == memory.values(at_ms, but=but)
                    for key in "abz":
                        assert stored.at(key, at_ms, but=but) == memory.at(key, at_ms, but=but)
                        assert stored.history(key, at_ms, but=but) == memory.history(key, at_ms, but=but)


def test_another_process_can_read_a_past_with_a_path(tmp_path: Path) -> None:
    value = PastValue("key", b"1", "x:1", 7, "p/1")
    with StoredPast(0, str(tmp_path / "past")) as stored:
        stored.take(value)
        with pickle.loads(pickle.dumps(stored)) as read:
            assert read.values(8) == [value]


def test_many_values_take_little_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with StoredPast() as stored:
        for number in range(100_000):
            stored.take(PastValue(f"key-{number}", b"x" * 2_000, f"x:{number}", number, "p/1"))
        assert stored.at("key-7", 7) is not None
        assert stored.at("key-7", 6) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KIB_MAX  # 200 MB were written
