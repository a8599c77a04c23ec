"""Values of which some are still their rows."""

import pytest

from mesh.core.state.lazy_table import Table, number


def table(**rows: bytes) -> Table[str]:
    made = Table(bytes.decode)
    made.cold.update(rows)
    return made


def test_a_row_is_read_when_it_is_asked_for_and_once() -> None:
    read: list[bytes] = []
    made: Table[str] = Table(lambda row: read.append(row) or row.decode())  # type: ignore[func-returns-value]
    made.cold["a"] = b"1"
    assert ("a" in made, len(made), made.get("b"), read) == (True, 1, None, [])
    assert (made.get("a"), made["a"], made.raw("a"), read) == ("1", "1", "1", [b"1"])
    assert (made.warm, made.cold) == ({"a": "1"}, {})


def test_what_is_cold_is_seen_as_it_is_without_being_read() -> None:
    made = table(a=b"1")
    made["b"] = "2"
    assert (made.raw("a"), made.raw("b"), made.raw("c")) == (b"1", "2", None)
    rows = made.rows()
    assert rows == {"b": "2", "a": b"1"}
    made.discard("a")
    assert rows["a"] == b"1", "a copy"


def test_a_value_that_is_set_or_forgotten_is_so_wherever_it_was() -> None:
    made = table(a=b"1", b=b"2")
    made["a"] = "new"
    made.discard("b")
    made.discard("unknown")
    assert (made.warm, made.cold, len(made)) == ({"a": "new"}, {}, 1)
    made.discard("a")
    assert not made
    with pytest.raises(KeyError, match="a"):
        made["a"]


def test_it_may_be_walked_over_while_rows_are_read() -> None:
    made = table(a=b"1", b=b"2")
    made["c"] = "3"
    assert [made[id] for id in made] == ["3", "1", "2"]
    assert (list(table(a=b"1").values()), list(table(a=b"1").items())) == (["1"], [("a", "1")])


def test_it_equals_a_dict_and_a_table_of_the_same_values() -> None:
    warm = table()
    warm["a"] = "1"
    assert table(a=b"1") == warm == {"a": "1"}
    assert warm != {"a": "2"}
    assert repr(table(a=b"1")) == "{'a': '1'}"
    with pytest.raises(TypeError, match="unhashable"):
        hash(warm)


def test_a_row_that_cannot_be_read_stays_where_it_is() -> None:
    made = table(a=b"\xff")
    for _ in range(2):
        with pytest.raises(UnicodeDecodeError):
            made.get("a")
    assert number(b"17 x") == 17


def test_a_row_takes_the_place_of_the_value_that_it_was_made_of_and_of_no_other() -> None:
    made = table()
    first, second = "".join(["a", "b"]), "".join(["a", "b"])
    made["1"] = made["2"] = first
    made["2"] = second
    for id in ("1", "2", "3"):
        made.encode_idle(id, first, b"ab")
    assert (made.cold, made.warm) == ({"1": b"ab"}, {"2": second})
