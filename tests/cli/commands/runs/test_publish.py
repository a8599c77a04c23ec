"""`mesh publish`: one event, and streams of them."""

import json
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, plain


def test_publish_reports_the_run_and_does_not_wait(desk: Cli) -> None:
    done = desk("publish", "hello", '{"name": "ada"}')
    assert done.code == 0
    assert plain(done.out) == "published  hello  run RUN\n"
    assert plain(done.err) == "follow it: mesh run show RUN\n"


def test_wait_shows_the_outcome_of_a_mesh_that_runs_in_another_process(desk: Cli) -> None:
    done = desk("publish", "hello", '{"name": "bob"}', "--wait")
    assert done.code == 0
    assert plain(done.out) == ('✓ completed in TIME  run RUN\n  greeted  by greeter\n    {"text":"good day, bob"}\n')


def test_wait_with_json_prints_the_outcome_record(desk: Cli) -> None:
    done = desk("publish", "hello", '{"name": "cyd"}', "--wait", "--json")
    (outcome,) = done.rows
    assert outcome["ending"] == "completed"
    assert outcome["results"][0]["data"] == {"text": "good day, cyd"}
    assert outcome["request"]["ids"] == ["cyd"]


def test_a_failed_run_is_exit_code_1_and_says_why(desk: Cli) -> None:
    done = desk("publish", "break.me", '{"why": "it was glass"}', "--wait")
    assert done.code == 1
    assert "✗ failed in" in done.out
    assert "failed breaker after 2 attempts: exception: it was glass" in done.out


def test_a_refused_hop_is_exit_code_1_and_says_path_and_numbers(desk: Cli) -> None:
    done = desk("publish", "round.go", "{}", "--wait")
    assert done.code == 1
    assert "runner > runner > runner > runner reaches 'runner' 4 times in this run, at most 3" in done.out


def test_follow_prints_the_timeline_and_the_tree(desk: Cli) -> None:
    done = desk("publish", "hello", '{"name": "dot"}', "--follow")
    assert done.code == 0
    assert (
        plain(done.out)
        == """\
  CLOCK TIME  ·            requested  hello
  CLOCK TIME  greeter      dispatched hello
  CLOCK TIME  greeter      succeeded  greeted, greeting.kept
  CLOCK TIME  greeter      left       greeted → greetings
  CLOCK TIME  keeper       dispatched greeting.kept
  CLOCK TIME  keeper       succeeded  nothing emitted
  CLOCK TIME  ·            ended      completed

✓ dot  hello  completed TIME  run RUN
  └─ greeter    greeted, greeting.kept TIME
     └─ keeper  – TIME
"""
    )


def test_follow_of_a_request_that_was_published_before_shows_how_its_run_ended(desk: Cli) -> None:
    assert desk("publish", "hello", '{"name": "eve"}', "--wait").code == 0
    done = desk("publish", "hello", '{"name": "eve"}', "--follow")
    assert done.code == 0
    assert "was published before" in done.err
    assert "✓ eve  hello  completed" in done.out


def test_the_same_id_again_is_the_same_run(desk: Cli) -> None:
    first = desk("publish", "word.said", '{"word": "a"}', "--id", "w-1", "--json").rows[0]
    again = desk("publish", "word.said", '{"word": "a"}', "--id", "w-1", "--json").rows[0]
    assert first["run"] == again["run"]


def test_the_run_id_may_be_given(desk: Cli) -> None:
    done = desk("publish", "word.said", '{"word": "a"}', "--run-id", "case-17", "--wait", "--json")
    assert done.rows[0]["run"] == "case-17"


def test_waiting_ends_at_the_timeout_with_exit_code_6(desk: Cli) -> None:
    began = time.monotonic()
    done = desk("publish", "nap.taken", '{"seconds": 50}', "--wait", "--timeout", "100ms")
    assert done.code == 6
    assert "has not ended within 0.1 s; it goes on" in done.err
    assert time.monotonic() - began < 10
    follow = desk("publish", "nap.taken", '{"seconds": 50}', "--follow", "--timeout", "100ms")
    assert follow.code == 6


