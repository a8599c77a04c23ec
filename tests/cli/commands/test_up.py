"""`mesh up`: services in one process and in several, and how they stop."""

import asyncio
import json
import os
import resource
import signal
import socket
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from mesh.cli.framework.logs import Reporter, configure
from mesh.cli.framework.session import CommonOptions, Session
from mesh.cli.framework.signals import Stop
from mesh.cli.supervision.host import Host, Plan
from tests.cli.conftest import Cli, until
from tests.collector import collector


def state_of(cli: Cli, run: str) -> str:
    return str(cli("run", "show", run, "--json").rows[0]["state"])


def napping(cli: Cli, seconds: float) -> str:
    """The id of a run whose agent has begun to sleep."""
    run = str(cli("publish", "nap.taken", f'{{"seconds": {seconds}}}', "--json").rows[0]["run"])
    until((cli.folder / f"napping-{run}").exists)
    return run


def test_it_says_what_runs_and_when_it_is_ready(project: Cli) -> None:
    with project.up() as running:
        assert running.ready["services"] == ["orchestrator", "intake", "worker"]
        assert running.ready["pids"] == [running.process.pid]
        running.signal(signal.SIGINT)
        done = running.end()
    told = [json.loads(line) for line in done.err.splitlines()]
    events = [line["event"] for line in told]
    assert events[0] == "starting"
    assert (told[0]["mesh"], told[0]["log"]) == ("desk", "sqlite:.mesh/mesh.db")
    assert "ready" in events
    assert events[-1] == "stopped"
    assert all(line["timestamp"] and line["level"] for line in told)


def test_a_monitor_runs_where_alerts_are_declared(project: Cli) -> None:
    topics = project.folder / "topics.yaml"
    topics.write_text(topics.read_text() + "\nalerts: {failing: error_rate > 20% for 1m}\n")
    with project.up() as running:
        assert running.ready["services"] == ["orchestrator", "intake", "worker", "monitor"]


def test_ctrl_c_lets_running_tasks_end(project: Cli) -> None:
    with project.up() as running:
        run = napping(project, 1)
        running.signal(signal.SIGINT)
        done = running.end()
    assert done.code == 130
    assert "draining" in done.err
    with project.up() as again:
        until(lambda: state_of(project, run) == "completed")
        again.signal(signal.SIGTERM)
        assert again.end().code == 143
    (shown,) = project("run", "show", run, "--json").rows
    assert [len(task["attempts"]) for task in shown["tasks"]] == [1]


def test_a_second_ctrl_c_stops_at_once(project: Cli) -> None:
    with project.up() as running:
        run = napping(project, 55)
        running.signal(signal.SIGINT)
        running.err_until("draining")
        began = time.monotonic()
        running.signal(signal.SIGINT)
        done = running.end()
    assert done.code == 130
    assert time.monotonic() - began < 10  # of the 55 s that the task would take
    assert state_of(project, run) == "open"


def test_what_was_left_by_a_kill_is_done_by_the_next(project: Cli) -> None:
    with project.up() as running:
        running.signal(signal.SIGKILL)
        assert running.end().code == -9
    run = project("publish", "hello", '{"name": "ida"}', "--json").rows[0]["run"]
    with project.up():
        assert project("publish", "hello", '{"name": "ida"}', "--wait", "--json").rows[0]["run"] == run


def test_spans_of_a_worker_go_where_the_standard_variable_points(project: Cli) -> None:
    with collector() as (address, received), project.up(env={"OTEL_EXPORTER_OTLP_ENDPOINT": address}) as running:
        project("publish", "hello", '{"name": "kim"}', "--wait")
        running.signal(signal.SIGTERM)
        assert running.end().code == 143
        assert "/v1/traces" in [path for path, _ in received]


def test_an_unreachable_collector_does_not_delay_the_stop(project: Cli) -> None:
    with project.up(env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) as running:
        project("publish", "hello", '{"name": "liv"}', "--wait")
        running.signal(signal.SIGTERM)
        began = time.monotonic()
        assert running.end().code == 143
        assert time.monotonic() - began < 5  # the SDK alone takes six


