"""Whatever is typed is answered with an exit code of the table and a line; never with a traceback."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.app import COMMANDS
from tests.fuzz.material import bodies, fuzz
from tests.fuzz.typed import expect_no_bug, project_in, typed

RUNS_ON = {"up", "demo", "bench", "init"}
"""Commands that are not tried. `up` and `demo` run until they are stopped. `bench` measures for minutes and replaces
stored results. `init` writes files into a folder of any name, such as `/`."""
QUICK = sorted(set(COMMANDS) - RUNS_ON)
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
    with project_in(tmp_path_factory.mktemp("typed") / "desk") as folder:
        yield folder


def is_answered(arguments: tuple[str, ...], code: int, out: str, err: str) -> None:
    expect_no_bug(arguments, code, err)
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
