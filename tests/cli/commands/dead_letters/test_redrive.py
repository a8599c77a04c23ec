"""`mesh dead redrive`, `export` and `drop`, as they are typed: a mesh whose agent fails until it is mended."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Terminal, plain, until

TOPICS = """
mesh: {name: shop, prefix: mesh, inbox: {partitions: 2}, limits: {deadline: 60s}}
topics:
  asks: {ingress: ask, id: id, partitions: 2}
  answers: {egress: answer, partitions: 2}
agents:
  price: {run: "shop:price", on: ask, emits: answer, timeout: 5s, retry: {attempts: 2, first: 1ms, max: 2ms}}
"""
AGENTS = """
from pathlib import Path

from mesh import Payload, agent


class Ask(Payload, type="ask"):
    id: str
    n: int = 0


class Answer(Payload, type="answer"):
    id: str
    n: int


@agent
async def price(ask: Ask) -> Answer:
    if ask.n < 100 and not Path("mended").exists():
        raise ValueError(f"no price for {ask.id}")
    with Path("answered").open("a") as file:
        file.write(f"{ask.id}\\n")
    return Answer(id=ask.id, n=ask.n)
"""


class Shop:
    """The command in a folder whose mesh is up, with an agent that fails."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli

    def __call__(self, *arguments: str, **options: Any) -> Any:
        return self.cli("dead", *arguments, **options)

    def failed(self, *ids: str, n: int = 0) -> list[dict[str, Any]]:
        """Runs that ended failed; their letters."""
        lines = "".join(json.dumps({"id": id, "n": n}) + "\n" for id in ids)
        self.cli("publish", "ask", "-", "--wait", input=lines)
        return self.letters()

    def letters(self, *filters: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self("list", "--json", *filters).rows
        return found

    def mend(self) -> None:
        (self.cli.folder / "mended").touch()

    @property
    def answered(self) -> list[str]:
        path = self.cli.folder / "answered"
        return sorted(path.read_text().split()) if path.exists() else []


@pytest.fixture
def shop(forker: socket.socket, tmp_path: Path) -> Iterator[Shop]:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "topics.yaml").write_text(TOPICS)
    (folder / "shop.py").write_text(AGENTS)
    cli = Cli(forker, folder, tmp_path)
    with cli.up():
        yield Shop(cli)


def test_a_run_that_failed_goes_on_after_its_agent_was_fixed(shop: Shop) -> None:
    (row,) = shop.failed("a")
    assert (row["state"], row["redriven"], row["attempts"], row["message"]) == ("new", 0, 2, "no price for a")
    dry = shop("redrive")
    assert (dry.code, plain(dry.err)) == (0, "1 letter would be sent; --yes does it\n")
    assert row["id"][:12] in dry.out
    assert "mesh.inbox" in dry.out
    shop.mend()
    sent = shop("redrive", "--yes", "--wait")
    assert (sent.code, sent.out) == (0, "✓ 1 letter sent\n  completed  1 letter\n")
    again = shop("redrive", row["id"], "--yes")
    assert (again.code, again.out) == (0, "")
    about = f"nothing to do for {row['id'][:12]}: redriven 1×, completed"
    assert again.err == f"{about}; --again --as-new begins a new run\n"
    assert shop.answered == ["a"]
    (on_progress,) = shop.letters()
    assert (on_progress["state"], on_progress["redriven"], on_progress["result"]) == ("done", 1, "completed")
    assert "redriven 1×, completed" in shop("list").out


def test_a_letter_that_another_stands_for_is_not_sent_to_no_effect(shop: Shop) -> None:
    (row,) = shop.failed("a")
    assert shop("redrive", row["id"], "--yes", "--wait").code == 1
    (newest,) = [other for other in shop.letters() if other["state"] == "new"]
    done = shop("redrive", row["id"], "--yes", "--again", "--wait")
    assert done.code == 5
    name = newest["id"][:12]
    assert f"its task was sent again and failed again: letter {name} stands for it now" in done.err
    assert done.err.endswith(f"`mesh dead redrive {name}`, or begin a new run with --as-new\n")
    (dry,) = shop("redrive", row["id"], "--again", "--json").rows
    assert dry["plan"] == "cannot"
    assert [entry["n"] for entry in shop("show", row["id"], "--json").rows[0]["ledger"]] == [1]
    shop.mend()
    assert shop("redrive", row["id"], "--yes", "--again", "--as-new", "--wait").code == 0


