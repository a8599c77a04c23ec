"""`mesh replay --resend`, as it is typed: into the same mesh, into another one, from a file, and killed on the way."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, until


@pytest.fixture
def desk(lived: Cli, tmp_path: Path) -> Cli:
    """A copy of the folder in which a mesh has run: two greetings, a failure and a refusal."""
    shutil.copytree(lived.folder, tmp_path / "desk")
    return lived.at(tmp_path / "desk")


def on_topics(cli: Cli, *topics: str, log: str = "") -> list[str]:
    """Ids of the events on ingress topics that a resend put there."""
    done = cli("topics", "read", *topics, "--json", *(("--log", log) if log else ()))
    assert done.code == 0, done.err
    return [row["id"] for row in done.rows if "mesh-replay" in row.get("headers", ())]


def test_without_yes_it_shows_what_would_be_sent_and_sends_nothing(desk: Cli) -> None:
    done = desk("replay", "--resend")
    assert (done.code, "would be sent" in done.out) == (0, True)
    assert "4 requests would be sent; --yes does it" in done.err
    for word in ("SUBJECT", "NEW RUN", "ada", "hellos", "rounds"):
        assert word in done.out
    rows = desk("replay", "--resend", "--json").rows
    assert [row["plan"] for row in rows] == ["send"] * 4
    assert len({row["new_run"] for row in rows} | {row["run"] for row in rows}) == 8
    assert on_topics(desk, "hellos", "breaks", "rounds") == []


def test_the_times_it_names_choose_the_same_requests(desk: Cli) -> None:
    first = desk("replay", "--resend", "--type", "hello")
    span = first.err.partition("exactly these: ")[2].split()
    assert span[::2] == ["--since", "--until"]
    again = desk("replay", "--resend", *span, "--json").rows
    assert [row["type"] for row in again] == ["hello", "hello"]


def test_requests_run_again_once_with_new_ids(desk: Cli) -> None:
    done = desk("replay", "ada", "--resend", "--yes")
    assert (done.code, done.out) == (0, "✓ 1 request sent\n")
    run = done.err.rpartition(" ")[2].strip()
    assert len(on_topics(desk, "hellos")) == 1
    with desk.up():
        until(lambda: desk("run", "show", run, "--json").rows[0]["state"] == "completed")
    run, first = [row["run"] for row in desk("run", "list", "--json").rows if row["subject"] == "ada"]
    done = desk("replay", "ada", "--check")
    assert done.code == 2
    head, *lines = done.err.splitlines()
    assert head.startswith("error: ada: 2 runs go by that name; expected one run")
    assert lines[0].endswith(f"  hello  completed  resend of {first[:12]}")
    assert lines[2].endswith("  hello  completed")
    assert [line.strip() for line in lines[1::2]] == [f"mesh replay {id} --check" for id in (run, first)]
    assert desk(*lines[1].split()[1:]).code == 0
    (error,) = [json.loads(line)["error"] for line in desk("run", "show", "ada", "--json").err.splitlines()]
    assert [(one["run"], one["resend_of"]) for one in error["candidates"]] == [(run, first), (first, "")]
    assert error["candidates"][0]["command"] == f"mesh run show {run} --json"
    again = desk("replay", "--resend", "--where", 'hello.name == "ada"', "--yes")
    assert (again.code, again.out) == (0, "")
    assert "nothing to do for the request of run" in again.err
    assert "1 request left out: a resend made them" in again.err
    assert len(on_topics(desk, "hellos")) == 1
    assert desk("replay", "--resend", "--type", "hello", "--again", "--yes").out == "✓ 2 requests sent\n"
    assert len(on_topics(desk, "hellos")) == 3
    assert desk("verify").code == 0


@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_resend_that_is_killed_goes_on_with_exactly_the_rest(desk: Cli, number: int) -> None:
    lines = "".join(json.dumps({"name": f"n{n:02}"}) + "\n" for n in range(8))
    assert desk("publish", "hello", "-", input=lines).code == 0
    with desk.background("replay", "--resend", "--type", "hello", "--rate", "8/s", "--yes") as running:
        until(lambda: len(on_topics(desk, "hellos")) >= number)
        running.signal(signal.SIGKILL)
        assert running.end().code == -signal.SIGKILL
    part = on_topics(desk, "hellos")
    assert number <= len(part) < 10
    dry = desk("replay", "--resend", "--type", "hello")
    assert "interrupted" in dry.out
    assert "10 requests" not in dry.err
    other = desk("replay", "--resend", "--type", "round.go")
    assert "of an interrupted resend are not among these" in other.err
    rest = desk("replay", "--resend", "--type", "hello", "--yes", "--json")
    assert rest.code == 0
    assert {row["state"] for row in rest.rows} == {"sent"}
    sent = on_topics(desk, "hellos")
    assert len(sent) == len(set(sent)) == 10
    assert desk("replay", "--resend", "--type", "hello", "--yes").out == ""
    assert on_topics(desk, "hellos") == sent


def test_an_interrupted_resend_says_how_far_it_came(desk: Cli) -> None:
    with desk.background("replay", "--resend", "--rate", "1/s", "--yes") as running:
        until(lambda: len(on_topics(desk, "hellos", "breaks", "rounds")) >= 1)
        running.signal(signal.SIGINT)
        done = running.end()
    assert done.code == 130
    assert " of 4 sent; the same command sends exactly the rest\n" in done.err


def test_requests_go_into_another_mesh_and_may_keep_their_ids(desk: Cli, tmp_path: Path) -> None:
    log = f"sqlite:{tmp_path / 'other.db'}"
    assert "no mesh here yet" in desk("replay", "--resend", "--to-log", log).err
    assert desk("topics", "create", "--log", log).code == 0
    done = desk("replay", "ada", "--resend", "--to-log", log, "--keep-ids", "--yes")
    assert done.code == 0, done.err
    assert on_topics(desk, "hellos", log=log) == ["ada"]
    assert on_topics(desk, "hellos") == []
    run = desk("replay", "ada", "--resend", "--json").rows[0]["run"]
    assert desk("replay", "ada", "--resend", "--to-log", log, "--keep-ids").err.count("sent before") == 1
    with desk.up("--log", log):
        until(lambda: desk("run", "show", run, "--log", log).code == 0)


def test_another_prefix_on_the_same_log_is_another_mesh(desk: Cli, tmp_path: Path) -> None:
    text = (desk.folder / "topics.yaml").read_text()
    other = text.replace("name: desk\n  prefix: mesh", "name: twin\n  prefix: twin")
    assert other != text
    (tmp_path / "twin.yaml").write_text(other.replace("  hellos:", "  hellos2:"))
    twin = ("--to-topology", str(tmp_path / "twin.yaml"))
    assert desk("topics", "create", "--topology", twin[1]).code == 0
    done = desk("replay", "--resend", *twin, "--type", "hello", "--keep-ids", "--yes")
    assert (done.code, done.out) == (0, "✓ 2 requests sent\n")
    assert done.err == ""
    assert sorted(on_topics(desk, "hellos2")) == ["ada", "bob"]
    both = "mesh desk reads breaks, rounds, too: requests sent there begin runs in both"
    assert both in desk("replay", "--resend", *twin).err


def test_a_recording_is_sent_as_its_log_is(desk: Cli) -> None:
    (desk.folder / "all.jsonl").write_text(desk("run", "export", "--since", "30d").out)
    assert desk("replay", "ada", "--resend", "--yes").code == 0
    done = desk("replay", "all.jsonl", "--resend", "--type", "hello", "--yes")
    assert (done.code, done.out) == (0, "✓ 1 request sent\n"), done.err
    assert len(on_topics(desk, "hellos")) == 2
    again = desk("replay", "all.jsonl", "--resend", "--again", "--type", "hello")
    assert "exactly these" not in again.err, "a file stays as it is"
    assert "sent before" in desk("replay", "all.jsonl", "--resend", "--type", "hello").err
    kept = desk("replay", "all.jsonl", "--resend", "--keep-ids")
    assert (kept.code, "a mesh takes a request with the same id for the same request" in kept.err) == (2, True)


def test_masked_payloads_are_not_sent(desk: Cli) -> None:
    (desk.folder / "masked.jsonl").write_text(desk("run", "export", "ada", "--redact", "name").out)
    dry = desk("replay", "masked.jsonl", "--resend")
    assert dry.code == 1
    assert "1 request, such as that of run" in dry.out
    assert "a value of its payload was masked in the recording. Name the log in place of it" in dry.out
    done = desk("replay", "masked.jsonl", "--resend", "--yes")
    assert (done.code, done.out) == (1, dry.out)
    assert "no request was sent" in done.err
    assert on_topics(desk, "hellos") == []


def test_a_payload_that_an_older_export_cut_is_not_sent(desk: Cli) -> None:
    whole = desk("run", "export", "ada", "--redact", "name").out
    (desk.folder / "cut.jsonl").write_text(whole.replace('"***"', '"ada… [cut: 935,488 characters]"'))
    done = desk("replay", "cut.jsonl", "--resend", "--yes")
    assert done.code == 1
    assert "a value of its payload was masked" in done.out
    assert "no request was sent" in done.err
    assert on_topics(desk, "hellos") == []


def test_what_cannot_be_sent_is_listed_and_the_rest_is_sent(desk: Cli) -> None:
    assert desk("replay", "--resend", "--into", "hellos").code == 1
    done = desk("replay", "--resend", "--into", "hellos", "--yes", "--json")
    assert done.code == 1
    cannot = [row["message"] for row in done.rows if row.get("plan") == "cannot"]
    comes_in = ("break.me comes in by topic breaks", "round.go comes in by topic rounds")
    assert cannot == [f"{text}, not by hellos" for text in comes_in]
    assert len(on_topics(desk, "hellos", "breaks", "rounds")) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--resend", "--into", "helloes"), "Did you mean 'hellos'?"),
        (("--resend", "--into", "greetings"), "mesh desk has no ingress topic 'greetings'"),
        (("--resend", "--keep-ids"), "a mesh takes a request with the same id for the same request"),
        (("--resend", "--rate", "0"), "expected requests a second such as 10/s"),
        (("--resend", "--limit", "none"), "this is no number of requests"),
        (("--resend", "--limit", "100001"), "expected 1 to 100,000"),
        (("--resend", "--limit", "1", "--limit", "2"), "one number of requests at a time"),
        (("--resend", "--where", "a =="), "--where"),
        (("--resend", "--to-log", "recording:x.jsonl"), "a recording takes no requests"),
        (("--resend", "--to-topology", "nowhere.yaml"), "there is no such file"),
        (("--resend", "--check"), "these are two modes"),
        (("--resend", "--jobs", "2"), "--jobs goes with --agent"),
        (("--check", "--type", "hello"), "--type goes with --resend"),
        (("ada", "--since", "1h", "--resend"), "one run has no time span"),
        (("ada", "--yes"), "--yes goes with --resend"),
        (("nope", "--resend"), "no run goes by 'nope'"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_says_why(lived: Cli, arguments: tuple[str, ...], said: str) -> None:
    done = lived("replay", *arguments)
    assert done.code in (2, 3), done
    assert said in done.err
    assert done.out == ""


def test_nothing_to_send_is_said(lived: Cli) -> None:
    done = lived("replay", "--resend", "--type", "word.said")
    assert (done.code, done.out) == (0, "")
    assert "No such requests on sqlite:" in done.err
