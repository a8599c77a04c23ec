"""Laws of every mesh and every order of events, on seeded worlds, and independence of hash seeds."""

import os
import subprocess
import sys
from hashlib import blake2b

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.run.effects import Finish, PublishEvent, PublishTask
from mesh.core.run.state import RUN_STATES, TASK_STATES
from mesh.core.state.partition_state import Partition
from tests.core.world import World

SEEDS = st.integers(0, 2**32 - 1)
WORLDS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KINDS = {
    "dispatched": {"requested", "succeeded", "failed", "due", "redriven"},
    "run": {"requested", "succeeded", "failed", "due", "cancelled"},
}
"""Kinds of events that the tables call `dispatched` and `run ended`."""


@WORLDS
@given(SEEDS)
def test_every_run_ends_exactly_once_and_within_its_limits(seed: int) -> None:
    world = World(seed)
    world.live()
    opened = {record.key for record in world.inbox if dict(record.headers)["ce_meshkind"] == b"requested"}
    assert {run_id for run_id, _ in world.endings} == {key.decode() for key in opened if key}
    assert set(world.endings.values()) == {1}


@WORLDS
@given(SEEDS)
def test_every_attempt_of_every_task_is_published_once(seed: int) -> None:
    world = World(seed)
    world.live()
    assert set(world.attempts.values()) <= {1}
    for id, attempt in world.attempts:
        assert attempt == 1 or (id, attempt - 1) in world.attempts


@WORLDS
@given(SEEDS)
def test_folding_again_makes_the_same_state_and_effects(seed: int) -> None:
    world = World(seed)
    world.live()
    again = Partition(world.topology, number=0, partitions=1)
    for record, effects in zip(world.inbox, world.effects, strict=True):
        assert again.step(record) == effects
    assert (again.runs, again.ended, again.offset) == (world.state.runs, world.state.ended, world.state.offset)


@WORLDS
@given(SEEDS)
def test_a_whole_inbox_folded_twice_over_changes_nothing_more(seed: int) -> None:
    world = World(seed)
    world.live()
    for record in world.inbox:
        effects = world.state.step(record)
        assert not any(isinstance(effect, PublishTask | PublishEvent | Finish) for effect in effects)
    assert world.state.runs == {}


def test_the_tables_say_every_transition_that_happens() -> None:
    """And most of what they say happens in these worlds; tests/core/run/test_state.py walks the rest."""
    seen: set[tuple[str, str, str, str]] = set()
    for seed in range(60):
        world = World(seed)
        world.live()
        seen |= world.transitions
    runs = {("run", state, said.replace(",", " ").split()[0], after) for state, said, after in RUN_STATES}
    tasks = {
        ("task", state, kind, after)
        for state, said, after in TASK_STATES
        for kind in KINDS.get(said.replace(",", " ").split()[0], {said.replace(",", " ").split()[0]})
    }
    assert {row for row in seen if row[0] == "task"} <= tasks
    assert {row for row in seen if row[0] == "run"} <= runs
    assert len(seen & (runs | tasks)) > 15


def digest(seeds: int) -> str:
    """A hash of all that followed in some worlds."""
    total = blake2b()
    for seed in range(seeds):
        world = World(seed)
        world.live()
        total.update(repr(world.effects).encode())
    return total.hexdigest()


@pytest.mark.parametrize("hash_seed", ["0", "1", "4711"])
def test_the_same_inputs_make_the_same_effects_in_every_process(hash_seed: str) -> None:
    program = "from tests.core.run.test_decide_laws import digest; print(digest(5))"
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    found = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == digest(5)
