"""Screens of every width show everything: each command that prints tables or lines is run at a terminal of its own and
compared with what it prints into a pipe."""

import asyncio
import fcntl
import io
import json
import os
import pty
import random
import re
import shutil
import socket
import struct
import sys
import termios
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.cells import get_character_cell_size

from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import load_topology, topic_specs
from mesh.cli.framework.output import Output
from mesh.core.protocol.record import NewRecord
from tests.cli import fork_server
from tests.cli.commands.test_gc import OldClock
from tests.cli.conftest import DEADLINE_S, PROJECT, Cli, until

ESC = "\x1b"
WIDTHS = (20, 40, 80, 400)
UNKNOWN = ("0", "00", "-5", "wide", "²", "99999999999999999999", "", None)
"""Values of COLUMNS that tell no width."""
SMASHER = "breaker_of_all_that_is_handed_to_it_before_noon"
GREETER = "greeter_of_those_who_come_early_and_stay_long"
SUBJECT = "注文-二〇二六年十一月三十日-東京都千代田区-a-subject-that-is-longer-than-forty"
WHY = "the supplier's 倉庫 does not answer since " + "-".join(f"{n:03}" for n in range(40)) + " and nothing helps"
RUN = "run-of-the-customer-" + "0123456789" * 4
LETTER = "the id of a dead letter"
CHANGING = ("records_per_s", "age_ms", "at", "since", "numbers", "agents", "services")
"""Fields of JSON lines that two calls of a command do not share."""
OPEN = "run-that-waits-for-its-mesh"
BAD = "mesh: {name: desk, prefix: mesh}\ntopics:\n  hellos: {ingress: hello, idd: name}\nagents:\n  a: {on: helo}\n"


async def _leave_old_records(folder: Path) -> None:
    """Records for `mesh gc`."""
    log = SqliteLog(folder / ".mesh" / "mesh.db", clock=OldClock())
    await log.start()
    await log.create_topics(topic_specs(load_topology(str(folder / "topics.yaml"))))
    await log.append([NewRecord("greetings", b"k", b"{}", [])] * 3)
    await log.close()


class Populated(NamedTuple):
    """A mesh that is down again, and the ids that are in it."""

    cli: Cli
    letter: str