def test_services_may_run_in_processes_of_their_own(project: Cli) -> None:
    with project.up("orchestrator", "intake") as first, project.up("worker", "--agent", "greeter", "--agent", "keeper"):
        assert first.ready["services"] == ["orchestrator", "intake"]
        done = project("publish", "hello", '{"name": "jon"}', "--wait", "--json")
        assert done.rows[0]["ending"] == "completed"
        late = project("publish", "word.said", '{"word": "x"}', "--wait", "--timeout", "300ms")
        assert late.code == 6  # no worker runs that agent


def get(address: str, path: str) -> tuple[int, str]:
    """Status and body of what a process answers."""
    try:
        with urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_http_shows_health_and_metrics(project: Cli) -> None:
    with project.up("--http", "0") as running:
        address = running.ready["http"]
        assert get(address, "/healthz") == (200, '{"alive":true}\n')
        status, body = get(address, "/readyz")
        ready = json.loads(body)
        assert (status, ready["ready"], ready["missing"]) == (200, True, [])
        assert ready["partitions"]["mesh.orchestrator"] == 2
        project("publish", "hello", '{"name": "pia"}', "--wait")
        status, text = get(address, "/metrics")
        assert status == 200
        assert 'mesh_runs_ended_total{ending="completed"} 1.0' in text.splitlines()
        counted = 'mesh_events_processed_total{agent="greeter",outcome="succeeded",topic="mesh.tasks.greeter"} 1.0'
        assert counted in text.splitlines()
        running.signal(signal.SIGTERM)
        assert running.end().code == 143


def test_the_address_may_be_a_setting_and_each_worker_process_has_its_own(project: Cli) -> None:
    with project.up("--workers", "2", env={"MESH_HTTP": "0"}) as running:
        ready = json.loads(get(running.ready["http"], "/readyz")[1])
        assert set(ready["partitions"]) == {"mesh.orchestrator", "mesh.intake"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with project.up("--workers", "2", "--http", f"{port}"):
        for number in (1, 2):
            assert "mesh.greeter" in json.loads(get(f"127.0.0.1:{port + number}", "/readyz")[1])["partitions"]


def test_a_process_without_its_log_is_alive_and_not_ready(project: Cli) -> None:
    with project.background(
        "up", "--http", "0", "--log", "kafka://127.0.0.1:1", "--board", "redis://127.0.0.1:1"
    ) as running:
        told = json.loads(running.err_until("\n").splitlines()[0])
        running.err_until("tried again")
        assert get(told["http"], "/healthz")[0] == 200
        status, body = get(told["http"], "/readyz")
        assert status == 503
        (missing,) = json.loads(body)["missing"]
        assert missing["what"] == "services"
        assert "127.0.0.1:1" in missing["reason"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--http", "metrics"), 2, "expected PORT or HOST:PORT"),
        (("--http", "203.0.113.1:9464"), 2, "the port cannot be opened"),
        (("workr",), 2, "Did you mean 'worker'?"),
        (("worker", "--agent", "greter"), 3, "Did you mean 'greeter'?"),
        (("--workers", "0"), 2, "--workers"),
        (("--topology", "nope.yaml"), 2, "nope.yaml: there is no such file"),
        (("--log", "redis://x"), 2, "no log is known by 'redis'"),
        (("--log", "sqlite:/dev/null/mesh.db"), 4, "sqlite:/dev/null/mesh.db"),
    ],
)
def test_what_cannot_start_says_so(project: Cli, arguments: tuple[str, ...], code: int, told: str) -> None:
    done = project("up", *arguments)
    assert done.code == code
    assert told in done.err


