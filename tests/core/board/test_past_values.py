"""The board as it stood: the value of a key at any moment of the time that was read."""

from mesh.core.board.past_values import MemoryPast, PastValue


def timeline(*values: tuple[str, bytes | None, int, int], since_ms: int = 0) -> MemoryPast:
    made = MemoryPast(since_ms)
    for key, value, counter, at_ms in values:
        made.take(PastValue(key, value, f"a:{counter}", at_ms, "me"))
    return made


def value_at(made: MemoryPast, key: str, at_ms: int) -> bytes | None:
    found = made.at(key, at_ms)
    return None if found is None else found.value


def test_a_key_has_the_value_that_was_written_last_before_the_moment() -> None:
    made = timeline(("k", b"1", 1, 10), ("j", b"9", 2, 15), ("k", b"2", 3, 20), ("k", b"3", 4, 20))
    assert [value_at(made, "k", at_ms) for at_ms in (9, 10, 19, 20, 99)] == [None, b"1", b"1", b"3", b"3"]
    assert [(found.key, found.value) for found in made.values(15)] == [("j", b"9"), ("k", b"1")]
    assert [found.value for found in made.history("k", 19)] == [b"1"]
    assert [found.value for found in made.history("k", 20)] == [b"3", b"2", b"1"]
    assert value_at(made, "other", 99) is None


def test_a_deleted_key_has_no_value_until_it_is_written_again() -> None:
    made = timeline(("k", b"1", 1, 10), ("k", None, 2, 20), ("k", b"3", 3, 30))
    assert [value_at(made, "k", at_ms) for at_ms in (10, 20, 30)] == [b"1", None, b"3"]
    assert made.values(25) == []


def test_a_version_that_is_reported_late_does_not_come_back() -> None:
    made = timeline(("k", b"2", 7, 10), ("k", b"1", 6, 11))
    assert value_at(made, "k", 20) == b"2"
    made.take(PastValue("k", b"3", "b:1", 12))  # the store began again
    assert value_at(made, "k", 20) == b"3"


def test_only_the_newest_value_from_before_is_kept() -> None:
    made = timeline(("k", b"1", 1, 10), ("k", b"2", 2, 20), ("k", b"3", 3, 30), since_ms=25)
    assert [found.value for found in made.history("k", 99)] == [b"3", b"2"]
    assert value_at(made, "k", 25) == b"2"


def test_the_writes_of_one_writer_can_be_left_out() -> None:
    made = timeline(("k", b"1", 1, 10))
    made.take(PastValue("k", b"2", "a:2", 20, "scorer/t1"))
    assert [value_at(made, "k", 20), made.at("k", 20, but=("scorer/t1",))] == [b"2", made.at("k", 10)]
    assert [found.value for found in made.history("k", 20, but=("me",))] == [b"2"]
    assert [found.value for found in made.values(20, but=("scorer/t1",))] == [b"1"]


def test_a_write_of_the_first_millisecond_hides_no_earlier_one_from_a_reader_that_leaves_it_out() -> None:
    made = timeline(("k", b"1", 1, 10), ("k", b"2", 2, 15), since_ms=20)
    made.take(PastValue("k", b"3", "a:3", 20, "scorer/t1"))
    assert [found.value for found in made.values(20, but=("scorer/t1",))] == [b"2"]
    assert value_at(made, "k", 20) == b"3"
