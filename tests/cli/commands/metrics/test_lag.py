"""`mesh lag`: how far each group is behind, of a mesh that runs and of one that is down."""

from tests.cli.conftest import Cli, until


def lag_of(cli: Cli, consumer: str) -> dict[str, object]:
    return next(row for row in cli("lag", "--json").rows if row["consumer"] == consumer)


def test_a_task_under_way_is_behind_and_in_flight(project: Cli) -> None:
    with project.up():
        assert project("publish", "nap.taken", "{}").code == 0
        until(lambda: lag_of(project, "napper")["in_flight"] == 1)
        napper = lag_of(project, "napper")
        assert (napper["lag"], napper["topic"], napper["stopped"]) == (1, "mesh.tasks.napper", False)
        assert sum(napper["partitions"].values()) == 1  # type: ignore[attr-defined]
        done = project("lag")
        assert done.out.splitlines()[0].split() == ["CONSUMER", "TOPIC", "LAG", "OLDEST", "IN", "FLIGHT"]
        (row,) = [line.split() for line in done.out.splitlines() if line.startswith("napper")]
        assert (row[2], row[-1]) == ("1", "1")


def test_records_that_wait_for_a_stopped_mesh_get_older(project: Cli) -> None:
    with project.up("intake"):
        pass
    assert project("publish", "hello", '{"name":"late"}').code == 0
    first = lag_of(project, "orchestrator")
    assert first["lag"] == 1
    assert isinstance(first["age_ms"], int)
    assert lag_of(project, "orchestrator")["age_ms"] > first["age_ms"]  # type: ignore[operator]


def test_a_stopped_agent_says_by_whom(project: Cli) -> None:
    with project.up():
        assert project("stop", "agent", "greeter", "--why", "tea").code == 0
        assert lag_of(project, "greeter")["stopped"] is True
        assert "STOPPED" in project("lag").out


def test_without_a_mesh_it_says_so(project: Cli) -> None:
    done = project("lag")
    assert (done.code, done.out) == (3, "")
    assert "no mesh here yet" in done.err
