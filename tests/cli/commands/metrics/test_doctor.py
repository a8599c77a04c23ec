"""`mesh doctor`: a healthy mesh, one that is stopped, one that is down, and servers that do not answer."""

import json
from typing import Any

from tests.cli.conftest import Cli

PATIENT = ("--within", "30s")
"""A busy machine is slow; what is tested is what is found."""


def levels(rows: list[dict[str, Any]], level: str) -> list[str]:
    return [row["where"] for row in rows if row["level"] == level]


def test_a_healthy_mesh_is_ok(project: Cli) -> None:
    with project.up():
        assert project("publish", "hello", '{"name":"well"}', "--wait").code == 0
        done = project("doctor", *PATIENT)
        assert (done.code, done.err) == (0, ""), done
        assert "✓ log  sqlite:.mesh/mesh.db answers in " in done.out
        assert "✓ topics  all " in done.out
        assert done.out.splitlines()[-1].split(" ok ")[0].isdecimal()
        rows = project("doctor", "--json", *PATIENT).rows
    assert {row["level"] for row in rows} == {"ok"}
    assert all(set(row) == {"level", "where", "what", "expected", "got", "next"} for row in rows)
    assert {row["where"] for row in rows} >= {"versions", "log", "board", "topics", "agents", "lag", "runs", "disk"}


def test_what_is_stopped_and_dead_is_said_with_the_next_command(project: Cli) -> None:
    with project.up():
        assert project("publish", "break.me", "{}", "--wait").code == 1
        assert project("stop", "agent", "greeter", "--why", "tea").code == 0
        done = project("doctor", *PATIENT)
    assert done.code == 0  # these are warnings
    assert "! agent greeter  stopped by " in done.out
    assert "    → mesh resume agent greeter\n" in done.out
    assert "! dead letters  1 kept, 1 of the last hour\n" in done.out
    assert "    → mesh dead list\n" in done.out


def test_rights_of_others_and_missing_topics_are_found(project: Cli) -> None:
    with project.up("intake"):
        pass
    file = project.folder / "topics.yaml"
    assert project("publish", "hello", '{"name":"late"}').code == 0
    (project.folder / ".mesh" / "mesh.db").chmod(0o644)
    rows = project("doctor", "--json", *PATIENT).rows
    assert levels(rows, "warning") == [".mesh/mesh.db"]
    file.write_text(file.read_text().replace("  greetings: {", "  farewells: {"))
    done = project("doctor", "--json", *PATIENT)
    assert (done.code, levels(done.rows, "error")) == (1, ["farewells"])


def test_a_missing_mesh_and_servers_that_do_not_answer_are_findings(project: Cli) -> None:
    done = project("doctor", "--json", *PATIENT)
    (error,) = [row for row in done.rows if row["level"] == "error"]
    assert (done.code, error["where"], error["what"]) == (1, "log sqlite:.mesh/mesh.db", "no mesh here yet")
    done = project(
        "doctor", "--json", "--log", "kafka://127.0.0.1:1", "--board", "redis://127.0.0.1:1/0", "--within", "1s"
    )
    assert done.code == 1
    assert [where.split()[0] for where in levels(done.rows, "error")] == ["log", "board"]


def test_a_topology_that_is_wrong_is_a_finding(project: Cli) -> None:
    (project.folder / "topics.yaml").write_text("mesh: {name: desk}\n")
    done = project("doctor", "--json")
    assert done.code == 1
    assert "log" in {where.split()[0] for where in levels(done.rows, "error")}


def test_a_wrong_time_is_said(desk: Cli) -> None:
    done = desk("doctor", "--within", "2h", "--json")
    assert (done.code, done.out) == (2, "")
    assert json.loads(done.err)["error"]["where"] == "--within"
