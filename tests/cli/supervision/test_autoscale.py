"""`mesh up worker --autoscale`: what it takes, and real worker processes that come and go with the load."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from mesh.cli.framework.logs import Reporter
from mesh.cli.framework.session import CommonOptions, Session
from mesh.cli.framework.signals import Stop
from mesh.cli.supervision.autoscale import Autoscaling, check_partitions, parse_rule
from mesh.core.errors import InvalidInput
from mesh.core.scaling.policy import ScalingRule
from mesh.core.topology.loader import load
from tests.adapters.log_kit import until as happens
from tests.cli.conftest import Background, Cli, Terminal, until

TOPICS = """
mesh: {name: t, prefix: mesh, inbox: {partitions: 4}, limits: {deadline: 120s}}
topics:
  asks: {ingress: ask, id: id, partitions: 4}
  answers: {egress: answer, partitions: 4}
agents:
  napper: {run: "desk:nap", on: ask, emits: answer, timeout: 100s, lanes: 2, retry: {attempts: 1}}
"""
AGENTS = """
import asyncio, os, pathlib
from mesh import Context, Emit

async def nap(ask: dict, context: Context) -> Emit:
    with open("naps", "a") as file:
        file.write(f"{os.getpid()} {ask['id']}\\n")
    while not pathlib.Path("awake").exists():
        await asyncio.sleep(0.01)
    return Emit("answer", {"id": ask["id"]})