def test_a_deadline_stops_the_run(desk: Cli) -> None:
    done = desk("publish", "nap.taken", '{"seconds": 50}', "--wait", "--deadline", "200ms", "--json")
    assert done.code == 1
    assert done.rows[0]["ending"] == "stopped"
    assert done.rows[0]["refusals"][0]["code"] == "deadline"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("helo", "{}"), "no ingress topic declares type 'helo'; did you mean 'hello'?"),
        (("hello", "{"), "the body is not JSON"),
        (("hello", "{}"), "the payload has nothing at 'name'"),
        (("hello", '{"name": "a\\tb"}'), "U+0009"),
        (("hello", "{}", "--timeout", "5"), "--timeout"),
        (("hello", "-", "--id", "x"), "for a single event"),
    ],
)
def test_what_cannot_be_published_is_exit_code_2(desk: Cli, arguments: tuple[str, ...], told: str) -> None:
    done = desk("publish", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert told in done.err


def test_a_file_may_hold_the_document(desk: Cli, tmp_path: Path) -> None:
    file = tmp_path / "hello.json"
    file.write_text('{\n  "name": "fay"\n}\n')
    assert desk("publish", "hello", f"@{file}", "--wait").code == 0
    assert desk("publish", "hello", "@-", "--wait", input='{\n"name": "gus"}').code == 0
    missing = desk("publish", "hello", f"@{tmp_path / 'nope.json'}")
    assert missing.code == 3
    assert "there is no such file" in missing.err


def test_json_lines_are_sent_and_bad_ones_reported_by_number(desk: Cli) -> None:
    lines = ['{"name": "l1"}', "{", "", '{"name": "l4"}', '{"nome": "l5"}', '{"name": "l6"}']
    done = desk("publish", "hello", "-", "--wait", input="\n".join(lines))
    assert done.code == 1
    assert done.out == "  ✓ completed 3\n"
    assert "line 2: unparseable: the body is not JSON" in done.err
    assert "line 5: bad_id: the payload has nothing at 'name'" in done.err
    assert "3 sent, 2 bad lines in " in done.err


def test_json_lines_with_json_answer_one_line_each(desk: Cli) -> None:
    done = desk("publish", "hello", "-", "--json", input='{"name": "m1"}\n[]\n{"name": "m3"}\n')
    assert done.code == 1
    assert [(row["line"], row["id"]) for row in done.rows] == [(1, "m1"), (3, "m3")]
    flaw = json.loads(done.err.splitlines()[0])["error"]
    assert (flaw["line"], flaw["code"]) == (2, "bad_id")
    waited = desk("publish", "hello", "-", "--json", "--wait", input='{"name": "m4"}\n')
    assert (waited.rows[0]["line"], waited.rows[0]["ending"]) == (1, "completed")


def test_strict_sends_nothing_when_a_line_is_bad(desk: Cli) -> None:
    done = desk("publish", "hello", "-", "--strict", input='{"name": "s1"}\n{\n')
    assert done.code == 1
    assert "0 sent, 1 bad line" in done.err
    assert desk("run", "show", "s1").code == 3
    assert desk("publish", "hello", "-", "--strict", input='{"name": "s1"}\n').code == 0


def test_a_file_of_json_lines_goes_through_whole(desk: Cli, tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(f'{{"name": "many-{n}"}}\n' for n in range(1_200)))
    done = desk("publish", "hello", f"@{file}", "--wait")
    assert done.code == 0, done.err
    assert done.out == "  ✓ completed 1,200\n"
    assert done.err.startswith("1,200 sent in ")


def test_runs_of_a_stream_that_had_ended_before_are_found(desk: Cli) -> None:
    assert desk("publish", "hello", "-", "--wait", input='{"name": "n1"}\n').code == 0
    done = desk("publish", "hello", "-", "--wait", input='{"name": "n1"}\n{"name": "n2"}\n')
    assert done.out == "  ✓ completed 2\n"


def test_a_stream_that_is_not_done_in_time_is_exit_code_6(desk: Cli) -> None:
    done = desk("publish", "nap.taken", "-", "--wait", "--timeout", "100ms", input='{"seconds": 50}\n')
    assert done.code == 6
    assert "… open 1  not ended in time; they go on" in done.out


def test_events_of_a_slow_pipe_are_sent_before_it_ends(desk: Cli) -> None:
    with desk.background("publish", "hello", "-", "--json") as running:
        running.write('{"name": "slow-1"}\n')
        assert json.loads(running.out_until("\n"))["id"] == "slow-1"
        running.write('{"name": "slow-2"}')
        running.close_input()
        done = running.end()
    assert done.code == 0
    assert [row["id"] for row in done.rows] == ["slow-1", "slow-2"]


def test_publishing_before_any_mesh_was_up_leaves_the_event_for_it(project: Cli) -> None:
    run = project("publish", "hello", '{"name": "early"}', "--json").rows[0]["run"]
    with project.up():
        done = project("publish", "hello", '{"name": "early"}', "--wait", "--json")
    assert done.rows[0]["run"] == run
    assert done.rows[0]["ending"] == "completed"


# ------------------------------------------------------------------------- refused requests, and no reader


@pytest.mark.parametrize("how", ["--wait", "--follow"])
def test_another_body_under_the_same_id_is_exit_code_5_and_not_the_first_ones_outcome(desk: Cli, how: str) -> None:
    id = f"twice{how}"
    assert desk("publish", "word.said", '{"word": "a"}', "--id", id, "--wait").code == 0
    done = desk("publish", "word.said", '{"word": "b"}', "--id", id, how)
    assert (done.code, done.out) == (5, "")
    assert f"idempotency_conflict: request '{id}' came before with another body" in done.err
    assert "Give a new request a new id" in done.err


def test_following_an_open_run_reports_a_conflict_when_it_ends(desk: Cli) -> None:
    first = '{"seconds": 0.3}'
    desk("publish", "nap.taken", first, "--id", "nap-twice")
    done = desk("publish", "nap.taken", '{"seconds": 0.2}', "--id", "nap-twice", "--follow")
    assert done.code == 5
    assert "idempotency_conflict" in done.err


def test_a_request_after_the_end_of_its_run_is_answered_so(desk: Cli) -> None:
    assert desk("publish", "word.said", '{"word": "a"}', "--run-id", "case-9", "--id", "w-91", "--wait").code == 0
    done = desk("publish", "word.said", '{"word": "b"}', "--run-id", "case-9", "--id", "w-92", "--wait", "--json")
    assert done.code == 5
    assert json.loads(done.err.splitlines()[-1])["error"]["code"] == "already_terminal"


def test_a_line_with_another_body_than_before_is_a_bad_line(desk: Cli) -> None:
    lines = '{"name": "dup-1"}\n{"name": "dup-1", "mood": "other"}\n{"name": "dup-2"}\n'
    done = desk("publish", "hello", "-", "--wait", input=lines)
    assert done.code == 1
    assert "line 2: idempotency_conflict: request 'dup-1' came before with another body" in done.err
    assert done.out == "  ✓ completed 2\n"


@pytest.mark.parametrize(
    ("arguments", "input"),
    [
        (('{"name": "lone"}', "--wait"), ""),
        (('{"name": "lone"}', "--follow"), ""),
        (("-", "--wait"), '{"name": "lone"}\n'),
    ],
)
def test_waiting_without_a_consumer_is_reported_once_after_a_moment(
    project: Cli, arguments: tuple[str, ...], input: str
) -> None:
    done = project("publish", "hello", *arguments, "--timeout", "5s", input=input)
    assert done.code == 6
    assert done.err.count("no answer yet: no orchestrator has read it yet: is `mesh up` running?") == 1


def test_waiting_for_a_stopped_agent_names_the_operator(project: Cli) -> None:
    project("topics", "create")
    project("stop", "all", "--why", "fire drill")
    with project.up("orchestrator"):
        done = project("publish", "hello", '{"name": "ada"}', "--wait", "--timeout", "4s")
    assert done.code == 6
    assert "no answer yet: all agents stopped" in done.err
    assert ": fire drill  mesh resume all" in done.err


def test_waiting_for_what_just_takes_time_says_where_to_look(desk: Cli) -> None:
    done = desk("publish", "nap.taken", '{"seconds": 50}', "--wait", "--timeout", "4s")
    assert done.code == 6
    assert "no answer yet; mesh run show " in done.err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_documents_of_any_common_encoding_are_read_from_files_and_standard_input(desk: Cli, encoding: str) -> None:
    document = '{"word": "Zoë"}\r\n'.encode(encoding)
    (desk.folder / f"{encoding}.json").write_bytes(document)
    (desk.folder / f"{encoding}.jsonl").write_bytes(
        f'{{"word": "1{encoding}"}}\r\n{{"word": "2"}}\r\n'.encode(encoding)
    )
    for number, (payload, came) in enumerate(((f"@{encoding}.json", b""), ("@-", document))):
        done = desk("publish", "word.said", payload, "--id", f"{encoding}-{number}", "--wait", "--json", input=document)
        assert done.code == 0, (came, done)
        assert "Zoë" in done.out
    assert len(desk("publish", "word.said", f"@{encoding}.jsonl", "--json").rows) == 2
    assert (
        len(desk("publish", "word.said", "-", "--json", input='{"word": "3"}\n{"word": "4"}'.encode(encoding)).rows)
        == 2
    )
    assert desk("board", "put", f"names/{encoding}", "-", input=document).code == 0
    assert '"word": "Zoë"' in desk("board", "get", f"names/{encoding}").out


def test_a_file_that_is_not_what_its_mark_says_is_refused_by_name(desk: Cli) -> None:
    (desk.folder / "half.json").write_bytes('{"name": "x"}'.encode("utf-16")[:-1])
    done = desk("publish", "hello", "@half.json")
    assert done.code == 2
    assert done.err.startswith("error: half.json: the text is not utf-16, as its byte order mark says: truncated data")
