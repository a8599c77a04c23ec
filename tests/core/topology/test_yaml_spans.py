"""Positions of the keys of agents in topics.yaml."""

from mesh.core.topology.yaml_spans import agent_spans

TEXT = """\
agents:
  block:
    run: "m:f" # comment
    on: {all: [a, b]}
    emits:
      - c
      - d # last

  flow: {run: "m:f", on: a, emits: [b, c]}
  anchored: &x {run: "m:f"}
  alias: *x
  empty: {run: "m:f", on: }
  inside: {run: "m:f", on: &types [a, b], emits: *types}
"""


def at(start: int, end: int) -> str:
    return TEXT[start:end]


def test_values_are_found_without_what_follows_them() -> None:
    spans = agent_spans(TEXT)
    block, flow = spans["block"], spans["flow"]
    assert (block.flow, flow.flow) == (False, True)
    assert at(block.keys["run"].value.start, block.keys["run"].value.end) == '"m:f"'
    emits = block.keys["emits"].value
    assert at(emits.start, emits.end) == "- c\n      - d"
    assert [TEXT[end - 1] for end in emits.items] == ["c", "d"]
    assert at(flow.keys["emits"].value.start, flow.keys["emits"].value.end) == "[b, c]"
    needed = block.keys["on"].all
    assert needed is not None
    assert at(needed.start, needed.end) == "[a, b]"


def test_an_agent_with_an_anchor_or_an_alias_is_left_out() -> None:
    assert set(agent_spans(TEXT)) == {"block", "flow", "empty", "inside"}


def test_anchors_and_aliases_of_values_are_marked() -> None:
    keys = agent_spans(TEXT)["inside"].keys
    assert (keys["on"].value.shared, keys["emits"].value.shared, keys["run"].value.shared) == (True, True, False)


def test_a_key_without_a_value_is_empty() -> None:
    assert agent_spans(TEXT)["empty"].keys["on"].value.empty


def test_a_document_without_agents_has_none() -> None:
    assert agent_spans("mesh: {name: x}\n") == agent_spans("agents: [a]\n") == agent_spans("") == {}
