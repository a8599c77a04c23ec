"""Logs of a running service: sentences at a terminal, JSON Lines if stderr is redirected."""

import json
import logging
import signal
import time

import pytest
import structlog

from mesh.adapters.diagnostics import diagnostics
from mesh.cli.framework.logs import TASK_LOGGER, _Formatter, configure, hide_failed_attempts
from mesh.cli.framework.output import Output
from tests.cli.conftest import Cli, Terminal, plain


def told(capsys: pytest.CaptureFixture[str], *, verbosity: int = 0, service: bool = False) -> list[dict[str, object]]:
    """Return the log lines of a process whose stderr is redirected."""
    configure(Output(verbosity=verbosity), service=service)
    log = diagnostics("orchestrator")
    log.info("partition is live", partition=3)
    log.warning("a claim was \x1b[31mrefused", run="r-1")
    logging.getLogger("aiokafka.consumer").info("Updating subscribed topics")
    logging.getLogger("aiokafka.conn").error("Unable to connect")
    logging.getLogger("library").error("no")
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_service_logs_json_lines_with_time_level_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, service=True)
    assert [line["event"] for line in lines] == ["partition is live", "a claim was \x1b[31mrefused", "no"]
    assert list(lines[0])[:4] == ["timestamp", "level", "logger", "event"]
    assert (lines[0]["level"], lines[0]["logger"], lines[0]["partition"]) == ("info", "mesh.orchestrator", 3)
    assert lines[1]["run"] == "r-1"


def test_the_caller_chooses_the_level_of_logs(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line["level"] for line in told(capsys)] == ["warning", "error"]
    assert [line["level"] for line in told(capsys, verbosity=-1, service=True)] == ["error"]
    library = ["Updating subscribed topics", "Unable to connect", "no"]
    assert [line["event"] for line in told(capsys, verbosity=1)][2:] == library[1:]
    assert [line["event"] for line in told(capsys, verbosity=2)][2:] == library


def test_a_command_that_hides_failed_attempts_hides_them_from_no_later_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def shown(verbosity: int) -> int:
        configure(Output(verbosity=verbosity))
        hide_failed_attempts(Output(verbosity=verbosity))
        logging.getLogger(TASK_LOGGER).warning("an attempt failed")
        return len(capsys.readouterr().err.splitlines())

    assert [shown(0), shown(1)] == [0, 1]


def test_an_exception_goes_with_its_stack(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Output())
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("mesh.x").exception("it broke")
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert "ValueError: boom" in line["exception"]


def test_at_a_terminal_a_service_logs_sentences(project: Cli) -> None:
    with Terminal(project, "up", "-v") as terminal:
        terminal.until("ready")
        terminal.process.terminate()
        done = terminal.end()
    lines = plain(done.out).splitlines()
    assert lines[0] == "mesh desk  orchestrator, intake, worker"
    assert any(line.startswith("CLOCK info orchestrator: partition is live  partition=0") for line in lines)
    assert "ready in TIME   Ctrl-C drains and stops" in lines
    assert lines[-1] == "stopped"
    assert done.code == 143


def test_what_libraries_and_stacks_say_is_masked_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Output(), service=True)
    try:
        raise ValueError("cannot log in with password=hunter2")
    except ValueError:
        logging.getLogger("library").exception("no answer from amqp://u:hunter2@h")
    said = capsys.readouterr().err
    assert "hunter2" not in said
    assert json.loads(said)["event"] == "no answer from amqp://u:***@h"


