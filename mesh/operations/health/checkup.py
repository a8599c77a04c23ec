"""The checks of `mesh doctor`. Each has a deadline of its own, and an error of it is a finding. Nothing is written."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.errors import MeshError, leaf_errors
from mesh.core.health.finding import ERROR, NOTE, OK, WARNING, Finding
from mesh.core.health.progress_rules import judge_dead_letters, judge_disk, judge_lags, judge_skew
from mesh.core.topology.model import Topology
from mesh.runtime.control_follower import control_now
from mesh.runtime.lag import group_lags
from mesh.runtime.log_reader import bounds_between, record_at

HOUR_MS: Final = 3_600_000
OTHERS: Final = 0o077
"""Rights of other users."""
Check = Callable[[], Awaitable[Sequence[Finding]]]


async def run_checks(checks: Mapping[str, Check], within_s: float, *, untimed: Collection[str] = ()) -> list[Finding]:
    """Run checks side by side; return their findings in the order of the checks.

    One that is not done in time, or that fails, gives a finding with the name of the check. `untimed`: those that watch
    the time themselves, and raise TimeoutError.
    """
    found = await asyncio.gather(
        *(_run(name, check, within_s, timed=name not in untimed) for name, check in checks.items())
    )
    return [finding for findings in found for finding in findings]


async def _run(name: str, check: Check, within_s: float, *, timed: bool) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(within_s if timed else None):
            return await check()
    except TimeoutError:
        fix = "mesh config show --origin says which address is used"
        return [Finding(ERROR, name, "no answer in time", f"an answer within {within_s:.1f} s", "none", fix)]
    except MeshError as error:
        return [of_error(name, error)]
    except BaseExceptionGroup as group:
        known = [leaf for leaf in leaf_errors(group) if isinstance(leaf, MeshError)]
        if not known:
            raise
        return [of_error(name, known[0])]


def of_error(name: str, error: MeshError) -> Finding:
    """Return an error as a finding."""
    where = name if not error.where or error.where == name else f"{name} {error.where}"
    return Finding(ERROR, where, error.what, error.expected, error.got, error.remedy)


async def check_lag(log: ReadLog, topology: Topology) -> Sequence[Finding]:
    """Say which groups are behind for long."""
    return judge_lags(topology, await group_lags(log, topology), await control_now(log, topology))


async def check_dead_letters(log: ReadLog, topology: Topology) -> Sequence[Finding]:
    """Count the dead letters that are kept, and those of the last hour."""
    kept = await log.bounds(topology.dead)
    recent = await bounds_between(log, topology.dead, log.now_ms() - HOUR_MS)
    return judge_dead_letters(_records(kept), _records(recent))


async def check_clock(log: ReadLog, topology: Topology) -> Sequence[Finding]:
    """Compare the log's clock with that of this machine.

    A reader of Kafka does not know the time of the brokers. There the newest records show whether it is ahead.
    """
    if log.knows_time:
        return [judge_skew("log", log.now_ms() - time.time_ns() // 1_000_000)]
    newest_ms = 0
    for topic in (topology.clock, topology.outcomes):
        for number, bounds in (await log.bounds(topic)).items():
            record = await record_at(log, topic, number, bounds.end - 1) if bounds.end > bounds.start else None
            newest_ms = max(newest_ms, 0 if record is None else record.timestamp)
    ahead_ms = newest_ms - time.time_ns() // 1_000_000
    return [judge_skew("log", max(0, ahead_ms), at_least=True)]


def check_files(paths: Sequence[Path]) -> list[Finding]:
    """Judge the space on the disk of files, and who may read them. The first one must exist."""
    there = [path for path in paths if path.exists()]
    if not there:
        return []
    usage = shutil.disk_usage(there[0].parent)
    found = [judge_disk("disk", usage.free, usage.total)]
    for path in there:
        mode = path.stat().st_mode
        if mode & OTHERS:
            what = "other users of this machine may read it: it holds all events"
            fix = f"chmod go-rwx {path}"
            found.append(Finding(WARNING, str(path), what, "mode 0600", f"mode {mode & 0o777:04o}", fix))
    return found if len(found) > 1 else [*found, Finding(OK, "files", "only their owner may read them")]


def versions(used: Mapping[str, str | None]) -> Finding:
    """Say which versions are in use."""
    known = [f"{name} {value}" for name, value in used.items() if value]
    missing = [name for name, value in used.items() if not value]
    level = NOTE if missing else OK
    return Finding(level, "versions", ", ".join(known), next=f"not installed: {', '.join(missing)}" if missing else "")


def _records(bounds: Mapping[int, Bounds]) -> int:
    return sum(each.end - each.start for each in bounds.values())
