"""Standard input and output that another process has made non-blocking; documents in other encodings."""

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from mesh.cli.framework.standard_streams import Utf8, document
from mesh.core.errors import InvalidInput
from tests.cli.conftest import COMMAND, DEADLINE_S, Cli

BIG = ("export", "k8s", "--log", "kafka://h:9092", "--board", "redis://h:1", "--image", "x")
"""A command whose output is larger than a small pipe."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe whose reading and writing do not block."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue  # the test has closed it


def command(cli: Cli, *arguments: str, stdin: int, stdout: int = subprocess.PIPE) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*COMMAND, *arguments], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, cwd=cli.folder, env=cli.environ
    )


def test_lines_that_come_late_on_a_non_blocking_input_are_sent(project: Cli, pipe: tuple[int, int]) -> None:
    out, into = pipe
    with command(project, "publish", "hello", "-", "--json", stdin=out) as done:
        os.close(out)
        for name in ("ann", "bea"):
            time.sleep(0.3)  # so that there is nothing to read for a while
            os.write(into, json.dumps({"name": name}).encode() + b"\n")
        os.close(into)
        told, _ = done.communicate(timeout=DEADLINE_S)
    assert done.returncode == 0
    assert [json.loads(line)["line"] for line in told.splitlines()] == [1, 2]


def test_one_document_from_a_non_blocking_input_is_read_whole(project: Cli, pipe: tuple[int, int]) -> None:
    out, into = pipe
    with command(project, "publish", "hello", "@-", "--json", stdin=out) as done:
        os.close(out)
        os.write(into, b'{"name": ')
        time.sleep(0.3)  # so that there is nothing to read for a while
        os.write(into, b'"cleo"}')
        os.close(into)
        told, _ = done.communicate(timeout=DEADLINE_S)
    assert done.returncode == 0
    assert json.loads(told)["type"] == "hello"


def test_all_is_written_to_a_non_blocking_output_that_is_full(project: Cli, pipe: tuple[int, int]) -> None:
    out, into = pipe
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4_096)
    wanted = project(*BIG).out
    assert len(wanted) > 4_096, "more than the pipe takes at once"
    with command(project, *BIG, stdin=subprocess.DEVNULL, stdout=into) as done:
        os.close(into)
        os.set_blocking(out, True)
        with os.fdopen(out, "rb", closefd=False) as reader:
            told = reader.read()
        done.wait(DEADLINE_S)
    assert done.returncode == 0
    assert told.decode() == wanted


def test_an_input_that_cannot_be_read_is_no_bug(project: Cli) -> None:
    closed = os.open(os.devnull, os.O_WRONLY)
    for payload in ("-", "@-"):
        with command(project, "publish", "hello", payload, stdin=closed) as done:
            _, told = done.communicate(timeout=DEADLINE_S)
        assert done.returncode == 2, told
        assert b"standard input cannot be read: Bad file descriptor" in told
    os.close(closed)


MARKED = ("utf-8-sig", "utf-16", "utf-32")
TEXT = '{"name": "Müller 🫖"}\r\n{}\n'


@pytest.mark.parametrize("encoding", MARKED)
def test_a_document_with_a_mark_becomes_utf_8(encoding: str) -> None:
    assert document(TEXT.encode(encoding), "f") == TEXT.encode()
    assert document("".encode(encoding), "f") == b""


@pytest.mark.parametrize("encoding", ["utf-8", *MARKED])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_document_may_come_in_parts_of_any_size(encoding: str, size: int) -> None:
    data, reader = TEXT.encode(encoding), Utf8()
    parts = [reader.feed(data[n : n + size]) for n in range(0, len(data), size)]
    assert b"".join([*parts, reader.feed(b"", last=True)]) == TEXT.encode()


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"\xef\xbb", b"\x80\xfe", "ä".encode("latin-1"), b"{}\xff\xfe"])
def test_a_document_without_a_mark_is_left_as_it_is(data: bytes) -> None:
    assert document(data, "f") == data
    reader = Utf8()
    assert b"".join([*(reader.feed(bytes([byte])) for byte in data), reader.feed(b"", last=True)]) == data


def test_the_first_part_is_not_held_back_when_it_is_no_mark() -> None:
    assert Utf8().feed(b"{") == b"{"


def test_half_a_character_at_the_end_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="f: the text is not utf-16, as its byte order mark says: truncated"):
        document("ab".encode("utf-16")[:-1], "f")
