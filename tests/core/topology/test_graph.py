"""Graphs: components, cycles, ways, also where recursion would have ended."""

from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.topology.graph import Graph, components, cycles, longest_path, shortest_cycle, without

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no mistake of ours."""

LINE = {"a": ["b"], "b": ["c"], "c": []}
RING = {"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a", "d"]}
LONG = {f"n{n}": [f"n{n + 1}"] for n in range(20_000)} | {"n20000": []}

NODES = [f"n{n}" for n in range(7)]
GRAPHS = st.fixed_dictionaries({node: st.lists(st.sampled_from(NODES), unique=True, max_size=4) for node in NODES})


def test_components_come_after_all_they_lead_to() -> None:
    assert components(LINE) == [("c",), ("b",), ("a",)]
    assert components(RING) == [("a", "b", "c"), ("d",)]


def test_cycles_are_rings_and_nodes_that_lead_to_themselves() -> None:
    assert cycles(LINE) == []
    assert cycles(RING) == [("a", "b", "c"), ("d",)]


def test_the_shortest_cycle_names_both_ends() -> None:
    assert shortest_cycle(RING, "b") == ("b", "c", "a", "b")
    assert shortest_cycle(RING, "d") == ("d", "d")
    assert shortest_cycle(LINE, "a") == ()
    assert shortest_cycle({"a": ["b", "c"], "b": ["c"], "c": ["a"]}, "a") == ("a", "c", "a")


def test_without_takes_nodes_and_what_leads_to_them() -> None:
    assert without(RING, ["b"]) == {"a": [], "c": ["a"], "d": ["a", "d"]}


def test_the_longest_way_counts_nodes() -> None:
    assert longest_path(LINE) == ("a", "b", "c")
    assert longest_path({"a": ["c"], "b": ["d"], "c": [], "d": ["c"]}) == ("b", "d", "c")
    assert longest_path({}) == ()


def test_a_component_counts_as_one_node_of_the_longest_way() -> None:
    assert longest_path(RING) == ("d", "a")


def test_long_graphs_exhaust_nothing() -> None:
    assert len(longest_path(LONG)) == 20_001
    ring = LONG | {"n20000": ["n0"]}
    assert len(cycles(ring)) == 1
    assert len(shortest_cycle(ring, "n5")) == 20_002


def reach(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(graph[node])
    return found


@PATIENT
@given(GRAPHS)
def test_two_nodes_share_a_component_when_each_reaches_the_other(graph: Graph) -> None:
    home = {node: n for n, group in enumerate(components(graph)) for node in group}
    assert sorted(home) == sorted(graph)
    for a in graph:
        for b in graph:
            if a != b:
                assert (home[a] == home[b]) is (b in reach(graph, a) and a in reach(graph, b))


@PATIENT
@given(GRAPHS)
def test_a_cycle_is_found_exactly_where_a_node_reaches_itself(graph: Graph) -> None:
    lying = {node for group in cycles(graph) for node in group}
    assert lying == {node for node in graph if node in reach(graph, node)}
    for node in graph:
        way = shortest_cycle(graph, node)
        assert bool(way) is (node in lying)
        assert all(b in graph[a] for a, b in pairwise(way))
