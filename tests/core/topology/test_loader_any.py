"""topics.yaml: whatever stands in the file, it is a mesh or a report of problems."""

import random
import re
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.errors import TopologyInvalid
from mesh.core.topology.loader import load
from tests.core.topology.test_loader import ORDERS, SMALL, TEN

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no mistake of ours."""


def check(text: str) -> None:
    try:
        load(text)
    except TopologyInvalid as error:
        refused = error
    else:
        return
    assert refused.problems
    assert list(refused.problems) == sorted(refused.problems)
    assert all(1 <= p.line <= len(text) + 2 and p.what and p.remedy for p in refused.problems)
    assert len(str(refused).splitlines()) == len(refused.problems)
    str(refused).encode()


@PATIENT
@given(st.text() | st.text("{}[]:,-?&*!|>'\"%@`# \n\tab<~.\\", max_size=80))
def test_any_text_is_a_mesh_or_problems(text: str) -> None:
    check(text)


@PATIENT
@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_a_mesh_with_random_damage_is_a_mesh_or_problems(dice: random.Random, damages: int) -> None:
    text = dice.choice([ORDERS, TEN, SMALL])
    tokens = re.split(r"([A-Za-z_.]+|[0-9]+|\s+)", text)
    for _ in range(damages):
        at = dice.randrange(len(tokens))
        tokens[at] = dice.choice(
            [
                "",
                "{",
                "}",
                "[",
                "]",
                ":",
                "\n",
                "*x",
                "&x ",
                "!y ",
                "'",
                "null",
                "0",
                "é",
                "\t",
                tokens[at - 1],
                tokens[at] * 2,
            ]
        )
    check("".join(tokens))


WORDS = ["run", "on", "all", "emits", "when", "retry", "ingress", "egress", "key", "usd", "mesh", "limits"]
TEXTS = ["a", "1s", "x.y", "", "a: b", "*", "ü\n"]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
SECTIONS = st.dictionaries(st.sampled_from("abc"), VALUES)


@PATIENT
@given(st.dictionaries(st.sampled_from(["mesh", "topics", "agents", "x"]), SECTIONS))
def test_any_structure_is_a_mesh_or_problems(document: dict[str, Any]) -> None:
    def flow(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(flow, value)) + "]"
        return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)

    check(flow(document))
