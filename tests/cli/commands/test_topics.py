"""`mesh topics`: list, check, create."""

from tests.cli.conftest import Cli


def test_topics_are_created_once_and_listed_with_their_use(project: Cli) -> None:
    made = project("topics", "create")
    assert made.code == 0
    assert "+ mesh.inbox\n" in made.out
    rows = {row["topic"]: row for row in project("topics", "list", "--json").rows}
    assert made.err == f"{len(rows)} created, 0 there already  sqlite:.mesh/mesh.db\n"
    assert project("topics", "create").err.startswith(f"0 created, {len(rows)} there already")
    assert rows["mesh.tasks.greeter"]["use"] == "tasks of greeter"
    assert rows["hellos"]["use"] == "ingress hello"
    assert rows["mesh.inbox"] == {**rows["mesh.inbox"], "partitions": 2, "declared_partitions": 2, "records": 0}
    assert rows["mesh.control"] == {**rows["mesh.control"], "use": "stops and faults", "partitions": 1}
    assert project("topics", "check").out.startswith(f"✓ {len(rows)} topics as declared")


def test_all_that_is_wrong_with_topics_is_reported_at_once(project: Cli) -> None:
    project("topics", "create")
    file = project.folder / "topics.yaml"
    text = file.read_text().replace("inbox: {partitions: 2}", "inbox: {partitions: 3}")
    file.write_text(text + '  again: {run: "desk:keep", on: greeting.kept}\n')
    done = project("topics", "check")
    assert done.code == 1
    assert "mesh.inbox has 2 partitions, 3 declared" in done.err
    assert "mesh.tasks.again is missing" in done.err
    missing = project("topics", "list").out
    assert [line.split()[1] for line in missing.splitlines() if line.startswith("mesh.tasks.again")] == ["missing"]
    create = project("topics", "create")
    assert create.code == 1
    assert "mesh.inbox has 2 partitions, 3 declared" in create.err


def test_a_broker_that_cannot_be_reached_is_exit_code_4(project: Cli) -> None:
    done = project("topics", "list", "--log", "kafka://127.0.0.1:1", "--json")
    assert done.code == 4
    assert '"code":"log_unavailable"' in done.err
    assert '"exit_code":4' in done.err
