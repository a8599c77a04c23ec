"""`mesh init`: the walk of a newcomer, from an empty folder to an answered event, with the real commands."""

import subprocess
import sys
import time

from tests.cli.conftest import Cli

FILES = {"topics.yaml", "tickets.py", "test_tickets.py", "requirements.txt", "Dockerfile", ".gitignore"}
WALK_S = 120
TICKET = '{"id": "t-1", "text": "My invoice is wrong"}'


def test_the_walk_from_an_empty_folder_takes_less_than_two_minutes(cli: Cli) -> None:
    began = time.monotonic()
    done = cli.fresh("init")
    assert done.code == 0
    assert {path.name for path in cli.folder.iterdir()} == FILES
    assert "mesh publish ticket.opened" in done.err
    assert cli("check").out.startswith("✓ topics.yaml: 2 agents, 1 type in, 1 out")
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=cli.folder,
        env=cli.environ,
        capture_output=True,
        text=True,
        timeout=WALK_S,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "1 passed" in tested.stdout
    with cli.up():
        published = cli("publish", "ticket.opened", TICKET, "--wait")
        assert published.code == 0
        assert "billing" in published.out
        assert "ticket.answered" in cli("run", "show", "t-1").out
    assert time.monotonic() - began < WALK_S


def test_types_need_not_be_written_twice(cli: Cli) -> None:
    assert cli("init").code == 0
    path = cli.folder / "topics.yaml"
    whole = path.read_text()
    path.write_text("".join(line for line in whole.splitlines(True) if not line.lstrip().startswith(("on:", "emits:"))))
    assert cli("check").code == 1
    done = cli("check", "--fix")
    assert done.code == 0
    assert [line for line in done.out.splitlines() if line.startswith("fixed ")] == [
        "fixed topics.yaml:15: triage: on: ticket.opened",
        "fixed topics.yaml:16: triage: emits: ticket.triaged",
        "fixed topics.yaml:20: answer: on: ticket.triaged",
        "fixed topics.yaml:21: answer: emits: ticket.answered",
    ]
    assert path.read_text() == whole
    again = cli("check", "--fix")
    assert (again.code, again.err) == (0, "Nothing to fix.\n")
    assert path.read_text() == whole


def test_lines_keep_their_ends(cli: Cli) -> None:
    assert cli("init").code == 0
    path = cli.folder / "topics.yaml"
    whole = path.read_bytes().replace(b"\n", b"\r\n")
    path.write_bytes(whole.replace(b"    emits: ticket.triaged\r\n", b""))
    (row,) = cli("check", "--fix", "--json").rows
    assert [change["key"] for change in row["fixed"]] == ["emits"]
    assert path.read_bytes() == whole


def test_no_file_is_overwritten(cli: Cli) -> None:
    (cli.folder / "Dockerfile").write_text("FROM mine\n")
    done = cli("init")
    assert done.code == 5
    assert "files exist already: Dockerfile; nothing was written" in done.err
    assert [path.name for path in cli.folder.iterdir()] == ["Dockerfile"]


def test_a_folder_that_is_missing_is_made(cli: Cli) -> None:
    (row,) = cli("init", "My Desk", "--json").rows
    assert set(row["files"]) == FILES
    assert "name: my-desk\n" in (cli.folder / "My Desk" / "topics.yaml").read_text()
    assert cli("init", "My Desk/topics.yaml").code == 2


def test_types_that_a_signature_does_not_give_are_named(cli: Cli) -> None:
    assert cli("init").code == 0
    (cli.folder / "tickets.py").write_text(
        "async def triage(ticket: dict) -> dict: ...\n\n\nasync def answer(ticket: dict): ...\n"
    )
    path = cli.folder / "topics.yaml"
    path.write_text(path.read_text().replace("    on: ticket.opened\n", ""))
    done = cli("check", "--fix")
    assert done.code == 1
    assert "left topics.yaml:13: triage: on: its parameters name no event type" in done.out
    assert "missing key `on`" in done.out
