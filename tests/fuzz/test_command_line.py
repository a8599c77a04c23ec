"""Whatever is typed is answered with an exit code of the table and a line; never with a traceback."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.app import NOUNS, execute
from tests.fuzz.material import bodies, fuzz

PROJECT = Path(__file__).parents[1] / "cli/project"
CODES = {0, 1, 2, 3, 4, 5, 6}
RUNS_ON = {"up", "demo", "bench"}
"""What goes on, or measures for minutes and writes over the results that are kept."""
QUICK = sorted(set(NOUNS) - RUNS_ON)
WORDS = st.one_of(
    st.sampled_from(QUICK),
    st.sampled_from(["list", "show", "check", "redrive", "drop", "export", "get", "put", "history", "cancel", "pause"]),
    st.sampled_from(["--json", "-q", "-vv", "--limit", "--since", "--state", "--run", "--log", "--", "-h"]),
    st.sampled_from(["-1", "10m", "0", "1e9", "sqlite:x.db", "topics.yaml", "a/../b", "*", "{}", "@nowhere"]),
    st.text(max_size=8).filter(lambda text: "\x00" not in text),
)


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a mesh that is not up, in which all of this is typed."""
    folder = tmp_path_factory.mktemp("typed") / "desk"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = Path.cwd()
    environ = dict(os.environ)
    os.environ.update(XDG_CONFIG_HOME=str(folder / "config"), XDG_DATA_HOME=str(folder / "data"), NO_COLOR="1")
    os.chdir(folder)
    try:
        assert typed("topics", "create")[0] == 0
        yield folder
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environ)


def typed(*arguments: str) -> tuple[int, str, str]:
    """Exit code and output of one command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = execute(list(arguments))
    return code, out.getvalue(), err.getvalue()


def is_answered(arguments: tuple[str, ...], code: int, out: str, err: str) -> None:
    assert code in CODES, (arguments, code)
    assert "Traceback" not in err, (arguments, err)
    assert "This is a bug" not in err, (arguments, err)
    assert '"code":"bug"' not in err, (arguments, err)
    if code not in (0, 1):
        assert err, arguments
    asked = any(word == "--json" and not before.startswith("-") for before, word in pairwise(("mesh", *arguments)))
    if code == 0 and asked and "-h" not in arguments:  # behind an option, it may be the value of that one
        for line in out.splitlines():
            json.loads(line)


@fuzz
@given(st.lists(WORDS, max_size=6).map(tuple))
def test_any_words_are_answered(arguments: tuple[str, ...]) -> None:
    if RUNS_ON.isdisjoint(arguments) and "-" not in arguments:
        is_answered(arguments, *typed(*arguments))


@fuzz
@given(st.sampled_from(QUICK), st.lists(WORDS, max_size=4).map(tuple))
def test_any_words_after_a_noun_are_answered(noun: str, rest: tuple[str, ...]) -> None:
    if RUNS_ON.isdisjoint(rest) and "-" not in rest:
        is_answered((noun, *rest), *typed(noun, *rest))


@fuzz
@given(st.sampled_from(["hello", "word.said", "nothing", ""]), bodies, st.sampled_from(["json", "jsonl", "bin"]))
def test_a_file_of_anything_is_published_or_refused(type: str, body: bytes | None, suffix: str) -> None:
    Path(f"payload.{suffix}").write_bytes(body or b"")
    arguments = ("publish", type, f"@payload.{suffix}", "--json")
    is_answered(arguments, *typed(*arguments))


@fuzz
@given(st.text(max_size=40).filter(lambda text: not text.startswith(("-", "@")) and "\x00" not in text))
def test_a_payload_of_anything_is_published_or_refused(text: str) -> None:
    arguments = ("publish", "hello", text, "--json")
    is_answered(arguments, *typed(*arguments))


@fuzz
@given(st.binary(max_size=60))
def test_a_topology_of_noise_is_refused(noise: bytes) -> None:
    Path("noise.yaml").write_bytes(noise)
    code, out, err = typed("check", "--topology", "noise.yaml", "--json")
    is_answered(("check",), code, out, err)
    assert code in (1, 2)


@fuzz
@given(st.binary(max_size=60))
def test_a_file_that_is_no_log_is_refused(noise: bytes) -> None:
    Path("noise.db").write_bytes(noise)
    for arguments in (("run", "list"), ("verify",), ("board", "list")):
        code, out, err = typed(*arguments, "--log", "sqlite:noise.db")
        is_answered(arguments, code, out, err)