def test_a_worker_process_that_dies_is_started_again(project: Cli) -> None:
    with project.up("--workers", "2") as running:
        parent, *children = running.ready["pids"]
        assert parent == running.process.pid
        assert len(set(children)) == 2
        os.kill(children[0], signal.SIGKILL)
        err = running.err_until("restarting it in 1 s")
        assert f"worker 1 (pid {children[0]}) was killed by signal 9" in err
        assert project("publish", "hello", '{"name": "kim"}', "--wait", "--json").rows[0]["ending"] == "completed"
        running.signal(signal.SIGINT)
        assert running.end().code == 130
    until(lambda: not any(_lives(pid) for pid in children))


STUBBORN = """
@agent
async def hear(said: WordSaid) -> WordHeard:
    while said.word == "hang":
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue
    return WordHeard(word=said.word)
"""
SPENT = {"MESH_STRAYS_MAX": "0", "MESH_CANCEL_GRACE_MS": "50"}


def stubborn(project: Cli) -> None:
    """Make one agent ignore its cancellation, and give it little time."""
    desk, topology = project.folder / "desk.py", project.folder / "topics.yaml"
    text = desk.read_text()
    desk.write_text(text + STUBBORN)
    echo = "emits: word.heard, timeout: 5s"
    assert echo in topology.read_text()
    topology.write_text(topology.read_text().replace(echo, f"{echo[:-2]}100ms, retry: {{attempts: 1}}"))


def test_a_process_with_too_many_calls_that_do_not_end_ends_with_a_code_of_its_own(project: Cli) -> None:
    stubborn(project)
    with project.up(env=SPENT) as running:
        run = project("publish", "word.said", '{"word": "hang"}', "--json").rows[0]["run"]
        done = running.end()
    assert done.code == 7
    assert "1 abandoned calls of agents still run" in done.err
    with project.up():
        assert project("publish", "word.said", '{"word": "fine"}', "--wait", "--json").rows[0]["ending"] == "completed"
    assert state_of(project, run) == "failed"


def test_a_worker_process_with_too_many_calls_that_do_not_end_is_started_again_at_once(project: Cli) -> None:
    stubborn(project)
    with project.up("--workers", "2", env=SPENT) as running:
        done = project("publish", "word.said", '{"word": "hang"}', "--wait", "--json")
        assert done.rows[0]["ending"] == "failed"
        running.err_until("ended since it had too many abandoned calls; restarting it")
        assert project("publish", "word.said", '{"word": "fine"}', "--wait", "--json").rows[0]["ending"] == "completed"
        running.signal(signal.SIGINT)
        assert running.end().code == 130


def test_a_process_whose_agent_blocks_everything_ends_and_says_where(project: Cli) -> None:
    desk = project.folder / "desk.py"
    blocking = (
        "\n\n@agent\nasync def hear(said: WordSaid) -> WordHeard:\n    import time\n\n    time.sleep(50)  # like so\n"
    )
    desk.write_text(desk.read_text() + blocking)
    with project.up(env={"MESH_BLOCKED_MS_MAX": "1500"}) as running:
        project("publish", "word.said", '{"word": "x"}')
        told = running.err_until("an agent blocks the event loop")
        assert "desk.py:" in told
        done = running.end()
    assert done.code == 7
    assert "blocks the event loop" in done.err
    assert "time.sleep(50)  # like so" in done.err


def test_a_process_whose_agent_cancels_everything_says_so_without_a_trace(project: Cli) -> None:
    desk = project.folder / "desk.py"
    cancelling = "\n\n@agent\nasync def hear(said: WordSaid) -> WordHeard:\n    import asyncio\n\n"
    cancelling += "    [task.cancel() for task in asyncio.all_tasks()]\n    await asyncio.sleep(9)\n"
    desk.write_text(desk.read_text() + cancelling)
    with project.up() as running:
        project("publish", "word.said", '{"word": "x"}')
        done = running.end()
    assert done.code == 1
    assert "cancelled from within" in done.err
    assert "Traceback" not in done.err


def test_an_agent_that_ignores_the_end_does_not_keep_the_process(project: Cli) -> None:
    stubborn(project)
    with project.up(env={"MESH_CANCEL_GRACE_MS": "50"}) as running:
        done = project("publish", "word.said", '{"word": "hang"}', "--wait", "--json")
        assert done.rows[0]["ending"] == "failed"
        running.signal(signal.SIGTERM)
        assert running.end().code == 143


