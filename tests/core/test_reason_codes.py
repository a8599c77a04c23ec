"""The table of reason codes is complete: every code of the source is in it, and every code in it is used."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from mesh.core.reason_codes import CALLER, COUNTED, DEAD, OUTCOME, REASONS

SOURCE = Path(__file__).parent.parent.parent / "mesh"
SEEN_AT = {
    "Note": {COUNTED},
    "Refusal": {OUTCOME},
    "Fault": {OUTCOME, DEAD},
    "Unreadable": {DEAD},
    "DeadLetter": {DEAD},
    "dead_record": {DEAD},
    "dead_request": {DEAD},
    "Rejection": {DEAD, CALLER},
    "InvalidInput": {CALLER},
    "class": {CALLER},
}
"""Maker of a code → where the code appears. The worker catches what `settle` raises, and makes a failure of it."""
NOT_A_FAILURE = {"expired", "run_ended"}
"""Faults that `decide` answers with a note, since the end of the run speaks for them."""


class Use(NamedTuple):
    """A place where a code stands. `maker` is what it is handed to; `code` ends with `*` where the rest is computed."""

    code: str
    maker: str
    where: str


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name != "reason_codes.py":
            yield path.relative_to(SOURCE.parent).as_posix(), ast.parse(path.read_text("utf-8"))


def _places_of_code() -> dict[str, int]:
    """Find functions with a positional parameter `code`, and classes with such a field: name → position."""
    found: dict[str, int] = {}
    for _, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names = [a.arg for a in node.args.args if a.arg not in ("self", "cls")]
                name = node.name
            elif isinstance(node, ast.ClassDef):
                fields = [b for b in node.body if isinstance(b, ast.AnnAssign) and isinstance(b.target, ast.Name)]
                names = [ast.unparse(f.target) for f in fields if "ClassVar" not in ast.unparse(f.annotation)]
                init = [b for b in node.body if isinstance(b, ast.FunctionDef) and b.name == "__init__"]
                names = [a.arg for a in init[0].args.args][1:] if init else names
                name = node.name
            else:
                continue
            if "code" in names and name != "__init__":
                found[name] = names.index("code")
    return found


def _texts(node: ast.expr) -> Iterator[str]:
    """The codes that an expression may be; those that come from elsewhere are found there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        yield f"{node.values[0].value!s}*"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Dict):
        for value in (*node.func.value.values, *node.args[1:]):  # {…}.get(kind, default)
            yield from _texts(value)


@cache
def uses() -> tuple[Use, ...]:
    positions = _places_of_code()
    found: list[Use] = []
    for place, tree in _trees():

        def add(node: ast.expr, maker: str, place: str = place) -> None:
            found.extend(Use(code, maker, f"{place}:{node.lineno}") for code in _texts(node))

        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                maker = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                for keyword in node.keywords:
                    if keyword.arg == "code":
                        add(keyword.value, maker)
                if maker in positions and len(node.args) > positions[maker]:
                    add(node.args[positions[maker]], maker)
            elif isinstance(node, ast.Dict) and all(ast.unparse(k or node).endswith("Error") for k in node.keys):
                for value in node.values:  # error of an outside system → verdict
                    add(value, "Refused")
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
                add(node.value, "assigned")
            elif isinstance(node, ast.ClassDef):
                for line in node.body:
                    if isinstance(line, ast.Assign | ast.AnnAssign) and line.value is not None:
                        target = line.targets[0] if isinstance(line, ast.Assign) else line.target
                        if ast.unparse(target) == "code":
                            add(line.value, "class")
    return tuple(use for use in found if use.code)


def _covered(use: Use) -> list[str]:
    if use.code.endswith("*"):
        return [code for code in REASONS if code.startswith(use.code[:-1])]
    return [use.code] if use.code in REASONS else []


def test_every_code_in_the_source_is_in_the_table() -> None:
    missing = [f"{use.where}: {use.code!r} is not in mesh/core/reason_codes.py" for use in uses() if not _covered(use)]
    assert not missing, "\n" + "\n".join(missing)


def test_every_code_in_the_table_is_in_the_source() -> None:
    used = {code for use in uses() for code in _covered(use)}
    assert not set(REASONS) - used


def test_every_code_appears_where_the_table_says() -> None:
    wrong = []
    for use in uses():
        for code in _covered(use):
            missing = SEEN_AT.get(use.maker, set()) - set(REASONS[code].seen_at)
            if use.maker == "InvalidInput" and set(REASONS[code].seen_at) >= {OUTCOME, DEAD}:
                missing -= {CALLER}  # raised inside a task
            if missing and not (use.maker == "Fault" and code in NOT_A_FAILURE):
                wrong.append(f"{use.where}: {code} is made by {use.maker}, so it appears as {sorted(missing)} too")
    assert not wrong, "\n" + "\n".join(wrong)


def test_what_the_log_refuses_has_a_code_for_each_of_its_verdicts() -> None:
    verdicts = {use.code for use in uses() if use.maker == "Refused"}
    assert {f"refused_{code}" for code in verdicts} <= set(REASONS)


@pytest.mark.parametrize("code", REASONS)
def test_a_reason_reads_well(code: str) -> None:
    reason = REASONS[code]
    assert code.isidentifier()
    assert code == code.lower()
    assert reason.seen_at
    assert set(reason.seen_at) <= {CALLER, DEAD, OUTCOME, COUNTED}
    assert len(reason.seen_at) == len(set(reason.seen_at))
    for text in (reason.meaning, reason.remedy):
        assert text
        assert not text.endswith(".")
        assert "|" not in text


def test_the_search_sees_every_way_in_which_a_code_is_handed_on() -> None:
    """A search that finds nothing would agree with any table."""
    makers = {use.maker for use in uses()}
    assert makers >= {
        "Note",
        "Refusal",
        "Unreadable",
        "Rejection",
        "Flaw",
        "Fault",
        "InvalidInput",
        "class",
        "_refusal",
    }
    assert any(use.code == "refused_*" for use in uses())
    assert len(uses()) > 80
