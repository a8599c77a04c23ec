"""Files that are no whole recording, in each mode: what is wrong, where, and what to do; never a verdict on it."""

import gzip
from collections.abc import Callable, Sequence

import orjson
import pytest

from tests.cli.conftest import Cli

MODES: dict[str, tuple[str, ...]] = {
    "print": ("replay", "r.jsonl"),
    "step": ("replay", "r.jsonl", "--step"),
    "check": ("replay", "r.jsonl", "--check"),
    "what-if": ("replay", "r.jsonl", "--limit", "depth_max=1", "--since", "1h"),
    "sandbox": ("replay", "r.jsonl", "--run"),
    "agent": ("replay", "r.jsonl", "--agent", "greeter"),
    "test": ("test", "r.jsonl"),
    "export": ("run", "export", "ada", "--log", "recording:r.jsonl"),
}
Lines = list[bytes]


@pytest.fixture(scope="module")
def lines(troubled: Cli) -> Lines:
    """A recording of one run, line by line."""
    return troubled("run", "export", "ada").out.encode().splitlines(keepends=True)


def edited(lines: Lines, number: int, **changes: object) -> bytes:
    """The file with fields of one line changed."""
    line = {**orjson.loads(lines[number]), **changes}
    return b"".join([*lines[:number], orjson.dumps(line) + b"\n", *lines[number + 1 :]])


def ask(cli: Cli, data: bytes, mode: str) -> tuple[int, str, str]:
    (cli.folder / "r.jsonl").write_bytes(data)
    done = cli(*MODES[mode])
    assert "This is a bug" not in done.err, (mode, done.err)
    return done.code, done.out, done.err


def inbox(lines: Lines) -> Sequence[int]:
    """Numbers of the lines of the run's records on the inbox."""
    return [n for n, line in enumerate(lines) if line.startswith(b'{"topic":"mesh.inbox"') and b'"key":"*"' not in line]


DAMAGED: dict[str, tuple[Callable[[Lines], bytes], str]] = {
    "empty": (lambda lines: b"", "r.jsonl:1: this is no recording"),
    "garbage": (lambda lines: bytes(range(256)), "r.jsonl:1: this is no recording"),
    "head cut": (lambda lines: lines[0][:99], "r.jsonl:1: this is no recording"),
    "compressed": (lambda lines: gzip.compress(b"".join(lines)), "r.jsonl:1: the file is compressed"),
    "recoded": (lambda lines: b"".join(lines).decode().encode("utf-16"), "r.jsonl:1: the file is UTF-16"),
    "marked": (lambda lines: b"\xef\xbb\xbf" + b"".join(lines), "r.jsonl:1: the file begins with a byte order mark"),
    "later version": (lambda lines: edited(lines, 0, recording=2), "r.jsonl:1: the recording has format 2"),
    "line of garbage": (
        lambda lines: b"".join([*lines[:3], b"\0\xff\n", *lines[3:]]),
        "r.jsonl:4: the line is no JSON",
    ),
    "line repeated": (lambda lines: b"".join([*lines[:7], *lines[6:]]), "r.jsonl:8: offset"),
    "line removed": (lambda lines: b"".join([*lines[:6], *lines[7:]]), "records, its last line says"),
    "shuffled": (lambda lines: b"".join([lines[0], *lines[-2:0:-1], lines[-1]]), "is out of order"),
    "twice": (lambda lines: b"".join(lines * 2), "a line follows the last one"),
    "record edited": (lambda lines: edited(lines, inbox(lines)[0], logtime="soon"), "the record cannot be read"),
    "place edited": (lambda lines: edited(lines, inbox(lines)[0], partition=7), "names no partition mesh.inbox:7"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_file_that_is_damaged_is_an_error_that_names_the_line_in_each_mode(
    troubled: Cli, lines: Lines, fault: str
) -> None:
    damage, said = DAMAGED[fault]
    for mode in MODES:
        code, out, err = ask(troubled, damage(lines), mode)
        assert (code, said in err) == (2, True), (mode, code, err)
        assert "nothing diverges" not in out
        assert "the same" not in out


def test_line_ends_of_another_system_do_not_matter(troubled: Cli, lines: Lines) -> None:
    for mode in ("print", "check", "sandbox", "agent", "test"):
        assert ask(troubled, b"".join(lines).replace(b"\n", b"\r\n"), mode)[0] == 0


def test_a_file_that_is_cut_is_said_to_be_cut_in_each_mode(troubled: Cli, lines: Lines) -> None:
    """Before, within and after the first record of the run, and before the last line."""
    first = inbox(lines)[0]
    whole = [b"".join(lines[:n]) for n in range(len(lines))]
    cuts = {
        "only the head": (whole[1], {"print": 3, "step": 3, "check": 0, "sandbox": 3, "test": 2, "export": 3}),
        "within the request": (whole[first] + lines[first][:60], {"print": 3, "check": 0, "what-if": 0, "test": 2}),
        "after the request": (whole[first + 1], {"print": 0, "step": 0, "what-if": 0, "test": 2, "export": 0}),
        "before the end": (whole[-1], {"print": 0, "check": 0, "what-if": 1, "sandbox": 0, "agent": 0, "test": 2}),
    }
    for cut, (data, codes) in cuts.items():
        for mode, code in codes.items():
            found = ask(troubled, data, mode)
            assert found[0] == code, (cut, mode, found)
            assert "it is cut" in found[2] or "is cut: it ends" in found[2], (cut, mode, found[2])
            assert "✓ the same" not in found[1] or cut == "before the end"


def test_a_run_that_is_cut_is_open_and_compared_as_far_as_it_goes(troubled: Cli, lines: Lines) -> None:
    data = b"".join(lines[: inbox(lines)[1] + 1])  # the request and the first answer
    code, out, _ = ask(troubled, data, "sandbox")
    assert (code, "… the same so far: the answers of 1 task; the recorded run is open" in out) == (0, True), out
    assert "· no run can be compared" in ask(troubled, data, "what-if")[1]
    _, exported, err = ask(troubled, data, "export")
    assert "missing: the recording that was read is cut" in err
    assert "is cut" in orjson.loads(exported.splitlines()[-1])["end"]["gaps"][0]


def test_a_recording_without_the_request_of_its_run_cannot_be_taken_again(troubled: Cli, lines: Lines) -> None:
    request = inbox(lines)[0]
    data = b"".join([*lines[:request], *lines[request + 1 : -1], b'{"end":{}}\n'])
    for mode in ("sandbox", "test"):
        code, _, err = ask(troubled, data, mode)
        assert (code, "is not in the recording. It was removed" in err) == (3, True), err
    assert "trimmed before step 1" in ask(troubled, data, "print")[1]


def test_a_time_span_is_for_modes_that_choose_runs_of_a_file(troubled: Cli, lines: Lines) -> None:
    (troubled.folder / "r.jsonl").write_bytes(b"".join(lines))
    for mode in ((), ("--step",), ("--run",)):
        done = troubled("replay", "r.jsonl", *mode, "--since", "1h")
        assert (done.code, "this mode takes every run of the file" in done.err) == (2, True)
    assert troubled("replay", "r.jsonl", "--check", "--since", "1h").code == 0
