"""Failed attempts as the worker's log tells them."""

import asyncio
import json
from collections.abc import Callable

import pytest
from pydantic import BaseModel

from mesh.cli.framework.text import seconds
from mesh.core.errors import InvalidInput
from mesh.core.protocol.event import TASK, Event, Fault
from mesh.core.task.result import fault_of
from mesh.services.worker.failure_log import ERROR_CHARS_MAX, FaultLog, location_of

TASK_3 = Event("t:3", "/mesh/m", "ask", TASK, "r-1", b"{}", agent="work", task_id="t", attempt=3)


def raised(error: Exception) -> Fault:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001  # made into what the worker makes of it
        return fault_of(caught)


async def test_a_failure_is_reported_with_ids_place_and_error(caplog: pytest.LogCaptureFixture) -> None:
    FaultLog().failed(TASK_3, raised(ValueError("no shelf, password=hunter2")))
    (record,) = caplog.records
    fields = record.__dict__["fields"]
    assert record.__dict__["sentence"] == "an attempt failed"
    assert {name: fields[name] for name in ("agent", "run", "task", "attempt", "code")} == {
        "agent": "work",
        "run": "r-1",
        "task": "t",
        "attempt": 3,
        "code": "exception",
    }
    assert fields["error"] == "ValueError: no shelf, password=***"
    assert fields["where"].partition(":")[0] == __file__


async def test_an_error_of_the_mesh_has_the_place_of_the_code_that_called_it(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidInput) as caught:
        seconds("--for", "soon")
    FaultLog().failed(TASK_3, fault_of(caught.value))
    fields = caplog.records[0].__dict__["fields"]
    assert fields["where"].partition(":")[0] == __file__
    assert fields["error"].startswith("--for: ")


async def test_what_is_no_failure_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    for code in ("later", "left_alone", "run_ended"):
        FaultLog().failed(TASK_3, Fault(code, "x"))
    assert caplog.records == []


async def test_a_long_message_is_cut_and_a_failure_without_a_stack_has_no_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fault = Fault("timed_out", "x" * 1_000)
    assert location_of(fault) == {}
    FaultLog().failed(TASK_3, fault)
    assert len(caplog.records[0].__dict__["fields"]["error"]) == ERROR_CHARS_MAX


@pytest.mark.parametrize("code", ["schema", "bad_result", "undeclared_type", "bad_batch", "bad_usage"])
async def test_what_the_mesh_finds_beside_a_function_has_the_place_of_the_function(
    caplog: pytest.LogCaptureFixture, code: str
) -> None:
    FaultLog("agents/desk.py:8").failed(TASK_3, raised(InvalidInput("it does not fit", code=code)))
    assert caplog.records[0].__dict__["fields"]["where"] == "agents/desk.py:8"


async def test_a_group_has_the_place_of_what_is_in_it(caplog: pytest.LogCaptureFixture) -> None:
    inner = ValueError("no shelf")

    async def fail() -> None:
        raise inner

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
    FaultLog().failed(TASK_3, fault_of(caught.value))
    fields = caplog.records[0].__dict__["fields"]
    assert fields["where"] == f"{__file__}:{fail.__code__.co_firstlineno + 1}"
    assert fields["error"] == "ValueError: no shelf"


class Book(BaseModel):
    pages: int


def load() -> None:
    json.loads("{")


def build() -> None:
    Book.model_validate({"pages": "many"})


@pytest.mark.parametrize("agent", [load, build])
def test_an_error_in_a_library_has_the_place_of_the_code_that_called_it(agent: Callable[[], None]) -> None:
    with pytest.raises(ValueError, match=r"Expecting|valid integer") as caught:
        agent()
    assert location_of(fault_of(caught.value)) == {"where": f"{__file__}:{agent.__code__.co_firstlineno + 1}"}


def test_an_error_in_libraries_only_has_the_last_place() -> None:
    stack = f'  File "{json.__file__}", line 7, in loads\n  File "<string>", line 8, in f\nValueError: x\n'
    assert location_of(Fault("exception", "x", stack=stack)) == {"where": "<string>:8"}


@pytest.mark.parametrize("chars", [1_000, 10_000, 100_000])
def test_a_long_message_leaves_the_place(chars: int) -> None:
    assert location_of(raised(ValueError("x" * chars)))["where"].startswith(__file__)