@pytest.mark.parametrize("people", [True, False])
def test_a_line_of_any_length_is_cut_before_it_is_searched_for_secrets(
    capsys: pytest.CaptureFixture[str], people: bool
) -> None:
    """6 MB blocked the loop for 29 seconds, so that the worker lost its lease and the task was done twice."""
    configure(Output(), service=True)
    (handler,) = logging.getLogger().handlers
    handler.setFormatter(_Formatter(people))
    logging.getLogger("desk").warning("first")  # imports what renders
    start = time.process_time()
    logging.getLogger("desk").warning("body: %s password=hunter2", "ab=1, token_" * 500_000)
    diagnostics("x").warning("it broke", rows=["password=hunter2, " * 100] * 10_000)
    try:
        raise ValueError("password=hunter2 " * 400_000)
    except ValueError:
        logging.getLogger("desk").exception("it broke too")
    assert time.process_time() - start < 3
    said = capsys.readouterr().err
    assert "hunter2" not in said
    assert ("characters)" if people else "[cut: ") in said
    assert len(said) < 300_000


TOPICS = """
mesh: {name: desk, inbox: {partitions: 2}, limits: {deadline: 60s}}
topics: {lines: {ingress: lines.wanted, partitions: 2}}
agents:
  logger: {run: "lines:log_both", on: lines.wanted, timeout: 5s, retry: {attempts: 2, first: 10ms}, fallback: [second]}
  second: {run: "lines:log_both", timeout: 5s, retry: {attempts: 1}}
"""
AGENTS = """
import logging

import structlog

from mesh import Payload, agent


class LinesWanted(Payload, type="lines.wanted"):
    fail: bool = False


@agent
def log_both(wanted: LinesWanted) -> None:
    logging.getLogger("desk").warning("by logging")
    structlog.get_logger().warning("by structlog")
    if wanted.fail:
        raise KeyError("no such shelf")
"""


@pytest.fixture
def lines(cli: Cli) -> Cli:
    """A mesh whose agents log lines, and fail if they are asked to."""
    (cli.folder / "topics.yaml").write_text(TOPICS)
    (cli.folder / "lines.py").write_text(AGENTS)
    return cli


def test_failed_attempts_retries_fallbacks_and_dead_letters_are_one_line_each(lines: Cli) -> None:
    with lines.up() as running:
        run = lines("publish", "lines.wanted", '{"fail": true}', "--wait", "--json").rows[0]["run"]
        running.signal(signal.SIGTERM)
        done = running.end()
    told = [json.loads(line) for line in done.err.splitlines()]
    told = [line for line in told if line["logger"] == "mesh.tasks"]
    assert [line["event"] for line in sorted(told, key=lambda line: str(line["event"]))] == [
        "a dead letter was written",
        "a fallback was asked",
        *["an attempt failed"] * 3,
        "an attempt is repeated",
    ]
    assert {line["run"] for line in told} == {run}
    first = next(line for line in told if line["event"] == "an attempt failed")
    number = AGENTS.splitlines().index('        raise KeyError("no such shelf")') + 1
    assert (first["agent"], first["attempt"], first["code"]) == ("logger", 1, "exception")
    assert first["where"] == f"{lines.folder / 'lines.py'}:{number}"
    assert first["error"] == "KeyError: 'no such shelf'"
    assert first["task"]


MISFITS = """
import asyncio

from mesh import Payload


class Ask(Payload, type="ask"):
    n: int


class Answer(Payload, type="answer"):
    n: int


async def work(ask: Ask) -> Answer:
    if ask.n:
        return Answer.model_construct(n="x")
    async with asyncio.TaskGroup() as group:
        group.create_task(fail())


async def fail():
    raise KeyError("no such shelf")
"""


