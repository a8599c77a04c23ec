"""Figures with their evidence: machine, versions, commit, settings, raw samples, and the command.

The result of a workload or a peer is a `Result`, one JSON file each, bench/results/SUBJECT-WORKLOAD-LOG.json:

    {
      "format": "mesh-bench/1",
      "subject": "mesh",              mesh, or the name of a peer such as aiokafka
      "workload": "run1",             a name in bench/workloads
      "what": "one-step runs, …",     what it measures, in a few words
      "how": "…",                     the sentence that explains how
      "log": "sqlite",                sqlite, kafka, none (no log takes part)
      "safe": true,                   survives kill -9 without a loss, as tested; null: not tested
      "settings": {"seconds": 5.0},   whatever else was set, JSON-able
      "figures": [
        {
          "name": "runs_per_s",       with its unit at the end
          "value": 8620,              the summary of the samples: the median, unless the name says otherwise (p99_ms)
          "unit": "runs/s",
          "better": "more",           more, less, or none: a figure that explains others
          "at": {"rate_per_s": 500},  what was varied, for workloads with several points; {} for those with one
          "samples": [8280, 8620],    raw; for latencies pairs [ms, how often], three significant digits
          "limit": false              true: an upper limit and not the subject's (the log alone, Python alone)
        }
      ],
      "command": "mesh bench run1 --for 60s",
      "measured_at": "2026-11-20T12:01:07Z", "commit": "8e40541", "machine": {…}, "versions": {…}
    }

The older benchmarks (`bench.decide`, `bench.runs`, …) and the faults of tests/live save a plain dictionary with `save`.
"""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.errors import ConfigInvalid
from mesh.core.state.form import form

RESULTS = Path(__file__).with_name("results")
CODE: Final = (":/", ":(top,exclude)bench/results", ":(top,exclude)docs")
"""For git: all but what a measuring writes."""
FORMAT: Final = "mesh-bench/1"
PACKAGES = ("aiokafka", "orjson", "pydantic", "redis")
MORE: Final = "more"
LESS: Final = "less"
NONE: Final = "none"


class Figure(NamedTuple):
    """One number with what it was made from; see the module for each field."""

    name: str
    value: float
    unit: str
    better: str = MORE
    at: Mapping[str, Any] = {}
    samples: Sequence[Any] = ()
    limit: bool = False


class Result(NamedTuple):
    """The figures of one subject in one workload on one log; see the module for each field."""

    workload: str
    what: str
    how: str
    log: str
    figures: Sequence[Figure]
    settings: Mapping[str, Any]
    command: str
    subject: str = "mesh"
    safe: bool | None = None

    def body(self) -> dict[str, Any]:
        """As it is written; machine, versions, commit and time are those of this moment."""
        fields = self._asdict() | {"figures": [figure._asdict() for figure in self.figures]}
        return {"format": FORMAT, **fields, **circumstances()}


def middle(name: str, samples: Sequence[float], unit: str, better: str = MORE, **at: Any) -> Figure:
    """A figure that is the median of its samples. Raises ValueError when there are none."""
    if not samples:
        raise ValueError(f"{name}: no samples")
    return Figure(name, significant(median(samples)), unit, better, at, [significant(s) for s in samples])


def significant(value: float, digits: int = 4) -> float:
    """Rounded to so many significant digits; whole numbers stay whole."""
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded


def machine() -> dict[str, Any]:
    """Processor, cores and memory, as far as the system tells; no names, no paths."""
    cpu = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(pages / 2**30), "system": platform.system()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that matter most, and the form of the core."""
    return {"python": platform.python_version(), "core": form(), **{p: metadata.version(p) for p in PACKAGES}}


def commit() -> str:
    """The commit measured; `+` when the tree had changes, other than results and the pages made of them; empty where
    there is no git."""
    git = ["git", "-C", str(RESULTS.parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        status = [*git, "status", "--porcelain", "-uno", "--", *CODE]
        dirty = subprocess.run(status, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def circumstances() -> dict[str, Any]:
    """When, on what and of which code: the part of a result that no workload decides."""
    return {
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit(),
        "machine": machine() | {"load_1m": round(os.getloadavg()[0], 1)},
        "versions": versions(),
    }


def save_result(body: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write `Result.body()` where the report page looks for it, and answer where that is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{body['subject']}-{body['workload']}-{body['log']}.json"
    path.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return path


def results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Every result of this format in a folder, sorted by workload, log and subject; other files are left alone. Raises
    ConfigInvalid for one that is no JSON."""
    bodies = [_read(path) for path in sorted(folder.glob("*.json"))]
    found = [body for body in bodies if isinstance(body, dict) and body.get("format") == FORMAT]
    return sorted(found, key=lambda body: (body["workload"], body["log"], body["subject"]))


def _read(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ConfigInvalid(f"this result is no JSON: {error}", where=str(path), remedy="Measure it again") from error


def save(name: str, figures: Any) -> Path:
    """Write a plain dictionary to bench/results/NAME.json and answer where it is."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    body = {
        "command": shlex.join(["python", "-m", f"bench.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "figures": figures,
    }
    path.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return path
