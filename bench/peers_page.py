"""The peers beside us, in one table: a chapter of docs/reference/benchmarks.md."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bench.report import significant

WORKLOADS: Final = {"hop": "hops", "run1": "runs", "run3": "runs"}
LOGS: Final = {"kafka": "on Kafka", "sqlite": "embedded"}
HEAD: Final = """\
## Peers

Other people's frameworks on the same work, in the same run as ours: A B C A B C …, each a process of its own on this
machine and broker. How many times as fast the mesh is was taken round by round: the median, with the lowest and the
highest round. Safe is who lost nothing when it was killed with SIGKILL twice in the middle of its work: tested and
counted here, for runs of the mesh in [reliability.md](reliability.md). Versions are pinned in
[bench/peers/requirements.txt](../../bench/peers/requirements.txt), settings stand in [bench/peers](../../bench/peers).

Each side is asked as suits it: DBOS and Restate have 64 runs in flight, the mesh is handed its runs as fast as its log
takes them. A side measures for a second or two a round, from a tenth of the work on; what the workloads below measure
for longer comes out higher or lower, and is not what the ratios are made of.

| work | peer | a second | CPU µs each | the mesh is | kill -9 | made by |
|---|---|---:|---:|---|---|---|
"""
Body = Mapping[str, Any]


def measured(bodies: Sequence[Body]) -> list[Body]:
    """Results of comparisons, by workload: ours, then the peers, the quickest first."""
    found = [body for body in bodies if body["subject"] != "mesh" and body["workload"] in WORKLOADS]
    order = list(WORKLOADS)

    def place(body: Body) -> tuple[int, bool, float]:
        return order.index(body["workload"]), not is_ours(body), -(_value(body, _rate(body)) or 0)

    return sorted(found, key=place)


def is_ours(body: Body) -> bool:
    """Whether a result is of the mesh, be it beside peers."""
    return str(body["subject"]).partition("-")[0] == "mesh"


def chapter(bodies: Sequence[Body]) -> str:
    """The chapter, a line for each peer."""
    return HEAD + "".join(_rows(measured(bodies)))


def _rows(bodies: Sequence[Body]) -> Iterator[str]:
    for body in bodies:
        rate, cpu = _value(body, _rate(body)), _value(body, f"cpu_us_per_{WORKLOADS[body['workload']][:-1]}")
        columns = [_number(rate), _number(cpu), "<br>".join(_times(body)) or "–", _verdict(body)]
        if "failed" in body["settings"]:
            columns[2] = f"not measured: {body['settings']['failed']}".replace("|", "\\|")
        made = f"`{body['command']}`, commit {body['commit'] or 'unknown'}"
        yield f"| {body['workload']} | {body['subject']} | {' | '.join(columns)} | {made} |\n"


def _times(body: Body) -> Iterator[str]:
    for figure in body["figures"]:
        if figure["name"] == "mesh_is_times":
            low, high = min(figure["samples"]), max(figure["samples"])
            spread = f"({_number(low)} … {_number(high)})"
            yield f"{_number(figure['value'])} x {spread} {LOGS.get(figure['at'].get('log'), '')}".rstrip()


def _verdict(body: Body) -> str:
    kill = body["settings"].get("kill_9")
    if kill is None:
        return "not tested"
    if "failed" in kill:
        return f"not tested: {kill['failed']}".replace("|", "\\|")
    columns = f"{kill['lost']} of {kill['messages']} lost, {kill['doubled']} twice"
    return f"safe: {columns}" if kill["safe"] else f"**not safe**: {columns}"


def _rate(body: Body) -> str:
    return f"{WORKLOADS[body['workload']]}_per_s"


def _value(body: Body, name: str) -> float | None:
    return next((float(figure["value"]) for figure in body["figures"] if figure["name"] == name), None)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{significant(value, 3):,}"