"""
QUICKLY = "min=1,max=3,pollingInterval=50ms,cooldownPeriod=300ms"
TASKS = 80


@pytest.fixture
def naps(cli: Cli) -> Cli:
    """A folder with a mesh whose agent sleeps until there is a file `awake`."""
    (cli.folder / "topics.yaml").write_text(TOPICS)
    (cli.folder / "desk.py").write_text(AGENTS)
    return cli


def publish(cli: Cli) -> list[str]:
    """Many tasks at once; the ids of their runs."""
    lines = "\n".join(json.dumps({"id": f"n{number}"}) for number in range(TASKS))
    done = cli("publish", "ask", "-", "--json", input=lines)
    assert done.code == 0
    return [row["run"] for row in done.rows]


def wake(cli: Cli) -> None:
    (cli.folder / "awake").touch()


def begun(cli: Cli) -> dict[str, set[str]]:
    """Process → tasks that it has begun."""
    file = cli.folder / "naps"
    found: dict[str, set[str]] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        process, _, task = line.partition(" ")
        found.setdefault(process, set()).add(task)
    return found


def scalings(running: Background, last: int) -> list[int]:
    """Return the numbers of workers in the reported steps, up to these."""
    text = running.out_until(f'"workers":{last},')
    rows = [json.loads(line) for line in text.splitlines() if '"scaled"' in line]
    assert all(row["why"] and set(row["lag"]) == {"napper"} for row in rows)
    assert [row["from"] for row in rows[1:]] == [row["workers"] for row in rows[:-1]]
    return [row["workers"] for row in rows]


def children(pid: int) -> list[int]:
    """The worker processes of a parent, those that have begun to be one."""
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(word) for word in words if b"worker" in _words(int(word))]


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def test_workers_come_and_go_with_the_load_and_every_task_is_done(naps: Cli) -> None:
    with naps.up("--autoscale", QUICKLY) as running:
        parent, only = running.ready["pids"]
        assert (parent, children(parent)) == (running.process.pid, [only])
        runs = publish(naps)
        assert scalings(running, 3) == [2, 3]
        until(lambda: len(begun(naps)) == 3)  # the last one has got its partitions, too
        assert begun(naps).keys() == set(map(str, children(parent)))
        wake(naps)
        until(lambda: len(naps("run", "list", "--state", "completed", "--limit", "500", "--json").rows) == TASKS)
        assert scalings(running, 1) == [2, 3, 2, 1]
        until(lambda: children(parent) == [only])  # who came last goes first
        running.signal(signal.SIGINT)
        done = running.end()
    assert done.code == 130
    assert len(runs) == TASKS
    assert set().union(*begun(naps).values()) == {f"n{number}" for number in range(TASKS)}
    told = [json.loads(line) for line in done.err.splitlines()]
    assert any(line["event"].startswith("scaled up from 1 to 2 workers: ") for line in told)
    assert any(line["event"].startswith("scaled down from 2 to 1 worker: nothing waits") for line in told)
    assert not [line for line in told if line["level"] == "warning"]


def test_a_terminal_gets_the_reason_and_the_obstacle(naps: Cli) -> None:
    with Terminal(naps, "up", "--autoscale", QUICKLY.replace("max=3", "max=2"), columns=200) as terminal:
        assert "1 in 1 to 2 processes: napper" in terminal.until("ready")
        publish(naps)
        shown = terminal.until("allows no more")
        wake(naps)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end().code == 130
    assert "scaled up from 1 to 2 workers: " in shown
    assert " tasks of napper wait (threshold 2), the oldest for " in shown
    assert "more workers are wanted: " in shown


def test_a_worker_that_dies_is_replaced_and_the_number_stays(naps: Cli) -> None:
    with naps.up("--autoscale", "min=2,max=2") as running:
        parent, *first = running.ready["pids"]
        os.kill(first[0], signal.SIGKILL)
        running.err_until("restarting it in 1 s")
        until(lambda: len(children(parent)) == 2 and first[0] not in children(parent))
        running.signal(signal.SIGINT)
        assert running.end().code == 130


def test_more_than_the_partitions_is_not_tried(naps: Cli) -> None:
    with naps.up("--autoscale", QUICKLY.replace("max=3", "max=9")) as running:
        publish(naps)
        assert scalings(running, 4) == [2, 4]
        wake(naps)
        running.signal(signal.SIGINT)
        assert running.end().code == 130


def test_what_is_given_is_read() -> None:
    assert parse_rule("max=8") == ScalingRule(1, 8)
    assert parse_rule("min=2, max=8") == ScalingRule(2, 8)
    rule = parse_rule("min=1,max=4,lagThreshold=50,ageThreshold=2s,cooldownPeriod=5m,pollingInterval=500ms")
    assert rule == ScalingRule(1, 4, 50, 2_000, 300_000, 500)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a part is empty; expected min=1,max=8"),
        ("max", "max has no value"),
        ("max=", "max has no value"),
        ("min=2", "max is missing"),
        ("min=4,max=2", "max is less than min; .*Write max=4 or more"),
        ("max=4,max=5", "max is given twice"),
        ("max=4,", "a part is empty"),
        ("mx=4", "unknown part 'mx'; .*Did you mean 'max'"),
        ("max=4,lagTreshold=5", "Did you mean 'lagThreshold'"),
        ("max=many", "--autoscale max: invalid value; expected a whole number from 1 to 256"),
        ("min=0,max=4", "--autoscale min: invalid value; expected a whole number from 1 to 256"),
        ("max=257", "from 1 to 256"),
        ("max=4,cooldownPeriod=30", "--autoscale cooldownPeriod: invalid unit; .*write 30s"),
        ("max=4,ageThreshold=0s", "ageThreshold is zero"),
        ("max=4,pollingInterval=1ms", "pollingInterval is too short"),
        ("max=4,pollingInterval=1m", "cooldownPeriod is shorter than pollingInterval"),
    ],
)
def test_what_cannot_be_read_is_reported_with_what_was_expected(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        parse_rule(text)


def test_fewer_partitions_than_workers_are_reported() -> None:
    topology = load(TOPICS)
    check_partitions(ScalingRule(4, 9), topology)
    with pytest.raises(InvalidInput, match=r"have 4 partitions.*from 1 to 4, got 5\. Write min=4"):
        check_partitions(ScalingRule(5, 9), topology)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("worker", "--autoscale", "max=2", "--workers", "1"), "cannot be given together with --workers"),
        (("intake", "--autoscale", "max=2"), "no worker is among the services"),
        (("worker", "--autoscale", "max=0"), "from 1 to 256"),
        (("worker", "--autoscale", "min=5,max=6"), "have 4 partitions"),
    ],
)
def test_what_cannot_start_says_so(naps: Cli, arguments: tuple[str, ...], told: str) -> None:
    done = naps("up", *arguments)
    assert (done.code, told in done.err) == (2, True), done.err
    assert not (naps.folder / ".mesh").exists()


def test_an_unreachable_log_scales_nothing_and_is_waited_for(naps: Cli) -> None:
    arguments = (
        "up",
        "worker",
        "--autoscale",
        "max=2",
        "--log",
        "kafka://127.0.0.1:1",
        "--board",
        "redis://127.0.0.1:1",
    )
    with naps.background(*arguments) as running:
        running.err_until("tried again in 1 s")
        running.signal(signal.SIGINT)
        assert running.end().code == 130


class Crew:
    """Workers that are only counted."""

    number, settled = 2, True

    def scale(self, number: int) -> None:
        raise AssertionError(f"scaled to {number}")


async def test_while_the_backlog_cannot_be_seen_the_workers_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "topics.yaml"
    file.write_text(TOPICS)
    session = Session(CommonOptions(log="kafka://127.0.0.1:1", topology=str(file)))
    scaling = Autoscaling(session, Reporter(session.output), ScalingRule(1, 4), ["napper"], Crew())
    with Stop(print) as stop:
        running = asyncio.create_task(scaling.run(stop))
        sentence = "the backlog cannot be seen, so it stays at 2 workers: kafka://127.0.0.1:1"
        await happens(lambda: sentence in caplog.text)
        stop.event.set()
        await running
