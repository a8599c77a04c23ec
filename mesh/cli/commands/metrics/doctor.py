"""`mesh doctor`: checks everything around a mesh, and says what to do."""

import asyncio
import platform
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mesh.cli.commands.version import LIBRARIES, installed, number
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.output import Output
from mesh.cli.framework.session import CommonOptions, Session, embedded_path, short
from mesh.cli.framework.text import counted, seconds, took
from mesh.core.errors import InvalidInput
from mesh.core.health.finding import ERROR, LEVELS, NOTE, OK, WARNING, Finding, gravest
from mesh.operations.health import checkup

if TYPE_CHECKING:
    from mesh.adapters.ports import ReadLog
    from mesh.operations.health.checkup import Check

REST_S_MIN: Final = 0.5
"""Time that checks of the log have at least, however long it took to open it."""
WITHIN_S_MAX: Final = 60
OPEN_RUNS_MAX: Final = 1_000
MARKS: Final = {OK: ("✓", "green"), NOTE: ("·", "dim"), WARNING: ("!", "yellow"), ERROR: ("✗", "red")}
app = verb()


@command(app, "doctor", example="mesh doctor --json | jq 'select(.level == \"error\")'")
async def doctor(
    session: Session,
    *,
    within: Annotated[str, typer.Option("--within", metavar="TIME", help="how long checks wait for an answer")] = "2s",
) -> int:
    """Check versions, log, board, topics, settings of servers, clocks, lag, runs, dead letters, disk and rights.

    Each finding has a level, a place, what is expected and found, and the next command. The exit code is 1 if a finding
    is an error. What does not answer in time is a finding, too. Nothing is written.
    """
    from mesh.operations.health.checkup import run_checks

    began, within_s = time.monotonic(), seconds("--within", within)
    if not 0 < within_s <= WITHIN_S_MAX:
        raise InvalidInput("invalid time", code="bad_value", where="--within", expected="at most 1m", got=within)
    checks: dict[str, Check] = {
        "versions": _versions,
        "log": lambda: _log(session, within_s),
        "board": lambda: _board(session),
        "disk": lambda: _files(session),
    }
    findings = await run_checks(checks, within_s, untimed=("log",))
    for finding in findings:
        session.output.emit(finding._asdict())
        _print(session.output, finding)
    _summary(session.output, findings, time.monotonic() - began)
    return 1 if gravest(findings) == ERROR else 0


async def _versions() -> Sequence[Finding]:
    used = {"mesh": number(), "Python": platform.python_version(), **{name: installed(name) for name in LIBRARIES}}
    return [checkup.versions({name: used[name] for name in ("mesh", "Python", "aiokafka", "redis")})]


async def _log(session: Session, within_s: float) -> Sequence[Finding]:
    """Open the log in time, and run the checks that read it. Raises TimeoutError."""
    from mesh.core.health.log_rules import judge_topics
    from mesh.core.health.progress_rules import judge_control
    from mesh.operations.alert_reading import alerts_now
    from mesh.operations.health.checkup import check_clock, check_dead_letters, check_lag, run_checks
    from mesh.runtime.control_follower import control_now

    topology, began = session.topology, time.monotonic()
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(within_s):
            log = await stack.enter_async_context(session.read_log())
            known = await log.topics()
        answered = took((time.monotonic() - began) * 1_000)
        found = [Finding(OK, "log", f"{short(log.url)} answers in {answered}")]
        create = "mesh up" if embedded_path(session.settings.log) is not None else "mesh topics create"
        topics = judge_topics(topology, known, create=create)
        found += topics
        if any(each.level == ERROR and each.got == "none" for each in topics):
            return found

        async def stops() -> Sequence[Finding]:
            return judge_control(await control_now(log, topology), await alerts_now(log, topology), log.now_ms())

        checks: dict[str, Check] = {
            "settings": lambda: _settings(session, log),
            "clock": lambda: check_clock(log, topology),
            "agents": stops,
            "lag": lambda: check_lag(log, topology),
            "runs": lambda: _runs(session, log),
            "dead letters": lambda: check_dead_letters(log, topology),
        }
        return [*found, *await run_checks(checks, max(REST_S_MIN, within_s - (time.monotonic() - began)))]


