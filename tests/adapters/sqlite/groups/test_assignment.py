"""The assignment of partitions to members."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.adapters.sqlite.groups.assignment import assign

members = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=7, unique=True)
partitions = st.sets(st.integers(0, 40), max_size=24)


def loads(assigned: dict[int, str], names: list[str]) -> list[int]:
    return [list(assigned.values()).count(name) for name in names]


@given(members, partitions, st.dictionaries(st.integers(0, 40), st.sampled_from("abcdefgxyz")))
def test_equal_members_get_equal_shares_of_everything(
    names: list[str], wanted: set[int], current: dict[int, str]
) -> None:
    assigned = assign(dict.fromkeys(names, wanted), current)
    assert set(assigned) == wanted
    assert max(loads(assigned, names)) - min(loads(assigned, names)) <= 1


@given(members, partitions)
def test_what_is_settled_stays(names: list[str], wanted: set[int]) -> None:
    eligible = dict.fromkeys(names, wanted)
    settled = assign(eligible, {})
    assert assign(eligible, settled) == settled


@given(members, partitions)
def test_no_more_moves_than_must(names: list[str], wanted: set[int]) -> None:
    settled = assign(dict.fromkeys(names, wanted), {})
    wider = assign(dict.fromkeys([*names, "new"], wanted), settled)
    assert all(wider[p] in (settled[p], "new") for p in wanted)
    gone = assign(dict.fromkeys([*names[1:], "new"], wanted), wider)
    assert all(gone[p] == wider[p] for p in wanted if wider[p] != names[0])


@given(st.dictionaries(st.sampled_from("abcdefg"), st.sets(st.integers(0, 12), max_size=8), min_size=1))
def test_no_member_gets_a_topic_that_it_does_not_subscribe_to(eligible: dict[str, set[int]]) -> None:
    assigned = assign(eligible, {})
    assert set(assigned) == set().union(*eligible.values())
    assert all(partition in eligible[member] for partition, member in assigned.items())


def test_without_members_no_partition_is_assigned() -> None:
    assert assign({}, {1: "a"}) == {}


def test_more_members_than_partitions_leave_some_idle() -> None:
    assert sorted(loads(assign({name: {1, 2} for name in "abc"}, {}), ["a", "b", "c"])) == [0, 1, 1]
