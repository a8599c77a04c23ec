"""Recorded decisions are repeated exactly, or the rules have another number."""

from pathlib import Path

import pytest

from mesh.core.state.checkpoint import CheckpointLoader
from mesh.core.state.partition_state import RULES, Partition
from tests.core.recorded import OLDER, Recorded, line, load

REMEDY = "raise fold.RULES, then record anew: python -m tests.core.recorded"


def decided(state: Partition, world: Recorded, begin: int) -> list[list[str]]:
    return [[line(effect) for effect in state.step(stored)] for stored in world.inbox[begin:]]


def restored(world: Recorded) -> Partition:
    loading = CheckpointLoader()
    for chunk in world.checkpoint:
        loading.feed(chunk)
    return loading.partition(world.topology)


def test_the_recording_is_of_these_rules() -> None:
    assert load()[0] == RULES, "record anew: python -m tests.core.recorded"


def test_the_same_inbox_leads_to_the_same_effects_as_when_it_was_recorded() -> None:
    for world in load()[1]:
        state = Partition(world.topology, number=0, partitions=1)
        assert decided(state, world, 0) == world.effects, REMEDY


def test_a_checkpoint_written_by_an_earlier_version_of_the_code_folds_on_as_it_did_then() -> None:
    for world in load()[1]:
        state = restored(world)
        assert decided(state, world, world.middle) == world.effects[world.middle :], REMEDY


@pytest.mark.parametrize("file", OLDER, ids=lambda file: file.stem)
def test_a_checkpoint_of_earlier_rules_loads_and_folds_on(file: Path) -> None:
    rules, worlds = load(file)
    assert rules < RULES
    for world in worlds:
        state = restored(world)
        assert state.offset == world.middle
        assert any(decided(state, world, world.middle))


def test_the_recording_holds_a_bit_of_everything() -> None:
    words = {text.split()[0] for world in load()[1] for lines in world.effects for text in lines}
    assert words >= {"task", "leaves", "timer", "dead", "ended", "note"}