async def _settings(session: Session, log: "ReadLog") -> Sequence[Finding]:
    """Judge the settings of topics on brokers; the embedded log has none."""
    if not session.settings.log.startswith("kafka:"):
        return []
    from mesh.adapters.kafka.read_log import KafkaReadLog
    from mesh.app.wiring import topic_specs
    from mesh.core.health.log_rules import judge_settings

    assert isinstance(log, KafkaReadLog)
    wanted = {spec.name: spec.config for spec in topic_specs(session.topology)}
    return judge_settings(session.topology, wanted, await log.facts(list(wanted)))


async def _runs(session: Session, log: "ReadLog") -> Sequence[Finding]:
    """Judge the open runs; a paused one has no deadline."""
    from mesh.cli.framework.run_finding import list_runs
    from mesh.core.health.progress_rules import judge_runs
    from mesh.core.history.run_query import RunQuery

    quiet = Session(CommonOptions(*session.options)._replace(quiet=True))
    latest_ms = log.now_ms() - session.topology.limits.deadline_ms
    query = RunQuery(state="open", until_ms=latest_ms)
    runs = await list_runs(quiet, log, query, limit=OPEN_RUNS_MAX, where=None)
    opened = [(run.run_id, run.opened_ms) for run in runs if not run.paused]
    return judge_runs(opened, session.topology.limits.deadline_ms, log.now_ms())


async def _board(session: Session) -> Sequence[Finding]:
    """Ask the board's server what it is; an embedded board lies in a file that is checked with the log."""
    url = session.settings.board or session.settings.log
    if embedded_path(url) is not None:
        return [Finding(OK, "board", f"in {short(url)}")]
    from mesh.adapters.redis.board import RedisBoard
    from mesh.core.health.board_rules import judge_redis
    from mesh.core.health.progress_rules import judge_skew

    async with session.board() as board:
        if not isinstance(board, RedisBoard):
            return []
        info = await board.info()
    found = [Finding(OK, "board", f"{short(board.url)} answers, Redis {info.get('redis_version', '?')}")]
    if "server_time_usec" in info:
        at_ms = int(info["server_time_usec"]) // 1_000
        found.append(judge_skew("board", at_ms - time.time_ns() // 1_000_000))
    return [*found, *judge_redis(info)]


async def _files(session: Session) -> Sequence[Finding]:
    """Judge disk and rights of the embedded files."""
    urls = dict.fromkeys((session.settings.log, session.settings.board or session.settings.log))
    files = [path for url in urls if (path := embedded_path(url)) is not None]
    here = Path.cwd()
    near = [path.relative_to(here) if path.is_relative_to(here) else path for path in files]
    return checkup.check_files([one for path in near for one in (path, Path(f"{path}-wal"))])


def _print(output: Output, finding: Finding) -> None:
    mark, style = MARKS[finding.level]
    output.print((f"{mark} ", style), (finding.where, "bold"), "  ", finding.what)
    facts = [f"expected {finding.expected}"] if finding.expected and finding.level != OK else []
    facts += [f"got {finding.got}"] if finding.got and finding.level != OK else []
    if facts:
        output.print(("    " + ", ".join(facts), "dim"))
    if finding.next:
        output.print(("    → ", style), finding.next)


def _summary(output: Output, findings: Sequence[Finding], elapsed_s: float) -> None:
    counts = {level: sum(each.level == level for each in findings) for level in reversed(LEVELS)}
    said: Any = [counted(counts[level], level) for level in (ERROR, WARNING, NOTE) if counts[level]]
    style = MARKS[gravest(findings)][1]
    output.print()
    output.print((", ".join([*said, f"{counts[OK]} ok"]), style), (f"  in {took(elapsed_s * 1_000)}", "dim"))
