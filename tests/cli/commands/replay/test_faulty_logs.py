"""Logs that lack or hold something, in each mode: what is missing and where; never a wrong verdict, never a bug."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Log
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import load_topology, topic_specs
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.record import NewRecord, TopicPartition
from tests.cli.commands.test_verify import records, spoil
from tests.cli.conftest import Cli, Done, until

MODES: Mapping[str, tuple[str, ...]] = {
    "print": ("replay", "RUN"),
    "step": ("replay", "RUN", "--break", 'kind == "requested"'),
    "check": ("replay", "RUN", "--check"),
    "what-if": ("replay", "RUN", "--limit", "depth_max=1"),
    "sandbox": ("replay", "RUN", "--run", "--timeout", "500ms"),
    "export": ("run", "export", "RUN"),
    "check all": ("replay", "--check"),
    "what-if all": ("replay", "--limit", "depth_max=1"),
    "agent": ("replay", "--agent", "greeter", "--jobs", "2"),
}
INBOX = "mesh.inbox"
GARBAGE = (b"\xff\xfe\x00", b"", None, b"{}", b"[1,2", b'{"run":1,"ending":2,"took_ms":3}', b"null", b"1e999")
FOREIGN = (("ce_specversion", b"1.0"), ("ce_id", b"x"), ("ce_source", b"/s"), ("ce_type", b"t"), ("ce_time", b"soon"))


@pytest.fixture
def here(troubled: Cli, tmp_path: Path) -> Cli:
    """A copy of the folder, to be spoilt."""
    shutil.copytree(troubled.folder, tmp_path / "desk", ignore=shutil.ignore_patterns("*.wake", "__pycache__"))
    return troubled.at(tmp_path / "desk")


def ask(cli: Cli, mode: str, run: str = "") -> Done:
    done = cli(*(run if word == "RUN" else word for word in MODES[mode]))
    assert "This is a bug" not in done.err, (mode, run, done.err)
    return done


def told(cli: Cli, run: str, answers: Mapping[str, tuple[int, str]]) -> None:
    """Ask in each of these modes; expect an exit code, and a text in the output or on stderr."""
    for mode, (code, text) in answers.items():
        done = ask(cli, mode, run)
        assert (done.code, text in done.out + done.err) == (code, True), (mode, run, done)


async def trim(log: Log, topic: str, left: int = 0) -> None:
    """Remove the first records of each partition, as retention does."""
    for number, bounds in (await log.bounds(topic)).items():
        await log.trim(TopicPartition(topic, number), max(bounds.start, bounds.end - left))


def test_each_mode_answers_for_runs_that_had_trouble(troubled: Cli) -> None:
    """An older topology, a redrive, a cancellation, a pause, and a run that is open."""
    for mode in ("print", "step", "check"):
        for run in ("old", "broken", "large", "odd"):
            assert ask(troubled, mode, run).code == 0, (mode, run)
    assert "limits.deadline is 70000 ms" in ask(troubled, "print", "old").out
    told(troubled, "old", {"what-if": (1, "depth of keeper (new)"), "sandbox": (0, "✓ the same: outcome")})
    told(
        troubled, "broken", {"print": (0, "redriven step 5"), "what-if": (0, "2 same"), "sandbox": (1, "not repeated")}
    )
    told(troubled, "cancelled", {"print": (0, "cancelled step 2"), "what-if": (0, "what if   ○ cancelled")})
    told(troubled, "cancelled", {"sandbox": (1, "not repeated: it was cancelled")})
    told(troubled, "open", {"print": (0, "… open"), "what-if": (0, "? unknown from here"), "check": (0, "✓")})
    told(troubled, "open", {"sandbox": (0, "nothing is compared: the recorded run is open")})
    told(troubled, "open", {"print": (0, "the run was paused: its deadline moved")})
    told(troubled, "", {"check all": (0, "nothing diverges"), "agent": (0, "same")})
    told(troubled, "", {"what-if all": (1, "1 without an outcome: open")})
    (whole,) = troubled("replay", "--with", "topics.yaml", "--json").rows
    assert (whole["runs"], whole["same"], whole["outside"], whole["open"]) == (7, 7, 0, 1)  # `broken` ended twice


def test_a_run_whose_first_records_were_removed_is_not_taken_for_a_whole_one(here: Cli) -> None:
    async def behind_the_request(log: Log) -> None:
        (run,) = {r.key for r in await records(log, INBOX) if b'"name":"ada"' in (r.value or b"")} - {None}
        first = next(r for r in await records(log, INBOX) if r.key == run)
        await log.trim(TopicPartition(INBOX, first.partition), first.offset + 1)

    spoil(here, behind_the_request)
    answers = {"print": (0, "trimmed before step 1"), "step": (0, "trimmed before step 1")}
    answers |= {"check": (0, "not checked: "), "export": (0, "missing: records before")}
    lost = (3, "is not in the recording. It was removed, so the run cannot begin again")
    told(here, "ada", answers | {"what-if": lost, "sandbox": lost})
    told(
        here, "", {"check all": (0, "began before the head"), "agent": (0, "older records were removed from the inbox")}
    )
    told(here, "", {"what-if all": (1, "older records were removed from the inbox")})


def test_an_emptied_inbox_leaves_outcomes_checkpoints_and_no_verdict(here: Cli) -> None:
    spoil(here, lambda log: trim(log, INBOX))
    lost = (3, "is not in the recording. It was removed")
    told(here, "ada", {"print": (0, "0 steps"), "check": (0, "· "), "what-if": lost, "sandbox": lost})
    told(here, "ada", {"export": (0, "missing: no record of the chosen runs is left on the inbox")})
    told(here, "", {"check all": (0, "no decision could be checked"), "what-if all": (0, "no run can be compared")})
    told(here, "", {"agent": (0, "no recorded answers of this agent to compare")})
    spoil(
        here, lambda log: trim(log, "mesh.outcomes")
    )  # then a checkpoint has the open run, and nothing has the others
    told(here, "open", {"print": (0, "the state there is that of a checkpoint"), "what-if": lost, "sandbox": lost})
    gone = (3, "no run goes by 'ada'")
    told(here, "ada", dict.fromkeys(("print", "step", "check", "what-if", "sandbox", "export"), gone))
    assert "older records were removed" in ask(here, "print", "ada").err


def test_outcomes_that_were_removed_are_decided_again(here: Cli) -> None:
    spoil(here, lambda log: trim(log, "mesh.outcomes"))
    told(here, "ada", {"print": (0, "✓ ada"), "what-if": (1, "depth of keeper (new)"), "sandbox": (0, "✓ the same")})
    told(here, "ada", {"check": (0, "records of mesh.outcomes, whose head was removed")})
    told(here, "", {"what-if all": (0, "8 without an outcome: open, or it was removed; they are not compared")})


def test_tasks_that_were_removed_are_counted_and_not_compared(here: Cli) -> None:
    spoil(here, lambda log: trim(log, "mesh.tasks.greeter"))
    told(here, "", {"agent": (0, "2 answers left out: retention removed the record of the task")})
    told(here, "ada", {"sandbox": (0, "✓ the same"), "print": (0, "3 steps"), "check": (0, "whose head was removed")})


def test_records_of_other_software_in_every_topic_change_no_answer(here: Cli) -> None:
    modes = ("print", "step", "what-if", "sandbox", "what-if all", "agent")
    before = {mode: ask(here, mode, "ada") for mode in modes}

    async def intrude(log: Log) -> None:
        run = next(r.key for r in await records(log, INBOX) if b'"old"' in (r.value or b""))
        for topic in await log.topics():
            given = [(key, value, FOREIGN[:n]) for key in (None, run, b"\xff") for value in GARBAGE for n in (0, 4, 5)]
            await log.append([NewRecord(topic, *each) for each in given])
        alien = [("ce_specversion", b"1.0"), ("ce_id", b"y"), ("ce_source", b"/s"), ("ce_type", b"hello")]
        await log.append([NewRecord(topic, b"k", b'{"name":"zoe"}', alien) for topic in ("greetings", INBOX)])

    spoil(here, intrude)
    for mode in modes:
        assert ask(here, mode, "ada").code == before[mode].code, mode
        if mode not in ("sandbox", "agent"):  # those show how long it took
            assert ask(here, mode, "ada").out == before[mode].out, mode
    told(here, "ada", {"check": (0, "nothing diverges"), "export": (0, '"end"')})
    assert ask(here, "check all").code == 1  # what no decision explains is reported
    assert ask(here, "print", "old").out.count("unreadable step") > 0  # records with the key of its run
    for topic in ("mesh.dead", "greetings", INBOX):
        assert here("topics", "read", topic, "--json").rows
    assert here("run", "list").code == 0


class SetClock(SystemClock):
    """A clock that shows the time it is set to."""

    at_ms = 0

    def now_ms(self) -> int:
        return self.at_ms


def test_packed_and_plain_headers_in_one_run_are_the_same_run(here: Cli, tmp_path: Path) -> None:
    """A log with the same records at the same times, every second of them with headers in plain form."""
    copied, clock = tmp_path / "mixed.db", SetClock()
    topology = load_topology(str(here.folder / "topics.yaml"))

    async def copy(log: Log) -> None:
        other = SqliteLog(copied, clock=clock)
        await other.start()
        await other.create_topics(topic_specs(topology))
        for topic in await log.topics():
            if topic != topology.checkpoints:
                for n, one in enumerate(await records(log, topic)):
                    clock.at_ms = max(clock.at_ms if topic == "" else 0, one.timestamp)
                    headers = plain_headers(one.headers) if n % 2 else one.headers
                    await other.append([NewRecord(topic, one.key, one.value, tuple(headers), one.partition)])
        await other.close()

    spoil(here, copy)
    for mode in ("print", "what-if", "step"):
        for run in ("ada", "broken", "old"):
            arguments = [run if word == "RUN" else word for word in MODES[mode]]
            mixed = here(*arguments, "--log", f"sqlite:{copied}", "--json")
            assert mixed.rows == here(*arguments, "--json").rows, (mode, run)
    assert "nothing diverges" in here("replay", "--check", "--log", f"sqlite:{copied}").out
    assert here("replay", "--agent", "greeter", "--log", f"sqlite:{copied}", "--json").rows[-1]["same"] == 2
    assert "✓ the same" in here("replay", "ada", "--run", "--log", f"sqlite:{copied}").out


def test_a_log_that_is_written_meanwhile_gives_the_same_for_old_runs(here: Cli) -> None:
    modes = ("print", "check", "what-if", "export")
    before = {mode: ask(here, mode, "ada").out for mode in ("print", "what-if")}
    lines = "".join(f'{{"name": "n{n}"}}\n' for n in range(100))
    with (
        here.up(env={"MESH_DRAIN_TIMEOUT_MS": "50"}) as running,
        here.background("publish", "hello", "-") as publishing,
    ):
        publishing.write(lines)
        until(lambda: len(here("run", "list", "--limit", "5", "--subject", "n*", "--json").rows) == 5)
        for mode in modes:
            done = ask(here, mode, "ada")
            assert done.code == (1 if mode == "what-if" else 0), done
            assert mode not in before or done.out == before[mode]
        assert ask(here, "check all").code == 0
        assert ask(here, "agent").code == 0
        assert ask(here, "sandbox", "ada").code == 0
        assert "the run was paused: its deadline moved" in ask(here, "print", "open").out
        publishing.close_input()
        publishing.end()
        running.process.terminate()
        running.end()


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"", 3, "the file holds no log of a mesh yet"),
        (b"hello\n" * 1_000, 4, "is not a database"),
        (None, 3, "no mesh here yet"),
    ],
)
def test_what_is_no_log_is_an_error_in_each_mode(here: Cli, content: bytes | None, code: int, said: str) -> None:
    file = here.folder / ".mesh" / "mesh.db"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    for mode in MODES:
        done = ask(here, mode, "ada")
        assert (done.code, done.out) == (code, ""), (mode, done)
        assert said in done.err
