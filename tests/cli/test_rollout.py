"""A change of topics.yaml while runs are open: what becomes of them, and what the commands say about it."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, until

AGENTS = """
from pathlib import Path

from mesh import Context, Payload, agent


class In(Payload, type="a.in"):
    n: int = 0
    m: int = 0


class Extra(Payload, type="a.extra"):
    n: int = 0


class Mid(Payload, type="a.mid"):
    n: int = 0


class Out(Payload, type="a.out"):
    n: int = 0


@agent
async def one(given: In) -> Mid:
    return Mid(n=given.n)


@agent
async def two(given: Mid, ctx: Context) -> Out:
    if given.n == 7 and not Path("go").exists():
        raise ValueError("not yet")
    return Out(n=given.n)


@agent
async def extra(given: Extra) -> Out:
    return Out(n=given.n)


three = two
"""
V1 = """
mesh: {name: upgrade, inbox: {partitions: 1}, limits: {deadline: 90s}}
topics:
  in.t: {ingress: a.in, partitions: 2}
  out.t: {egress: [a.out], partitions: 2}
agents:
  one: {run: "ag:one", on: a.in, emits: [a.mid], timeout: 20s}
  two: {run: "ag:two", on: a.mid, emits: [a.out], timeout: 20s, retry: {attempts: 1000, first: 200ms, factor: 1}}