def test_a_letter_shows_attempts_ledger_and_what_to_do_next(shop: Shop) -> None:
    (row,) = shop.failed("a")
    shown = shop("show", row["id"][:10])
    for text in ("attempts\n  1  ", "  2  ", "exception: no price for a", "  state     new", "stack\n", "value  "):
        assert text in shown.out, text
    assert shown.err.endswith(f"send it again: mesh dead redrive {row['id'][:12]} --yes\n")
    shop("redrive", "--yes", "--wait")
    (on_progress,) = shop("show", row["id"], "--json").rows
    assert [(a["attempt"], a["code"]) for a in on_progress["history"]] == [(1, "exception"), (2, "exception")]
    assert [(e["n"], e["state"], e["result"]) for e in on_progress["ledger"]] == [(1, "done", "failed")]
    assert on_progress["ledger"][0]["by"].count("@") == 1
    assert on_progress["next"] == "nothing to do: redriven 1×, failed"
    assert "ledger\n" in shop("show", row["id"]).out
    assert "redrive 1: failed, mesh.inbox:" in shop("show", row["id"]).out


def test_a_fourth_time_needs_a_reason(shop: Shop) -> None:
    shop.failed("a")
    for _ in range(3):
        assert shop("redrive", "--yes", "--wait").code == 1, "it ends failed"
    newest = [row for row in shop.letters() if row["state"] == "new"]
    assert [(row["redriven"]) for row in newest] == [3]
    refused = shop("redrive", "--yes")
    assert refused.code == 5
    assert "1 letter cannot be sent, none was" in refused.err
    assert "it was redriven 3 times. Fix the cause; then `--force --why TEXT`" in refused.err
    assert shop("redrive", "--yes", "--force").code == 2
    assert shop("redrive", "--yes", "--why", "x").code == 2
    shop.mend()
    assert shop("redrive", "--yes", "--wait", "--force", "--why", "the price list is back").code == 0
    assert "because: the price list is back" in shop("show", newest[0]["id"]).out


def test_a_payload_is_changed_by_field_or_in_an_editor(shop: Shop) -> None:
    (row,) = shop.failed("a", n=1)
    dry = shop("redrive", "--set", "n=200", "--json").rows
    assert [(step["plan"], step["changed"], step["way"]) for step in dry] == [("send", True, "task")]
    assert shop("redrive", "--set", "n=200", "--yes", "--wait").code == 0
    assert "with another payload" in shop("show", row["id"]).out
    shop.failed("b", n=1)
    editor = {"EDITOR": "sed -i 's/1$/100/'"}
    assert shop("redrive", "--edit", "--yes", "--wait", "--agent", "price", env=editor).code == 2, "two are chosen"
    (b,) = [row for row in shop.letters() if row["state"] == "new"]
    assert shop("redrive", b["id"], "--edit", "--yes", "--wait", env=editor).code == 0
    assert shop.answered == ["a", "b"]
    for broken, code in (("false", 5), ("no-such-editor", 2), ("sed -i s/^/x/", 2)):
        assert shop("redrive", b["id"], "--again", "--edit", env={"EDITOR": broken}).code == code, broken


def test_a_run_may_begin_again(shop: Shop) -> None:
    (row,) = shop.failed("a")
    shop.mend()
    (sent, done) = shop("redrive", "--as-new", "--yes", "--wait", "--json").rows
    assert (sent["way"], sent["state"], done["result"]) == ("new", "sent", "completed")
    assert sent["run"] != row["run"]
    assert f"as run {sent['run'][:12]}" in shop("show", row["id"]).out