def test_agents_of_worker_processes_may_print(project: Cli) -> None:
    file = project.folder / "desk.py"
    text = file.read_text().replace(
        "    return WordHeard", "    print('x' * 300_000 + said.word)\n    return WordHeard"
    )
    file.write_text(text)
    with project.up("--workers", "2") as running:
        for word in ("first", "second"):
            assert project("publish", "word.said", f'{{"word": "{word}"}}').code == 0
            running.out_until(f"xxx{word}")


def test_worker_processes_end_when_their_parent_is_killed(project: Cli) -> None:
    with project.up("--workers", "2") as running:
        children = running.ready["pids"][1:]
        running.signal(signal.SIGKILL)
        running.process.wait(10)
        until(lambda: not any(_lives(pid) for pid in children))


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_second_ctrl_c_ends_worker_processes_too(project: Cli) -> None:
    with project.up("--workers", "2") as running:
        children = running.ready["pids"][1:]
        napping(project, 55)
        running.signal(signal.SIGINT)
        running.err_until("draining")
        running.signal(signal.SIGINT)
        assert running.end().code == 130
        until(lambda: not any(_lives(pid) for pid in children))


def test_a_broken_agent_module_is_reported_with_its_line(project: Cli) -> None:
    (project.folder / "desk.py").write_text("def greet(:\n")
    done = project("up")
    assert done.code == 2
    assert "agent 'greeter' cannot be imported from 'desk:greet'" in done.err
    assert "topics.yaml:" in done.err
    assert "Traceback" not in done.err


def test_a_board_that_is_gone_stops_only_what_needs_it(project: Cli) -> None:
    with project.up("--board", "redis://127.0.0.1:1") as running:
        assert project("publish", "word.said", '{"word": "a"}', "--wait", "--json").rows[0]["ending"] == "completed"
        needs_it = project("publish", "hello", '{"name": "a"}', "--wait", "--json").rows[0]
        assert (needs_it["ending"], needs_it["failures"][0]["code"]) == ("failed", "board_unavailable")
        assert "Agents run without it" in running.err_until("Agents run without it")


def test_a_log_that_is_gone_is_waited_for(project: Cli) -> None:
    with project.background("up", "--log", "kafka://127.0.0.1:1", "--board", "redis://127.0.0.1:1") as running:
        err = running.err_until("tried again in 2 s")
        assert "tried again in 1 s" in err
        running.signal(signal.SIGINT)
        assert running.end().code == 130


async def test_a_lack_of_open_files_is_waited_for_as_an_outage_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It ended the process with `This is a bug`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "topics.yaml").write_text("mesh: {name: m}\ntopics: {a: {ingress: a}}\nagents: {}\n")
    session = Session(CommonOptions(log="kafka://127.0.0.1:1"))
    tries: list[OSError | None] = []

    async def open_a_file(well: asyncio.Event) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free if not tries else soft, hard))
        try:
            os.close(os.dup(0))
            tries.append(None)
        except OSError as error:
            tries.append(error)
            raise
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with Stop(lambda _: None) as stop:
        host = Host(session, Reporter(session.output), stop, Plan(("worker",), {}))
        configure(session.output, service=True)
        assert await host._retry_while_unreachable(open_a_file)
    assert [error is None for error in tries] == [False, True]
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert line["event"].startswith("this process may open no more files; expected a limit of at least 128")
    assert line["event"].endswith("tried again in 1 s")


def test_an_agent_of_a_faust_app_is_not_started_here(project: Cli) -> None:
    file = project.folder / "topics.yaml"
    file.write_text(file.read_text().replace("greeter: {run", "greeter: {faust: hello, run"))
    done = project("up", "worker", "--agent", "greeter")
    assert done.code == 2
    assert "agent 'greeter' is run by the Faust app 'hello'" in done.err