"""
V2 = V1.replace("  two:", "  three:").replace('"ag:two"', '"ag:three"').replace("90s", "25s")
"""The second agent has another name, and runs have less time."""
V3 = V1.replace("topics:\n", "topics:\n  in.x: {ingress: a.extra, partitions: 1}\n") + (
    '  extra: {run: "ag:extra", on: a.extra, emits: [a.out], timeout: 5s}\n'
)
"""One more type and its agent."""


@pytest.fixture
def mesh(cli: Cli) -> Cli:
    (Path(cli.folder) / "ag.py").write_text(AGENTS)
    write(cli, V1)
    return cli


def write(cli: Cli, text: str, name: str = "topics.yaml") -> None:
    (Path(cli.folder) / name).write_text(text)


def show(mesh: Cli, run: str) -> dict[str, Any]:
    (row,) = mesh("run", "show", run, "--json").rows
    return row


def open_one(mesh: Cli) -> str:
    """A run whose second agent fails again and again."""
    run: str = mesh("publish", "a.in", '{"n": 7}', "--json").rows[0]["run"]
    until(lambda: "not yet" in str(show(mesh, run)))
    return run


def test_verify_and_show_follow_the_topology_that_each_run_was_opened_under(mesh: Cli) -> None:
    with mesh.up():
        assert mesh("publish", "a.in", "{}", "--wait").code == 0
        before = open_one(mesh)
    write(mesh, V2)
    with mesh.up():
        assert mesh("publish", "a.in", "{}", "--wait").code == 0
        after = mesh("publish", "a.in", "{}", "--wait", "--json").rows[-1]["run"]
        verified = mesh("verify", "--json")
        assert (verified.code, verified.rows[0]["violations"], verified.rows[0]["unchecked"]) == (0, {}, {}), verified
    old, new = show(mesh, before), show(mesh, after)
    assert {task["agent"] for task in old["tasks"]} == {"one", "two"}
    assert {task["agent"] for task in new["tasks"]} == {"one", "three"}
    assert (old["topology_differs"], new["topology_differs"]) == (False, False)


def test_a_task_of_a_removed_agent_is_reported_and_done_when_its_agent_comes_back(mesh: Cli) -> None:
    with mesh.up():
        run = open_one(mesh)
    write(mesh, V2)
    (Path(mesh.folder) / "go").touch()
    checked = mesh("check", "--json").rows[0]["changes"]
    assert [(change["kind"], change["name"]) for change in checked] == [
        ("agent_removed", "two"),
        ("limit_lowered", "deadline_ms"),
    ]
    assert checked[0]["facts"]["open_tasks"] == 1
    assert checked[1]["text"].endswith("open runs that keep the old one: 1")
    assert "agent 'two' is no longer declared, and its open tasks wait: 1" in mesh("agents").out
    with mesh.up() as up:
        up.err_until("agent 'two' is no longer declared")
        until(lambda: "no worker has this agent any more" in mesh("run", "show", run).out)
        removed = [task["agent"] for task in show(mesh, run)["tasks"] if task["removed"]]
        assert removed == ["two"]
    write(mesh, V1)
    with mesh.up():
        until(lambda: show(mesh, run)["state"] == "completed")
        assert mesh("verify").code == 0


def test_two_versions_at_once_take_the_requests_of_both(mesh: Cli) -> None:
    write(mesh, V3, "v3.yaml")
    with mesh.up("orchestrator"), mesh.up("worker", "--topology", "v3.yaml"):
        done = mesh("publish", "a.extra", '{"n": 3}', "--wait", "--json", "--topology", "v3.yaml")
        assert done.code == 0, done
        assert [result["data"] for result in done.rows[-1]["results"]] == [{"n": 3}]
        assert mesh("publish", "a.in", "{}", "--wait").code == 0
        assert mesh("verify").code == 0
        assert mesh("verify", "--topology", "v3.yaml").code == 0


def test_a_check_reports_types_that_are_taken_no_more(mesh: Cli) -> None:
    write(mesh, V3)
    assert mesh("check", "--json").rows[0]["changes"] == []  # no mesh has run here yet
    with mesh.up():
        assert mesh("publish", "a.extra", "{}", "--wait").code == 0
    assert mesh("check", "--json").rows[0]["changes"] == []
    write(mesh, V1)
    found = {change["kind"]: change for change in mesh("check", "--json").rows[0]["changes"]}
    assert found["type_removed"]["name"] == "a.extra"
    assert "agent_removed" not in found, "nothing waits for it"


def test_a_change_of_what_run_ids_follow_from_is_reported_and_an_event_sent_again_begins_a_new_run(mesh: Cli) -> None:
    ordered = V1.replace("ingress: a.in,", "ingress: a.in, id: n, key: n, order: key,").replace(
        "on: a.in,", "on: a.in, key: n,"
    )
    moved = V1.replace("in.t:", "in.new:")
    for text in (V1, ordered):
        write(mesh, text)
        with mesh.up():
            assert mesh("publish", "a.in", '{"n": 3}', "--id", "e-1", "--wait").code == 0
        assert not [c for c in mesh("check", "--json").rows[0]["changes"] if c["kind"] == "run_ids_changed"]
        for other in {V1: (ordered, moved), ordered: (V1, ordered.replace("key: n, order", "key: m, order"))}[text]:
            write(mesh, other)
            (told,) = mesh("check", "--json").rows[0]["changes"]
            assert (told["kind"], told["name"]) == ("run_ids_changed", "a.in")
            assert "begins a new run" in told["text"]
    assert len(mesh("run", "list", "--json").rows) == 2


def test_check_and_up_refuse_another_number_of_partitions_with_the_same_words(mesh: Cli) -> None:
    """The log may have no other topics.yaml. The fix depends on the kind of topic."""
    write(mesh, V1)
    assert mesh("topics", "create").code == 0
    assert mesh("check").code == 0
    write(mesh, V1.replace("inbox: {partitions: 1}", "inbox: {partitions: 8}"))
    remedy = "Write `inbox: {partitions: 1}` below `mesh:`, or start again under a new `prefix`"
    found, up = mesh("check"), mesh("up")
    assert (found.code, up.code) == (1, 1)
    for told in (found.out, up.err):
        assert "upgrade.inbox has 1 partition, 8 declared" in told
        assert "upgrade.tasks.two has 1 partition, 8 declared" in told
        assert told.count(remedy) == 1
    write(mesh, V1.replace("a.in, partitions: 2", "a.in, partitions: 3"))
    found, up = mesh("check"), mesh("up")
    assert (found.code, up.code) == (1, 1)
    assert found.out.startswith("topics.yaml:4: in.t has 2 partitions, 3 declared. ")
    for told in (found.out, up.err):
        assert "Write `partitions: 2` for topic in.t (topics.yaml:4), or declare a topic of another name" in told
        assert "prefix" not in told
