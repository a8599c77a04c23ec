"""`mesh replay RUN --run` and `mesh replay --agent NAME`: the functions of today beside what is recorded."""

import re
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.cli.conftest import PROJECT, Cli


@pytest.fixture(scope="module")
def recorded(forker: Any, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A folder in which a mesh has run: three greetings and a failure. It is down now."""
    home = tmp_path_factory.mktemp("recorded")
    shutil.copytree(PROJECT, home / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    cli = Cli(forker, home / "desk", home)
    with cli.up() as running:
        for name in ("ada", "bob", "eve"):
            assert cli("publish", "hello", f'{{"name": "{name}"}}', "--wait").code == 0
        assert cli("publish", "break.me", "{}", "--id", "broken", "--wait").code == 1
        running.signal(signal.SIGINT)
        running.end()
    return cli


@pytest.fixture
def changed(recorded: Cli) -> Iterator[str]:
    """A function in the mesh's folder that says more to bob than the greeter did, and fails for eve."""
    module = recorded.folder / "louder.py"
    module.write_text(
        "from desk import Greeted, GreetingKept, Hello\n\n\n"
        "async def greet(hello: Hello) -> list[Greeted | GreetingKept]:\n"
        "    if hello.name == 'eve':\n"
        "        raise KeyError('eve')\n"
        "    text = f'good day, {hello.name}' + '!' * (hello.name == 'bob')\n"
        "    return [Greeted(text=text), GreetingKept(name=hello.name)]\n"
    )
    yield "greeter=louder:greet"
    module.unlink()


def test_tasks_of_an_agent_give_the_same_again(recorded: Cli) -> None:
    done = recorded("replay", "--agent", "greeter", "--since", "1h")
    assert (done.code, done.err) == (0, "")
    assert "greeter  desk:greet" in done.out
    assert "same      3  the same answer" in done.out


def test_answers_that_differ_are_told_kept_and_decide_the_exit_code(recorded: Cli, changed: str) -> None:
    done = recorded("replay", "--agent", changed, "--save", "diff.jsonl")
    assert (done.code, done.err) == (1, "saved: diff.jsonl\n")
    assert re.search(r"different +1  another answer", done.out)
    assert re.search(r"failed +1  a failure", done.out)
    assert re.search(r'greeted.text +"good day, bob" +"good day, bob!"', done.out)
    assert "failed: exception: KeyError: 'eve'" in done.out
    rows = [orjson.loads(line) for line in (recorded.folder / "diff.jsonl").read_bytes().splitlines()]
    assert {row["input"]["data"]["name"]: row["verdict"] for row in rows} == {"bob": "different", "eve": "failed"}
    json = recorded("replay", "--agent", changed, "--json").rows
    untimed = [{**row, "now": {**row["now"], "took_ms": 0}} for row in (*json[:-1], *rows)]
    again, first = (sorted(half, key=lambda row: str(row["task"])) for half in (untimed[:2], untimed[2:]))
    assert again == first  # the order of results is that in which calls end
    assert (json[-1]["same"], json[-1]["different"], json[-1]["failed"]) == (1, 1, 1)


def test_fields_may_be_ignored_and_the_number_of_tasks_limited(recorded: Cli, changed: str) -> None:
    ignored = recorded("replay", "--agent", changed, "--ignore", "greeted.text", "--json").rows[-1]
    assert (ignored["same"], ignored["failed"]) == (2, 1)
    assert recorded("replay", "--agent", "greeter", "--limit", "2", "--json").rows[-1]["tasks"] == 2
    none = recorded("replay", "--agent", "napper")
    assert (none.code, "no recorded answers of this agent" in none.out) == (0, True)


def test_a_run_in_the_sandbox_is_the_same_or_shows_the_first_difference(recorded: Cli, changed: str) -> None:
    same = recorded("replay", "bob", "--run")
    assert same.code == 0, same
    assert "✓ the same: outcome and the answers of 2 tasks" in same.out
    other = recorded("replay", "bob", "--run", "--agent", changed)
    assert other.code == 1
    assert re.search(r"recorded +✓ completed", other.out)
    assert re.search(r"sandbox +✓ completed", other.out)
    assert re.search(r'greeter +same +greeted.text +"good day, bob" +"good day, bob!"', other.out)
    assert "✗ different: 1 task of 2" in other.out
    (json,) = recorded("replay", "bob", "--run", "--agent", changed, "--json").rows
    assert (json["same"], json["tasks"][0]["verdict"], json["tasks"][1]["verdict"]) == (False, "different", "same")
    failed = recorded("replay", "eve", "--run", "--agent", changed)
    assert re.search(r"sandbox +✗ failed", failed.out)


def test_a_request_is_edited_a_start_is_chosen_and_a_run_repeated(recorded: Cli) -> None:
    edited = recorded("replay", "ada", "--run", "--set", "name=zoe", "--json").rows[0]
    assert edited["outcome"] == [{"path": "greeted.text", "recorded": '"good day, ada"', "now": '"good day, zoe"'}]
    begun = recorded("replay", "ada", "--run", "--from", "keeper", "--set", "name=zoe", "--json").rows[0]
    assert begun["same"]
    assert [task["same_input"] for task in begun["tasks"]] == [True, False]
    repeated = recorded("replay", "ada", "--run", "--repeat", "3")
    assert "3 of 3 the same, 0 different" in repeated.out


def test_recordings_in_files_are_taken_again_like_runs_of_the_log(recorded: Cli, changed: str) -> None:
    made = recorded("run", "export", "bob")
    (recorded.folder / "bob.jsonl").write_text(made.out)
    assert recorded("replay", "bob.jsonl", "--run").code == 0
    other = recorded("replay", "bob.jsonl", "--run", "--agent", changed)
    assert (other.code, "✗ different: 1 task of 2" in other.out) == (1, True)
    tasks = recorded("replay", "bob.jsonl", "--agent", changed, "--json").rows[-1]
    assert (tasks["tasks"], tasks["different"]) == (1, 1)


def test_the_new_run_is_saved_as_a_recording_in_place_of_the_old_one(recorded: Cli, changed: str) -> None:
    file = recorded.folder / "accepted.jsonl"
    file.write_text(recorded("run", "export", "bob").out)
    again = ("replay", file.name, "--run", "--agent", changed)
    assert recorded(*again).code == 1
    saved = recorded(*again, "--save", file.name)
    assert (saved.code, saved.err) == (1, "saved: accepted.jsonl\n")
    assert recorded(*again).code == 0
    assert recorded("replay", file.name, "--check").code == 0
    assert recorded("run", "show", "bob", "--log", f"recording:{file.name}").code == 0
    assert list(recorded.folder.glob("mesh-replay-*")) == []


def test_a_run_that_has_not_ended_is_not_saved(recorded: Cli) -> None:
    (recorded.folder / "sleeper.py").write_text(
        "import asyncio\n\nfrom desk import Greeted, GreetingKept, Hello\n\n\n"
        "async def greet(hello: Hello) -> list[Greeted | GreetingKept]:\n"
        "    await asyncio.sleep(60)\n    return []\n"
    )
    swap = ("--agent", "greeter=sleeper:greet", "--timeout", "500ms")
    done = recorded("replay", "bob", "--run", *swap, "--save", "endless.jsonl")
    assert done.code == 1
    assert done.err.endswith("not saved: the run has not ended; --timeout gives it more time\n")
    assert not (recorded.folder / "endless.jsonl").exists()


def test_one_run_is_saved_to_a_file(recorded: Cli) -> None:
    several = recorded("run", "export", "--since", "1h").out
    (recorded.folder / "several.jsonl").write_text(several)
    done = recorded("replay", "several.jsonl", "--run", "--save", "new.jsonl")
    assert (done.code, done.out) == (2, "")
    assert "expected one run, got 4 in the recording" in done.err
    repeated = recorded("replay", "bob", "--run", "--repeat", "2", "--save", "new.jsonl")
    assert "expected one repetition, got --repeat 2" in repeated.err
    nowhere = recorded("replay", "bob", "--run", "--save", "no/such/folder.jsonl")
    assert (nowhere.code, "the file cannot be written" in nowhere.err) == (2, True)
    assert not (recorded.folder / "new.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--agent", "greter"), "Did you mean 'greeter'?"),
        (("--agent", "greeter=desk"), "expected NAME=module:function"),
        (("--agent", "greeter=desk:nobody"), "desk:nobody"),
        (("--agent", "greeter=desk:hear"), "greeter"),
        (("--agent", "greeter", "--limit", "depth_max=3"), "this is no number of tasks"),
        (("--agent", "greeter", "--set", "a=1"), "--set goes with --run"),
        (("--agent", "greeter", "--timeout", "5s"), "--timeout goes with --run"),
        (("ada", "--timeout", "5s"), "--timeout goes with --run"),
        (("ada", "--run", "--jobs", "3"), "--jobs goes with --agent"),
        (("ada", "--run", "--ignore", ""), "--ignore, column 1: a path is empty"),
        (("--agent", "greeter", "--ignore", "a..b"), "is not the path of a field"),
        (("--agent", "greeter", "--save", "no/such/folder.jsonl"), "the file cannot be written"),
        (("ada", "--agent", "greeter"), "--agent alone is for all runs"),
        (("ada", "--run", "--agent", "greeter"), "--agent swaps the function of one"),
        (("ada", "--run", "--from", "napper"), "no task of the run goes by that name"),
        (("ada", "--run", "--set", "name"), "path=value"),
        (("ada", "--run", "--check"), "these are two modes"),
        (("ada", "--set", "name=x"), "--set goes with --run"),
        (("--run",), "no run is named"),
        (("nope", "--run"), "no run goes by 'nope'"),
    ],
)
def test_what_cannot_be_replayed_is_an_error_that_says_why(
    recorded: Cli, arguments: tuple[str, ...], said: str
) -> None:
    done = recorded("replay", *arguments)
    assert done.code in (2, 3), done
    assert said in done.err
    assert done.out == ""


def test_a_field_that_the_change_adds_is_told(recorded: Cli) -> None:
    done = recorded("replay", "ada", "--run", "--set", "nope.x=1", "--set", "name=ada")
    assert done.err == "--set: the request has no field nope.x: it was added\n"
    begun = recorded("replay", "ada", "--run", "--from", "keeper", "--set", "nope=1", "--json")
    assert (begun.rows[0]["added"], "the task has no field nope" in begun.err) == (["nope"], True)
    assert recorded("replay", "ada", "--run", "--set", "name=ada", "--json").rows[0]["added"] == []