def test_a_redrive_that_is_killed_goes_on_with_exactly_the_rest(shop: Shop) -> None:
    ids = [f"o-{n:02}" for n in range(12)]
    shop.failed(*ids)
    shop.mend()
    with shop.cli.background("dead", "redrive", "--agent", "price", "--rate", "8/s", "--yes") as running:
        until(lambda: len(shop.answered) >= 3)
        running.signal(signal.SIGKILL)
        assert running.end().code == -signal.SIGKILL
    assert len(shop.answered) < 12
    dry = shop("redrive", "--agent", "price")
    assert "interrupted" in dry.out
    rest = shop("redrive", "--agent", "price", "--yes", "--wait", "--json")
    assert rest.code == 0
    until(lambda: len(shop.answered) == 12)
    assert shop.answered == ids, "each once"
    assert {row["state"] for row in shop.letters()} <= {"done", "sent"}
    assert shop("redrive", "--agent", "price", "--yes").out == ""
    assert shop.answered == ids


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_redrive_that_is_interrupted_says_how_far_it_came(shop: Shop, number: signal.Signals, code: int) -> None:
    shop.failed(*(f"o-{n:02}" for n in range(8)))
    shop.mend()
    with shop.cli.background("dead", "redrive", "--rate", "4/s", "--yes") as running:
        until(lambda: len(shop.answered) >= 1)
        running.signal(number)
        done = running.end()
    assert done.code == code
    assert " of 8 sent; the same command sends exactly the rest\n" in done.err
    assert shop("redrive", "--yes", "--wait").code == 0
    assert len(shop.answered) == 8


def test_a_terminal_shows_how_far_it_is(shop: Shop) -> None:
    shop.failed("a", "b", "c", "d")
    shop.mend()
    with Terminal(shop.cli, "dead", "redrive", "--rate", "8/s", "--yes", "--wait") as terminal:
        terminal.until(" of 4 sent")
        done = terminal.end()
    assert done.code == 0
    assert "4 letters sent" in done.out


def test_what_is_exported_comes_back_from_a_file_or_a_pipe(shop: Shop) -> None:
    shop.failed("a", "b", n=1)
    exported = shop("export", "--agent", "price")
    lines = sorted(exported.rows, key=lambda line: line["payload"])  # both may be of the same millisecond
    assert ([line["payload"] for line in lines], exported.err) == (
        ['{"id": "a", "n": 1}', '{"id": "b", "n": 1}'],
        "2 letters exported\n",
    )
    lines[0]["payload"] = '{"id": "a", "n": 100}'
    (shop.cli.folder / "letters.jsonl").write_text(json.dumps(lines[0]) + "\n")
    assert shop("redrive", "--from", "letters.jsonl", "--yes", "--wait").code == 0
    assert shop.answered == ["a"]
    assert "nothing to do" in shop("redrive", "--from", "letters.jsonl", "--yes").err
    shop.mend()
    assert shop("redrive", "--from", "-", "--yes", "--wait", input=json.dumps(lines[1])).code == 0
    assert shop.answered == ["a", "b"]
    bad = shop("redrive", "--from", "-", input=json.dumps(lines[1]) + "\n{}")
    assert (bad.code, "-:2: invalid letter" in bad.err) == (2, True)
    assert shop("redrive", "x", "--from", "-").code == 2


def test_dropped_letters_vanish_from_the_list(shop: Shop) -> None:
    shop.failed("a", "b", n=3)
    dry = shop("drop", "--where", 'id == "a"')
    assert dry.err == "1 letter would be dropped; --yes does it\n"
    assert len(shop.letters()) == 2
    dropped = shop("drop", "--where", 'id == "a"', "--why", "test data", "--yes")
    assert (dropped.code, dropped.out) == (0, "✓ 1 letter dropped\n")
    (left,) = shop.letters()
    (gone,) = [row for row in shop.letters("--all") if row["state"] == "dropped"]
    assert left["id"] != gone["id"]
    assert "dropped, because: test data" in shop("show", gone["id"]).out
    assert [step["plan"] for step in shop("redrive", "--json").rows] == ["send", "nothing"]
    assert "Nothing to drop" in shop("drop", gone["id"], "--yes").err
    assert len(shop("export").rows) == 1


