"""The command line as a whole: help, usage, errors, exit codes, pipes, start-up."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.cli.app import COMMANDS
from mesh.cli.framework.options import COMMON
from tests.cli.conftest import COMMAND, Cli
from tests.command_line import parses

GROUPS = {
    "run": ("list", "show", "watch", "cancel", "pause", "resume"),
    "topics": ("list", "check", "create"),
    "dead": ("list", "show"),
    "board": ("keys", "get", "put", "history", "watch"),
    "config": ("show",),
    "export": ("k8s", "keda"),
}
LEAVES = [(noun, verb) for noun, verbs in GROUPS.items() for verb in verbs] + [
    (noun,) for noun in COMMANDS if noun not in GROUPS
]


@pytest.mark.parametrize("command", LEAVES, ids=" ".join)
def test_every_help_ends_with_an_example_that_parses(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert parses([*command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Example: " in text
    for option in COMMON:
        assert f"--{option.name.replace('_', '-')}" in text


def test_the_help_of_the_whole_names_every_noun(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    assert all(f"\n  {noun} " in done.out for noun in COMMANDS)
    assert "Example:  mesh demo" in done.out
    bare = cli()
    assert bare.code == 2
    assert "Usage: mesh" in bare.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("rum",), "No such command 'rum'. Did you mean 'run'?"),
        (("run", "lst"), "No such command 'lst'. Did you mean 'list'?"),
        (("run", "list", "--limit", "many"), "--limit"),
        (("run", "show"), "Missing argument"),
        (("topics", "list", "--jsn"), "--json"),
    ],
)
def test_usage_errors_are_exit_code_2_on_stderr(cli: Cli, arguments: tuple[str, ...], told: str) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert told in done.err
    assert "--help` shows how" in done.err


def test_errors_are_json_objects_on_stderr_with_json(cli: Cli) -> None:
    for arguments, code, name in (
        (("--json", "run", "list"), 3, "not_found"),
        (("run", "list", "--json", "--limit", "0"), 2, "usage"),
        (("check", "--json"), 2, "config_invalid"),
    ):
        done = cli(*arguments)
        assert done.code == code
        assert done.out == ""
        error = json.loads(done.err)["error"]
        assert (error["code"], error["exit_code"]) == (name, code)
        assert error["what"]


def test_options_may_stand_before_the_noun_and_behind_it(project: Cli) -> None:
    project("topics", "create")
    assert project("--json", "topics", "check").rows == project("topics", "check", "--json").rows


def test_quiet_leaves_only_results(project: Cli) -> None:
    done = project("topics", "create", "-q")
    assert done.err == ""
    assert done.out


def test_an_unforeseen_error_is_one_line_and_its_stack_only_with_vv(project: Cli) -> None:
    bad = {"PYTHONPATH": os.pathsep.join((str(project.folder), project.environ["PYTHONPATH"]))}
    (project.folder / "getpass.py").write_text("def getuser():\n    raise RuntimeError('no \\x1b[31muser')\n")
    done = project.fresh("board", "put", "a", "1", env=bad)
    assert done.code == 1
    assert done.err == (
        "error: RuntimeError: no \\x1b[31muser. This is a bug: "
        "please report it with the output of the same command with -vv\n"
    )
    assert "Traceback" in project.fresh("board", "put", "a", "1", "-vv", env=bad).err


def test_a_reader_that_goes_away_is_no_error(desk: Cli) -> None:
    for n in range(2):
        desk("publish", "hello", "-", input="".join(f'{{"name": "pipe-{n}-{i}"}}\n' for i in range(1_000)))
    with subprocess.Popen(
        [*COMMAND, "run", "list", "--limit", "2000", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=desk.folder,
        env=desk.environ,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(30) == 141
    assert err == b""


def test_closed_and_full_outputs_are_no_bugs(desk: Cli) -> None:
    for redirect, code in ((">&-", 0), ("2>&-", 0), ("<&-", 0), (">/dev/full", 1)):
        line = f"{' '.join(COMMAND)} topics list {redirect}"
        done = subprocess.run(["sh", "-c", line], cwd=desk.folder, env=desk.environ, capture_output=True, check=False)
        assert (done.returncode, b"bug" in done.stderr) == (code, False), (redirect, done)


def test_ctrl_c_of_a_command_that_watches_is_exit_code_130(desk: Cli) -> None:
    with desk.background("run", "watch") as watching:
        watching.err_until("watching for runs")
        watching.process.send_signal(2)
        done = watching.end()
    assert done.code == 130
    assert "Traceback" not in done.err


def test_ctrl_c_while_python_still_imports_is_quiet_and_exit_code_130(project: Cli) -> None:
    (project.folder / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    shadowed = {"PYTHONPATH": os.pathsep.join((str(project.folder), project.environ["PYTHONPATH"]))}
    done = project.fresh("version", env=shadowed)
    assert (done.code, done.out, done.err) == (130, "", "")


def test_importing_the_package_and_asking_for_its_version_is_cheap() -> None:
    """Measured in CPU time, so that a busy machine does not matter; the best of three."""
    root = Path(__file__).parents[2]
    assert _cpu_s([sys.executable, "-c", "import mesh"], root) <= 0.2
    assert _cpu_s([*COMMAND, "--version"], root) <= 0.4


def _cpu_s(command: list[str], folder: Path) -> float:
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def test_a_service_is_imported_without_what_it_does_not_use() -> None:
    code = "import mesh.app.process, sys; print(sorted({'redis', 'aiokafka', 'opentelemetry.sdk'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_faust_is_imported_only_by_a_monitor_on_kafka() -> None:
    code = "import sys, mesh.cli.app, mesh.cli.commands.up, mesh.app.process; sys.exit('faust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
