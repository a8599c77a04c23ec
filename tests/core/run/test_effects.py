"""The effects: a closed list, documented, compared by value."""

from dataclasses import is_dataclass
from typing import get_args

import pytest

from mesh.core.run import effects
from mesh.core.run.effects import Adopt, BreakerTransition, Effect, Note, Schedule
from tests.builders import topology
from tests.forms_of_core import pure_only
from tests.playbook import Playbook, due, failed, requested, succeeded


@pure_only
@pytest.mark.parametrize("kind", get_args(Effect), ids=lambda kind: kind.__name__)
def test_every_effect_is_a_documented_value(kind: type) -> None:
    assert is_dataclass(kind)
    assert kind.__doc__
    assert f"\n{kind.__name__} " in f"\n{effects.__doc__}", "the module's docstring lists every effect"
    assert not hasattr(kind, "__dict__") or "__slots__" in vars(kind)


def test_effects_are_compared_by_value() -> None:
    assert Schedule("r", "t", 5) == Schedule("r", "t", 5) != Schedule("r", "t", 6)
    assert Note("late_result", "why") == Note("late_result", "why")


def test_decide_makes_every_effect() -> None:
    mesh = topology(a="ask -> x", b="x -> y", leaves=["x"])
    made: set[type] = set()
    for moves in (
        [requested(), requested(), failed("a"), due("a"), succeeded("a", "x"), failed("b", retryable=False)],
        [requested("nonsense")],
    ):
        play = Playbook(mesh)
        for move in moves:
            made |= {type(wanted) for wanted in play.let(move).effects}
    assert made == set(get_args(Effect)) - {BreakerTransition, Adopt}, "the fold turns and adopts"