def test_letters_of_another_system_are_shown_and_sent(shop: Shop) -> None:
    """A Spring dead letter topic, as far as the embedded log can hold one: exported, changed, and taken from a file."""
    assert shop.failed("a", n=100) == []
    (row,) = shop.failed("b")
    (line,) = shop("export").rows
    headers = [
        {"name": "kafka_dlt-original-topic", "value": "asks"},
        {"name": "kafka_dlt-exception-fqcn", "value": "org.example.Broken"},
    ]
    given = json.dumps({**line, "topic": "asks.DLT", "headers": headers, "payload": '{"id": "c", "n": 100}'})
    (step,) = shop("redrive", "--from", "-", "--json", input=given).rows
    assert (step["plan"], step["way"], step["topic"], step["reason"]) == ("send", "topic", "asks", "Broken")
    assert shop("redrive", "--from", "-", "--yes", "--wait", input=given).code == 0
    assert shop.answered == ["a", "c"]
    assert row["written_by"] == "mesh"
    shown = shop("show", row["id"], "--topic", "mesh.dead")
    assert shown.err.endswith(f"mesh dead redrive {row['id'][:12]} --topic mesh.dead --yes\n")


def test_wrong_arguments_are_reported_by_name(shop: Shop) -> None:
    shop.failed("a")
    for arguments, text in (
        (["redrive", "--rate", "fast"], "--rate: invalid rate"),
        (["redrive", "--rate", "0/s"], "--rate: invalid rate"),
        (["redrive", "--rate", "9" * 400], "--rate: invalid rate"),
        (["redrive", "--set", "n"], "--set: invalid change of a field"),
        (["redrive", "--set", "id.x=1"], "--set id.x"),
        (["list", "--since", "soon"], "--since"),
        (["list", "--until", "2026-11-31T12:00"], "--until: this is not a time"),
        (["list", "--where", "n <"], "--where, column 4: it ends too early; expected "),
        (["redrive", "--timeout", "soon"], "--timeout"),
    ):
        done = shop(*arguments)
        assert (done.code, text in done.err) == (2, True), (arguments, done)
    assert shop("redrive", "nope").code == 3
    assert shop("list", "--topic", "nope").code == 3
    assert shop("list", "--since", "2026-11-20T12:00:00Z", "--until", "9999-01-01T00:00:00Z").out != ""
    assert shop("list", "--until", "1h").err == "No dead letters.\n"


def test_a_file_that_is_not_there_is_reported_with_what_the_option_takes(shop: Shop) -> None:
    done = shop("redrive", "--from", "/nope")
    assert done.code == 3
    assert "after --from, or - for standard input" in done.err
    assert "@FILE" not in done.err


def test_a_filter_with_an_unknown_name_is_reported(shop: Shop) -> None:
    shop.failed("a")
    for arguments, note in (
        (["list", "--agent", "pricee"], "note no agent is called 'pricee'. Did you mean 'price'?"),
        (["list", "--agent", "x"], "note no agent is called 'x'. `mesh dead list` without --agent shows what there is"),
        (["list", "--reason", "exceptoin"], "note there is no reason 'exceptoin'. Did you mean 'exception'?"),
        (["export", "--type", "asks"], "note there is no type 'asks'. Did you mean 'ask'?"),
        (["drop", "--agent", "pricee"], "Did you mean 'price'?"),
        (["redrive", "--agent", "pricee"], "Did you mean 'price'?"),
    ):
        done = shop(*arguments)
        assert (done.code, done.out, note in done.err) == (0, "", True), (arguments, done)
    for known in (["--reason", "timed_out"], ["--agent", "price", "--until", "1h"]):
        assert shop("list", *known).err == "No dead letters.\n"
    topics = shop.cli.folder / "topics.yaml"
    topics.write_text(topics.read_text().replace("price:", "cost:"))
    assert shop("list", "--agent", "price", "--until", "1h").err == "No dead letters.\n", "letters have that name"


def test_with_nothing_to_send_nothing_is_said_to_be_sent(shop: Shop) -> None:
    done = shop("redrive", "--yes")
    assert (done.code, done.out, done.err) == (0, "", "No such dead letters: nothing to send.\n")
    assert (shop("redrive", "--json").out, shop("drop").code) == ("", 0)
