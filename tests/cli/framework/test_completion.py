"""Completion by the shell: words, options, and names from topics.yaml."""

from tests.cli.conftest import Cli


def completed(cli: Cli, line: str) -> list[str]:
    """Return the completions that bash gets for the last word of a line."""
    words = line.split(" ")
    done = cli(env={"_MESH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)})
    assert done.err == ""
    return done.out.split()


def test_nouns_types_and_agents_are_completed(project: Cli) -> None:
    assert completed(project, "mesh to") == ["top", "topics"]
    assert completed(project, "mesh run sh") == ["show"]
    assert completed(project, "mesh publish h") == ["hello"]
    assert completed(project, "mesh up worker --agent k") == ["keeper"]
    assert completed(project, "mesh run list --state o") == ["open"]


def test_completion_is_silent_when_there_is_nothing_to_read(cli: Cli) -> None:
    assert completed(cli, "mesh publish h") == []
    (cli.folder / "topics.yaml").write_text("{")
    assert completed(cli, "mesh publish h") == []
