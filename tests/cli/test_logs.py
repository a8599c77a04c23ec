"""What a running service tells: sentences at a terminal, JSON Lines where stderr is collected."""

import json
import logging

import pytest

from mesh.cli.logs import configure
from mesh.cli.screen import Screen
from mesh.wire.diagnostics import diagnostics
from tests.cli.conftest import Cli, Terminal, plain


@pytest.fixture
def loggers() -> object:
    """The root logger as it was, afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield root
    root.handlers[:], root.level = before


def told(capsys: pytest.CaptureFixture[str], *, loudness: int = 0, service: bool = False) -> list[dict[str, object]]:
    """What is logged where nobody looks."""
    configure(Screen(loudness=loudness), service=service)
    log = diagnostics("orchestrator")
    log.info("partition is live", partition=3)
    log.warning("a claim was \x1b[31mrefused", run="r-1")
    logging.getLogger("aiokafka.conn").error("Unable to connect")
    logging.getLogger("someone").error("no")
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.usefixtures("loggers")
def test_a_service_logs_json_lines_with_time_level_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, service=True)
    assert [line["event"] for line in lines] == ["partition is live", "a claim was \x1b[31mrefused", "no"]
    assert list(lines[0])[:4] == ["timestamp", "level", "logger", "event"]
    assert (lines[0]["level"], lines[0]["logger"], lines[0]["partition"]) == ("info", "mesh.orchestrator", 3)
    assert lines[1]["run"] == "r-1"


@pytest.mark.usefixtures("loggers")
def test_how_much_is_told_is_for_the_caller_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line["level"] for line in told(capsys)] == ["warning", "error"]
    assert [line["level"] for line in told(capsys, loudness=-1, service=True)] == ["error"]
    assert [line["event"] for line in told(capsys, loudness=1)][-2:] == ["Unable to connect", "no"]


@pytest.mark.usefixtures("loggers")
def test_an_exception_goes_with_its_stack(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Screen())
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("mesh.x").exception("it broke")
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert "ValueError: boom" in line["exception"]


def test_at_a_terminal_a_service_tells_in_sentences(project: Cli) -> None:
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


@pytest.mark.usefixtures("loggers")
def test_what_libraries_and_stacks_say_is_masked_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Screen(), service=True)
    try:
        raise ValueError("cannot log in with password=hunter2")
    except ValueError:
        logging.getLogger("someone").exception("no answer from amqp://u:hunter2@h")
    said = capsys.readouterr().err
    assert "hunter2" not in said
    assert json.loads(said)["event"] == "no answer from amqp://u:***@h"
