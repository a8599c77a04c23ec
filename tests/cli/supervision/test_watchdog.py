"""Whose code blocks the event loop."""

import traceback
from pathlib import Path

import pytest

import mesh
from mesh.cli.supervision.watchdog import blocks_by_agent
from mesh.services.worker.invocation import Function

ROOT = str(Path(mesh.__file__).parent)
LOOP, LANES = traceback.__file__.replace("traceback.py", "asyncio/events.py"), f"{ROOT}/runtime/execution/key_lanes.py"
CALLER, SETTLE, AGENT = Function.answer.__code__.co_filename, f"{ROOT}/core/task/result.py", "/srv/desk/agents.py"
LIBRARY = str(Path(pytest.__file__).parent / "x.py")


def frames(*places: tuple[str, str]) -> list[traceback.FrameSummary]:
    return [traceback.FrameSummary(file, 1, name) for file, name in (("/bin/mesh", "<module>"), *places)]


def test_what_began_the_process_is_not_to_blame() -> None:
    stack = frames(("/srv/start.py", "main"), (LOOP, "_run_once"), (SETTLE, "succeeded"))
    assert not blocks_by_agent(stack)


@pytest.mark.parametrize(
    ("places", "blamed"),
    [
        (((LOOP, "run"), (LANES, "_run"), (CALLER, "answer"), (AGENT, "work"), (LIBRARY, "get")), True),
        (((LOOP, "run"), (CALLER, "answer"), (LIBRARY, "agent_of_a_library")), True),
        (((LOOP, "run"), (CALLER, "answer"), (f"{ROOT}/examples/agents/a.py", "work")), True),
        (((LOOP, "run"), (AGENT, "in_a_task_of_its_own")), True),
        (((LOOP, "run"), (CALLER, "answer"), (SETTLE, "arguments")), False),
        (((LOOP, "run"), (LANES, "_run"), (SETTLE, "succeeded")), False),
        (((LOOP, "run"), (LIBRARY, "fetch")), False),
    ],
)
def test_an_agent_is_blamed_for_its_own_code_only(places: tuple[tuple[str, str], ...], blamed: bool) -> None:
    assert blocks_by_agent(frames(*places)) is blamed
