"""`mesh test` and `mesh.testing.replay`: recordings are taken again, and a changed answer fails."""

import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.cli.conftest import PROJECT, Cli


@pytest.fixture(scope="module")
def recorded(forker: Any, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A folder with the recordings of two greetings that a mesh made."""
    home = tmp_path_factory.mktemp("recordings")
    shutil.copytree(PROJECT, home / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    cli = Cli(forker, home / "desk", home)
    with cli.up() as running:
        for name in ("ada", "bob"):
            assert cli("publish", "hello", f'{{"name": "{name}"}}', "--wait").code == 0
        running.signal(signal.SIGINT)
        running.end()
    (cli.folder / "recordings").mkdir()
    for name in ("ada", "bob"):
        (cli.folder / "recordings" / f"{name}.jsonl").write_text(cli("run", "export", name).out)
    return cli


@pytest.fixture
def changed(recorded: Cli) -> Any:
    """The greeter says more to bob meanwhile."""
    module = recorded.folder / "desk.py"
    before = module.read_text()
    module.write_text(before.replace("good day, {hello.name}", "good day, {hello.name}{'!' * (hello.name == 'bob')}"))
    yield
    module.write_text(before)


def test_a_folder_of_recordings_passes_while_nothing_has_changed(recorded: Cli) -> None:
    done = recorded("test", "recordings")
    assert (done.code, done.err) == (0, "2 runs, 0 different\n")
    assert done.out.splitlines() == ["✓ recordings/ada.jsonl  ada  hello", "✓ recordings/bob.jsonl  bob  hello"]


def test_a_changed_answer_fails_with_its_difference(recorded: Cli, changed: None) -> None:
    done = recorded.fresh("test", "recordings")
    assert (done.code, done.err) == (1, "2 runs, 1 different\n")
    assert "✗ recordings/bob.jsonl  bob  hello" in done.out
    assert 'greeted.text: recorded "good day, bob", now "good day, bob!"' in done.out
    assert recorded.fresh("test", "recordings/ada.jsonl").code == 0
    assert recorded.fresh("test", "recordings/bob.jsonl", "--ignore", "greeted.text").code == 0
    rows = recorded.fresh("test", "recordings", "--json").rows
    assert [row["same"] for row in rows] == [True, False]


def test_masked_places_are_not_compared_and_are_counted(recorded: Cli) -> None:
    file = recorded.folder / "masked.jsonl"
    file.write_text(recorded("run", "export", "bob", "--redact", "greeted.text").out)
    done = recorded("test", "masked.jsonl")
    assert (done.code, done.err) == (0, "1 run, 0 different\n")
    assert "    1 masked place was not compared" in done.out.splitlines()
    assert recorded("test", "masked.jsonl", "--json").rows[0]["masked"] == 1
    for options in (("--agent", "greeter"), ("--run",)):
        again = recorded("replay", "masked.jsonl", *options)
        assert (again.code, "1 masked place was not compared" in again.out + again.err) == (0, True)


def test_the_input_of_another_answer_is_named_as_masked(recorded: Cli) -> None:
    file = recorded.folder / "masked_input.jsonl"
    file.write_text(recorded("run", "export", "bob", "--redact", "hello.name").out)
    done = recorded("test", "masked_input.jsonl", "--json")
    assert done.code == 1
    assert any("greeter: another answer to an input that is masked" in x for x in done.rows[0]["differences"])


def test_what_is_no_recording_is_an_error(recorded: Cli) -> None:
    (recorded.folder / "empty").mkdir(exist_ok=True)
    assert "holds no recording" in recorded("test", "empty").err
    assert recorded("test", "nowhere.jsonl").code == 3
    assert recorded("test", "topics.yaml").code == 2


TEST = """
from mesh.testing import replay

def test_greetings_stay_as_they_were():
    replay("recordings/{name}.jsonl", ignore=[{ignored}])
"""


@pytest.mark.parametrize(
    ("name", "ignored", "passes"), [("ada", "", True), ("bob", "", False), ("bob", "'text'", True)]
)
def test_three_lines_of_a_users_test_do_the_same(
    recorded: Cli, changed: None, name: str, ignored: str, passes: bool
) -> None:
    (recorded.folder / "test_kept.py").write_text(TEST.format(name=name, ignored=ignored))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_kept.py"]
    environ = {**recorded.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=recorded.folder, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == (0 if passes else 1), done.stdout
    if not passes:
        assert "run bob (hello) differs from recordings/bob.jsonl" in done.stdout
        assert 'greeted.text: recorded "good day, bob", now "good day, bob!"' in done.stdout