def test_mismatches_and_groups_are_reported_with_the_agents_own_line(cli: Cli) -> None:
    (cli.folder / "topics.yaml").write_text(
        "mesh: {name: m}\ntopics: {asks: {ingress: ask}, answers: {egress: answer}}\n"
        "agents:\n  one: {run: 'misfits:work', on: ask, emits: answer, retry: {attempts: 1}}\n"
    )
    (cli.folder / "misfits.py").write_text(MISFITS)
    with cli.up() as running:
        runs = [cli("publish", "ask", body, "--wait", "--json").rows[0]["run"] for body in ('{"n": 1}', '{"n": 0}')]
        schema = cli("publish", "ask", '{"n": "x"}', "--wait", "--json").rows[0]["run"]
        running.signal(signal.SIGTERM)
        done = running.end()
    told = {
        line["run"]: line for line in map(json.loads, done.err.splitlines()) if line["event"] == "an attempt failed"
    }
    rows, file = MISFITS.splitlines(), cli.folder / "misfits.py"
    function = f"{file}:{rows.index('async def work(ask: Ask) -> Answer:') + 1}"
    assert [told[run]["code"] for run in (*runs, schema)] == ["bad_result", "exception", "schema"]
    assert (told[runs[0]]["where"], told[schema]["where"]) == (function, function)
    assert told[runs[1]]["where"] == f"{file}:{len(rows)}"
    assert told[runs[1]]["error"] == "KeyError: 'no such shelf'"
    assert "KeyError: 'no such shelf'" in cli("run", "show", str(runs[1])).out
    assert "KeyError: 'no such shelf'" in [row["message"] for row in cli("dead", "list", "--json").rows]


EMITTER = """
from mesh import Emit, Payload


class Ask(Payload, type="ask"): ...


def work(ask: Ask) -> Emit:
    return Emit("answr", {})
"""


def test_an_undeclared_event_is_reported_at_its_emitter(cli: Cli) -> None:
    (cli.folder / "topics.yaml").write_text(
        "mesh: {name: m}\ntopics: {asks: {ingress: ask}, answers: {egress: answer}}\n"
        "agents:\n  one: {run: 'emits:work', on: ask, emits: answer}\n"
    )
    (cli.folder / "emits.py").write_text(EMITTER)
    expected = (
        "topics.yaml:4: agent 'one' emitted 'answr', which it does not declare; expected 'answer' (its `emits`), got "
        f"'answr' from emits:work ({cli.folder}/emits.py:8). Did you mean 'answer'? Otherwise add 'answr' to `emits` "
        "of one, or change what emits:work returns"
    )
    with cli.up() as running:
        run = cli("publish", "ask", "{}", "--wait", "--json").rows[0]["run"]
        running.signal(signal.SIGTERM)
        done = running.end()
    (told,) = [line for line in map(json.loads, done.err.splitlines()) if line["event"] == "an attempt failed"]
    assert (told["code"], told["agent"], told["error"]) == ("undeclared_type", "one", expected)
    assert f"failed one after 1 attempt: undeclared_type: {expected}" in cli("run", "show", run).out
    assert cli("dead", "list", "--json").rows[0]["message"] == expected


def test_lines_that_a_function_logs_bear_run_task_and_agent(lines: Cli) -> None:
    with lines.up() as running:
        shown = lines("publish", "lines.wanted", "{}", "--wait", "--json").rows[0]
        running.signal(signal.SIGTERM)
        done = running.end()
    (task,) = lines("run", "show", str(shown["run"]), "--json").rows[0]["tasks"]
    (line,) = [found for found in map(json.loads, done.err.splitlines()) if found["logger"] == "desk"]
    assert (line["event"], line["level"]) == ("by logging", "warning")
    assert (line["run"], line["task"], line["agent"]) == (shown["run"], task["task"], "logger")
    (own,) = [found for found in plain(done.out).splitlines() if "by structlog" in found]
    assert "agent=logger" in own
    assert "run=RUN" in own
    assert "task=" in own


@pytest.mark.parametrize("people", [True, False])
def test_lines_that_a_structlog_of_the_agents_hands_over_are_shown(
    capsys: pytest.CaptureFixture[str], people: bool
) -> None:
    configure(Output())
    (handler,) = logging.getLogger().handlers
    handler.setFormatter(_Formatter(people))
    wrap = structlog.stdlib.ProcessorFormatter.wrap_for_formatter
    factory = structlog.stdlib.LoggerFactory()
    structlog.wrap_logger(factory("desk"), processors=[wrap], wrapper_class=structlog.stdlib.BoundLogger).error(
        "it broke"
    )
    said = capsys.readouterr().err
    assert ("error desk: it broke" in said) if people else (json.loads(said)["event"] == "it broke")
