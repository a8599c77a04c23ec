"""Bounds that figures must keep: `mesh bench --gate bench/gates.toml`.

`python -m bench.gates bench/gates-strict.toml` checks stored results, including those of peers.

    [[gate]]
    workload = "state"                      # the workload whose result is checked
    figure = "cpu_us_per_event"
    at = {open_runs = 100000}               # the point, for figures that have several
    over = {at = {open_runs = 1000}}        # check the ratio to this figure; other keys are as above
    at_most = 1.6                           # or at_least, or both

`subject` (default mesh) and `log` (default any) select the result; in `over` they name another one, such as that of a
peer. `line` is its name in the report, `why` the chapter that explains it if it does not hold (see bench/targets.py).
"""

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.report import RESULTS, results, significant
from bench.workloads import NAMES
from mesh.core.errors import ConfigInvalid, MeshError

POINT: Final = ("workload", "figure", "at", "subject", "log")
WORDS: Final = (*POINT, "over", "at_least", "at_most", "line", "why")
KINDS: Final[dict[str, type | tuple[type, ...]]] = {
    "at": dict,
    "over": dict,
    "at_least": (int, float),
    "at_most": (int, float),
}


class Gate(NamedTuple):
    """One bound, as written; `over` has the words of the point it is compared with."""

    workload: str
    figure: str
    at: Mapping[str, Any] = {}
    subject: str = "mesh"
    log: str = ""
    over: Mapping[str, Any] | None = None
    at_least: float | None = None
    at_most: float | None = None
    line: str = ""
    why: str = ""


class Verdict(NamedTuple):
    """The verdict of a gate on a result. `holds` is None if there is no result."""

    gate: Gate
    holds: bool | None
    value: float | None
    sentence: str
    body: Mapping[str, Any] | None = None
    """The result that was judged."""


def read(path: Path) -> list[Gate]:
    """The gates of a file. Raises ConfigInvalid naming the gate and the word."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigInvalid("there is no such file", where=str(path), expected="gates as TOML") from error
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"the file cannot be read: {error}", where=str(path)) from error
    gates = document.pop("gate", [])
    if document or not isinstance(gates, list):
        raise ConfigInvalid("there is more than gates", where=str(path), expected="[[gate]] and nothing else")
    if not gates:
        raise ConfigInvalid("there is no gate in it", where=str(path), expected="[[gate]], once or more")
    return [_gate(given, f"{path}, gate {number}") for number, given in enumerate(gates, 1)]


def _gate(given: Mapping[str, Any], where: str) -> Gate:
    over = given.get("over", {})
    for words, known in ((given, WORDS), (over if isinstance(over, dict) else {}, POINT)):
        if unknown := [word for word in words if word not in known]:
            raise ConfigInvalid(f"{unknown[0]!r} means nothing", where=where, expected=", ".join(known))
    for word, value in given.items():
        kind = KINDS.get(word, str)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigInvalid(f"{word} is {value!r}", where=where, expected="a number, text or table as documented")
    if not {"workload", "figure"} <= set(given) or not {"at_least", "at_most"} & set(given):
        raise ConfigInvalid("it bounds nothing", where=where, expected="workload, figure, at_least or at_most")
    for workload in (given["workload"], over.get("workload", given["workload"])):
        if workload not in NAMES:
            raise ConfigInvalid(f"no workload is called {workload!r}", where=where, expected=", ".join(NAMES))
    return Gate(**given)


def judge(gates: Sequence[Gate], bodies: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Every gate against every result it is about."""
    found: list[Verdict] = []
    for gate in gates:
        about = [b for b in bodies if b["workload"] == gate.workload and b["subject"] == gate.subject]
        about = [b for b in about if gate.log in ("", b["log"])]
        found += [_judged(gate, body, bodies)._replace(body=body) for body in about]
        if not about:
            found.append(Verdict(gate, None, None, f"{_name(gate)}: not measured"))
    return found


def _judged(gate: Gate, body: Mapping[str, Any], bodies: Sequence[Mapping[str, Any]]) -> Verdict:
    name = f"{_name(gate)} on {body['log']}"
    value = _value(body, gate.figure, gate.at)
    if value is None:
        return Verdict(gate, False, None, f"{name}: the result has no such figure")
    if gate.over is not None:
        words = {**gate._asdict(), "log": body["log"], **gate.over}
        other = [b for b in bodies if all(b[word] == words[word] for word in ("workload", "subject", "log"))]
        if not other:
            return Verdict(gate, None, None, f"{name}: what it is compared with was not measured")
        below = _value(other[0], words["figure"], words["at"])
        if not below:
            return Verdict(gate, False, None, f"{name}: what it is compared with has no such figure, or it is 0")
        value /= below
        name += f" over {', '.join(f'{word} {_text(part)}' for word, part in gate.over.items())}"
    low, high = gate.at_least, gate.at_most
    holds = (low is None or value >= low) and (high is None or value <= high)
    bounds = [f"{word} {bound:g}" for word, bound in (("at least", low), ("at most", high)) if bound is not None]
    return Verdict(gate, holds, value, f"{name}: {significant(value):,}, {' and '.join(bounds)}")


def _value(body: Mapping[str, Any], figure: str, at: Mapping[str, Any]) -> float | None:
    for found in body["figures"]:
        if found["name"] == figure and all(found["at"].get(key) == value for key, value in at.items()):
            return float(found["value"])
    return None


def _name(gate: Gate) -> str:
    point = f" at {_text(gate.at)}" if gate.at else ""
    who = "" if gate.subject == "mesh" else f"{gate.subject} "
    return f"{who}{gate.workload} {gate.figure}{point}"


def _text(part: object) -> str:
    return " ".join(f"{key} {value}" for key, value in part.items()) if isinstance(part, dict) else str(part)


def main() -> None:
    """Command line; exit status 1 when a bound does not hold, or what it is about was not measured; 2 when the gates or
    a result cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m bench.gates", description="gates against results that are kept")
    parser.add_argument("gates", type=Path, metavar="FILE")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    given = parser.parse_args()
    try:
        verdicts = judge(read(given.gates), results(given.results))
    except MeshError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for verdict in verdicts:
        made = f", commit {verdict.body['commit'] or 'unknown'}" if verdict.body else ""
        print(f"{ {True: '✓', False: '✗', None: '·'}[verdict.holds] } {verdict.sentence}{made}")
    holds = [verdict.holds for verdict in verdicts]
    print(f"{holds.count(True)} reached, {holds.count(False)} not reached, {holds.count(None)} not measured")
    sys.exit(0 if all(verdict.holds for verdict in verdicts) else 1)


if __name__ == "__main__":
    main()
