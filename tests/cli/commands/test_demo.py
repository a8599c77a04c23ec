"""`mesh demo`: the first thing a stranger types."""

import json
import re
import shlex
import signal
from pathlib import Path

from tests.cli.conftest import Cli, Terminal, plain


def test_once_shows_every_run_and_sums_up(cli: Cli) -> None:
    done = cli("demo", "--once")
    assert done.code == 0, done.err
    trees, summary = plain(done.out).split("\nsummary\n")
    assert "✓ order-0001  order.placed  completed TIME  run RUN\n" in trees
    assert "└─ fulfilment" in trees
    assert "issues/opened  github.webhook  completed" in trees
    assert re.search(r"  runs   38 of 38 events: 38 completed\n  tasks  \d+\n", summary)
    assert "first outcome after" in summary
    (first_s,) = re.findall(r"first outcome after ([\d.]+) s", done.out)
    assert float(first_s) <= 3
    folder = _folder(done.out)
    assert folder.parent == Path(cli.environ["XDG_DATA_HOME"]) / "mesh"
    assert {oct(path.stat().st_mode & 0o777) for path in (folder, folder.parent)} == {"0o700"}
    there = cli.at(folder)
    typed = [line.split("  ")[1] for line in done.out.split("look around\n")[1].splitlines()[1:]]
    assert typed == ["mesh run list", typed[1], "mesh top", "mesh board keys", "mesh up"]
    assert there(*typed[1].split()[1:]).code == 0
    assert there("board", "keys").out
    rows = there("run", "list", "--limit", "100", "--json").rows
    assert len(rows) == 38
    assert {row["state"] for row in rows} == {"completed"}


def test_json_is_one_line_a_run_and_a_summary(cli: Cli) -> None:
    done = cli("demo", "--json")  # stdout is no terminal: it ends by itself
    assert done.code == 0
    *runs, summary = done.rows
    assert {run["event"] for run in runs} == {"ended"}
    assert len(runs) == summary["runs"] == 38
    assert summary["endings"] == {"completed": 38}
    assert summary["took_ms"]["p50"] <= summary["took_ms"]["p99"]


def test_at_a_terminal_it_stays_until_ctrl_c(cli: Cli) -> None:
    with Terminal(cli, "demo", columns=300) as terminal:
        shown = terminal.until("Still running")
        assert "\x1b[" in shown
        there = cli.at(_folder(plain(shown)))
        published = there("publish", "order.placed", '{"order_id": "late-1", "lines": []}', "--wait", "--json")
        terminal.until("late-1")
        terminal.process.send_signal(signal.SIGINT)
        done = terminal.end()
    assert json.loads(published.out)["ending"] == "completed"
    assert done.code == 130
    assert "draining" in done.out


def test_stopped_on_its_way_it_sums_up_and_does_not_stay(cli: Cli) -> None:
    with Terminal(cli, "demo") as terminal:
        terminal.until("order-0001")
        terminal.process.send_signal(signal.SIGINT)
        done = terminal.end()
    assert done.code == 130
    assert "of 38 events" in plain(done.out)
    assert "Still running" not in done.out


def test_its_folder_can_be_copied_from_a_narrow_terminal(cli: Cli) -> None:
    home = Path(cli.environ["HOME"]) / ("a folder with a long name " * 4).strip()
    with Terminal(cli, "demo", "--once", columns=60, env={"XDG_DATA_HOME": str(home)}) as terminal:
        shown = plain(terminal.end().out)
    (line,) = [line for line in shown.splitlines() if line.startswith("  cd ")]
    command, folder = shlex.split(line)
    assert command == "cd"
    assert Path(folder).parent == home / "mesh"
    assert Path(folder).is_dir()


def _folder(text: str) -> Path:
    return Path(re.findall(r"  cd (\S+)", text)[0])