@pytest.fixture(scope="module")
def populated(forker: socket.socket, tmp_path_factory: pytest.TempPathFactory) -> Populated:
    home = tmp_path_factory.mktemp("widths")
    shutil.copytree(PROJECT, home / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    cli = Cli(forker, home / "desk", home)
    file = cli.folder / "topics.yaml"
    text = file.read_text().replace("  breaker:", f"  {SMASHER}:").replace("  greeter:", f"  {GREETER}:")
    file.write_text(text)
    (cli.folder / "bad.yaml").write_text(BAD)
    asyncio.run(_leave_old_records(cli.folder))
    with cli.up():
        for arguments in (
            ("hello", json.dumps({"name": SUBJECT})),
            ("break.me", json.dumps({"why": WHY}), "--run-id", RUN),
            ("round.go", "{}", "--run-id", "round-and-round"),
            ("word.said", json.dumps({"word": "言葉" * 60}), "--run-id", "words"),
        ):
            done = cli("publish", *arguments, "--wait")
            assert done.code in (0, 1), done
        assert cli("board", "put", KEY, json.dumps({"倉庫": WHY})).code == 0
        assert cli("stop", "agent", "napper", "--why", WHY).code == 0
        letter = cli("dead", "list", "--agent", SMASHER, "--json").rows[0]["id"]
    assert cli("publish", "nap.taken", "{}", "--run-id", OPEN).code == 0
    return Populated(cli, letter)


KEY = "a/key/that/is/long/" + "k" * 60
COMMANDS = (
    ("run", "list"),
    ("run", "show", RUN),
    ("run", "show", SUBJECT, "-v"),
    ("run", "show", "round-and-round"),
    ("run", "show", OPEN),
    ("run", "show", "no-run-has-this-id-" + "x" * 40),
    ("run", "cancel", "--all"),
    ("dead", "list"),
    ("dead", "show", LETTER),
    ("dead", "redrive"),
    ("agents",),
    ("lag",),
    ("doctor", "--within", "30s"),
    ("top", "--once", "--since", "@1"),
    ("cost", "--since", "@1"),
    ("windows", "--since", "@1"),
    ("windows", SMASHER, "--since", "@1"),
    ("resume",),
    ("topics", "list"),
    ("check",),
    ("check", "--topology", "bad.yaml"),
    ("agents", "--topology", "bad.yaml"),
    ("gc",),
    ("config", "show"),
    ("board", "keys"),
    ("board", "get", KEY),
    ("board", "history", KEY),
    ("verify",),
    ("version",),
    ("list",),
)


class Seen(NamedTuple):
    code: int
    text: str


def at_terminal(
    cli: Cli, *arguments: str, columns: str | None, actual: int = 0, env: dict[str, str] | None = None
) -> Seen:
    """Return the output of both streams at a terminal. `columns`: COLUMNS; `actual`: the reported width, 0 if none."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 0, actual, 0, 0))
    sizes = {} if columns is None else {"COLUMNS": columns, "LINES": columns}
    environ = {**cli.environ, "TERM": "xterm-256color", **sizes, **(env or {})}
    request = {"arguments": arguments, "folder": str(cli.folder), "environ": environ, "deadline_s": DEADLINE_S}
    assert cli.forker is not None
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_all_of, master)
        code = fork_server.ask(cli.forker, request, (slave, slave, slave))
        os.close(slave)
        text = reading.result(DEADLINE_S)
    os.close(master)
    return Seen(code, text)


def _all_of(master: int) -> str:
    chunks: list[bytes] = []
    while True:
        try:
            chunk = os.read(master, 65_536)
        except OSError:  # Linux answers EIO when the other end is closed
            return b"".join(chunks).decode().replace("\r\n", "\n")
        chunks.append(chunk)


def steady(text: str) -> str:
    """Output without what differs between two runs: ages, durations, rates, times of day."""
    return re.sub(r"[\d.,]+ (ms|s|m|h|d)\b( ago)?|[\d,]+ a second|\b\d\d:\d\d:\d\d\b", "", text)


def cells(text: str) -> int:
    """Return the largest width of a line."""
    return sum(map(get_character_cell_size, text))


def squeezed(text: str) -> str:
    """Output without whitespace, so that it does not matter where lines were folded."""
    return "".join(text.split())


def lacking(text: str, whole: str) -> Counter[str]:
    """The characters of `whole` that `text` has not."""
    return Counter(squeezed(steady(whole))) - Counter(squeezed(text))


def settle(cli: Cli, command: tuple[str, ...]) -> None:
    """Wait until what `mesh doctor` finds does not change with the age of the waiting record."""
    if command[0] == "doctor":
        until(lambda: "the oldest for" in cli(*command).out)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_width_shows_everything(populated: Populated, command: tuple[str, ...]) -> None:
    cli, arguments = populated.cli, [populated.letter if word == LETTER else word for word in command]
    settle(cli, command)
    piped = cli(*arguments, env={"COLUMNS": "20"})
    whole = piped.out + piped.err
    assert ESC not in whole
    assert squeezed(whole)
    for width in WIDTHS:
        shown = at_terminal(cli, *arguments, columns=f"{width}", env={"NO_COLOR": "1"})
        assert shown.code == piped.code
        assert ESC not in shown.text
        assert max(map(cells, shown.text.splitlines())) <= width
        assert not lacking(shown.text, whole), width
        if width == min(WIDTHS):  # no table has columns here: each cell is in one piece, but for folds
            told = squeezed(shown.text)
            assert [word for word in steady(whole).split() if word not in told] == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_json_does_not_depend_on_the_width(populated: Populated, command: tuple[str, ...]) -> None:
    cli, arguments = populated.cli, [populated.letter if word == LETTER else word for word in command]
    settle(cli, command)
    piped = cli(*arguments, "--json")
    shown = at_terminal(cli, *arguments, "--json", columns="20")
    assert ESC not in "".join(line for line in shown.text.splitlines() if line.startswith("{"))
    assert rows(shown.text) == rows(piped.out + piped.err) != []


def rows(text: str) -> list[str]:
    """The lines of JSON, in an order that does not depend on which stream was faster."""
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return sorted(json.dumps({k: v for k, v in row.items() if k not in changing(row)}) for row in found)


def changing(row: dict[str, object]) -> tuple[str, ...]:
    """The fields that two calls do not share. A finding of `mesh doctor` has times and free space in its texts."""
    return (*CHANGING, "what", "got") if "level" in row else CHANGING


@pytest.mark.parametrize("columns", UNKNOWN)
def test_a_width_that_is_not_known_is_asked_of_the_terminal_or_80(populated: Populated, columns: str | None) -> None:
    for arguments in (("run", "list"), ("run", "show", RUN)):
        for actual, width in ((0, 80), (120, 120)):
            shown = at_terminal(populated.cli, *arguments, columns=columns, actual=actual)
            text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.text)
            piped = populated.cli(*arguments).out
            assert (shown.code, width - 40 < max(map(cells, text.splitlines())) <= width) == (0, True)
            assert not lacking(text, piped)


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("seed", range(60))
def test_no_cell_of_a_table_is_cut(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(sys, "stdout", out := Tty())
    monkeypatch.setenv("COLUMNS", f"{(width := rng.choice((1, 20, 27, 40, 80, 120, 400)))}")
    right = rng.random() < 0.5
    heads = [f"{'>' * right}H{n}" for n in range(rng.randint(1, 8))]
    table = [[_words(rng) for _ in heads] for _ in range(5)]
    Output(colour=False).table(heads, table)
    lines = out.getvalue().splitlines()
    kept = [n for n in range(len(heads)) if any(row[n] for row in table)]
    names = [heads[n].lstrip(">") for n in kept]
    given = ["".join(squeezed(row[n]) for row in table) for n in kept]
    assert max(map(cells, lines), default=0) <= max(width, 20)
    if lines and lines[0].split() == names:
        assert _columns(lines, names, right=right) == given
    else:
        expected = "".join(names[i] + squeezed(row[n]) for row in table for i, n in enumerate(kept) if row[n])
        assert squeezed("".join(lines)) == expected


def _words(rng: random.Random) -> str:
    letters = ("abc", "123-", "倉庫語", "é\u0301", "👩\u200d🔧🙂")
    return " ".join(
        "".join(rng.choices(rng.choice(letters), k=rng.choice((1, 5, 40)))) for _ in range(rng.randint(0, 4))
    )


def _columns(lines: list[str], names: list[str], *, right: bool) -> list[str]:
    """The text of each column of a table, without its head and without whitespace. `right`: as all are aligned."""
    places = [lines[0].index(name) + right * (len(name) + 1) for name in names]
    found = [""] * len(names)
    for line in lines[1:]:
        for n, char in enumerate(line):
            at = cells(line[:n])
            found[sum(at >= place for place in (places[:-1] if right else places[1:]))] += char.strip()
    return found


def test_results_go_to_a_coloured_pipe_while_the_terminal_shows_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    monkeypatch.setattr(sys, "stderr", Tty())
    monkeypatch.setenv("FORCE_COLOR", "1")
    output, line = Output(), "a result that is longer than a screen " * 5
    with output.status("working"):
        output.print(line)
    assert out.getvalue().split() == line.split()
    assert "\n" not in out.getvalue().strip()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_control_codes_for_what_changes_either(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setattr(sys, "stderr", err := Tty())
    monkeypatch.setenv(name, value)
    output = Output()
    with output.status("working"), output.progress(10) as bar:
        output.update("still working")
        bar.advance(5, "half")
        output.note("a note")
    assert err.getvalue() == "a note\n"
