"""`mesh replay RUN`: the steps of a run on a terminal, in a pipe and as JSON; and names that are no run."""

import shutil
from pathlib import Path

from tests.cli.commands.test_verify import again, spoil
from tests.cli.conftest import Cli


def test_each_step_shows_what_changed_and_why_each_effect_followed(lived: Cli) -> None:
    done = lived("replay", "ada")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("✓ ada  hello  completed")
    assert "3 steps in the order of mesh.inbox:" in done.out
    assert "1  requested hello" in done.out
    assert "open        + greeter" in done.out
    assert "greeter is on hello; hop 1 of 6" in done.out
    assert "2  succeeded greeter greeted, greeting.kept" in done.out
    assert "topic greetings lets it out" in done.out
    assert "completed  nothing is open, 1 result, nothing was lost" in done.out
    assert "\x1b" not in done.out


def test_json_has_the_run_and_a_line_for_each_step(lived: Cli) -> None:
    head, *steps = lived("replay", "broken", "--json", "-v").rows
    assert (head["state"], head["steps"]) == ("failed", len(steps))
    assert [gap["kind"] for gap in head["gaps"]] == ["dead letter"]
    assert [(step["kind"], step["after"]) for step in steps] == [
        ("requested", None),
        ("failed", 1),
        ("due", 2),
        ("failed", 3),
    ]
    assert steps[0]["data"] == {}
    (task,) = (effect for effect in steps[0]["effects"] if effect["what"] == "task")
    assert (task["name"], task["rule"], task["depth"]) == ("breaker", "route", 1)
    assert [effect["rule"] for effect in steps[1]["effects"]] == ["retry"]
    assert steps[3]["effects"][-1]["name"] == "failed"


def test_refusals_have_their_numbers(lived: Cli) -> None:
    done = lived("replay", "round")
    assert "reaches 'runner' 4 times in this run, at most 3" in done.out
    steps = lived("replay", "round", "--json").rows[1:]
    (refused,) = (refusal for step in steps for refusal in step["refusals"])
    assert (refused["code"], refused["limit"], refused["actual"]) == ("visits", 3, 4)


def test_payloads_are_shown_on_request(lived: Cli) -> None:
    assert '"name": "ada"' not in lived("replay", "ada").out
    assert '"name": "ada"' in lived("replay", "ada", "-v").out


def test_a_name_that_is_no_run_is_an_error(lived: Cli) -> None:
    done = lived("replay", "nope")
    assert (done.code, done.out) == (3, "")
    assert "no run goes by 'nope'" in done.err
    assert lived("replay").code == 2


def test_check_compares_a_run_or_a_time_span_with_what_was_published(lived: Cli) -> None:
    for selection in (("ada",), (), ("--since", "1h"), ("--since", "1h", "--until", "@9999999999999")):
        done = lived("replay", *selection, "--check")
        assert done.code == 0, done
        assert "nothing diverges" in done.out
    (summary,) = lived("replay", "--check", "--json", "--until", "@1").rows
    assert (summary["ok"], summary["runs"]) == (True, 0)


def test_a_time_span_is_not_for_one_run_and_no_run_is_an_error(lived: Cli) -> None:
    assert "one run has no time span" in lived("replay", "ada", "--since", "1h").err
    assert "no run is named" in lived("replay", "--since", "1h").err
    assert lived("replay", "--check", "--since", "soon").code == 2


def test_check_shows_the_first_divergence_with_both_sides(lived: Cli, tmp_path: Path) -> None:
    shutil.copytree(lived.folder, tmp_path / "desk", ignore=shutil.ignore_patterns("*.wake", "__pycache__"))
    spoilt = lived.at(tmp_path / "desk")
    spoil(spoilt, again("mesh.tasks.greeter", ce_subject=b"x"))
    assert sorted(spoilt("replay", name, "--check").code for name in ("ada", "bob")) == [0, 1]
    for selection in ((), ("--since", "1h")):
        done = spoilt("replay", *selection, "--check")
        assert done.code == 1
        assert "I3  a copy differs from the one that was decided" in done.out
        assert "at        mesh.tasks.greeter:" in done.out


def test_what_if_shows_one_run_as_a_tree_of_same_new_gone_and_refused(lived: Cli) -> None:
    done = lived("replay", "ada", "--limit", "depth_max=1")
    assert done.code == 1
    assert "recorded  ✓ completed  2 tasks" in done.out
    assert "✗ refused  depth: greeter > keeper is 2 hops deep, at most 1" in done.out
    assert "1 same, 0 new, 0 gone, 1 refused" in done.out
    (row,) = lived("replay", "ada", "--limit", "depth_max=1", "--json").rows
    assert (row["differs"], row["reason"]) == (True, "depth of keeper (new)")
    assert [(task["agent"], task["mark"]) for task in row["tasks"]] == [("greeter", "same"), ("keeper", "refused")]
    assert lived("replay", "ada", "--limit", "depth_max=6").code == 0


def test_what_if_over_all_runs_groups_those_that_end_differently(lived: Cli) -> None:
    done = lived("replay", "--limit", "depth_max=1")
    assert done.code == 1
    assert "4 runs: 1 end the same, 3 differently" in done.out
    assert "depth of keeper (new)" in done.out
    assert done.err == ""
    (row,) = lived("replay", "--since", "1h", "--limit", "depth_max=1", "--json").rows
    assert (row["same"], row["different"], row["unknown"]) == (1, 3, 0)
    assert row["before"]["endings"] == {"completed": 2, "failed": 1, "stopped": 1}
    assert sum(group["runs"] for group in row["groups"]) == 3
    assert "4 runs: 4 end the same, 0 differently" in lived("replay", "--with", "topics.yaml").out


def test_what_if_under_another_topology_says_what_is_unknown(lived: Cli, tmp_path: Path) -> None:
    text = (lived.folder / "topics.yaml").read_text()
    (tmp_path / "more.yaml").write_text(f'{text}  audit: {{run: "desk:hear", on: hello, emits: word.heard}}\n')
    done = lived("replay", "ada", "--with", str(tmp_path / "more.yaml"))
    assert done.code == 1
    assert "? unknown from here" in done.out
    assert "audit" in done.out
    assert "+ new  it was not asked then: unknown from here" in done.out


def test_wrong_words_of_a_what_if_are_errors(lived: Cli) -> None:
    assert "Did you mean depth_max?" in lived("replay", "ada", "--limit", "depth=1").err
    assert lived("replay", "ada", "--with", "nowhere.yaml").code == 2
    assert "these are two modes" in lived("replay", "ada", "--check", "--limit", "depth_max=1").err
