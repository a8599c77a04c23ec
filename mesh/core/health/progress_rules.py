"""Judges what a mesh does: whether records are read, runs end, clocks agree, and what is stopped or alerts."""

from collections.abc import Iterable, Mapping
from typing import Final

from mesh.core.health.finding import ERROR, NOTE, OK, WARNING, Finding
from mesh.core.metrics.alerts import AlertFact
from mesh.core.run.control import ALL, BREAKER, FAULT, Control
from mesh.core.scaling.lag import GroupLag
from mesh.core.topology.model import Topology

SERVICE_AGE_MS_MAX: Final = 10_000
"""Age of a record from which its service is said not to read."""
SKEW_MS_MAX: Final = 5_000
AGREES: Final = f"its clock agrees with this machine's, within {SKEW_MS_MAX / 1_000:g} s"
RUNS_SHOWN_MAX: Final = 5
GIB: Final = 1_073_741_824
FREE_BYTES_MIN, FREE_BYTES_LOW = GIB // 8, GIB


def judge_lags(topology: Topology, lags: Iterable[GroupLag], control: Control) -> list[Finding]:
    """Judge groups that are behind for longer than they should. Stopped agents are said elsewhere."""
    found: list[Finding] = []
    for lag in lags:
        spec = topology.agents.get(lag.consumer)
        limit_ms = SERVICE_AGE_MS_MAX if spec is None else spec.timeout_ms
        if not lag.lag or lag.age_ms is None or lag.age_ms <= limit_ms or control.stop_of(lag.consumer) is not None:
            continue
        kind = WARNING if spec is not None or lag.consumer not in ("intake", "orchestrator") else ERROR
        records = f"{lag.lag:,} record{'s' if lag.lag > 1 else ''}"
        what = (
            f"{records} on {lag.topic} {'wait' if lag.lag > 1 else 'waits'}, the oldest for {lag.age_ms / 1_000:,.0f} s"
        )
        expected = f"at most {limit_ms / 1_000:,.0f} s"
        fix = "mesh up worker" if spec is not None else f"mesh up {lag.consumer.partition('-')[0]}"
        found.append(Finding(kind, lag.consumer, what, expected, f"{lag.age_ms / 1_000:,.0f} s", fix))
    return found or [Finding(OK, "lag", "no group is behind for long")]


def judge_control(control: Control, alerts: Mapping[str, AlertFact], now_ms: int) -> list[Finding]:
    """Say which alerts stand, what is stopped, and by whom."""
    found: list[Finding] = []
    for fact in alerts.values():
        fix = "mesh windows" if fact.agent == ALL else f"mesh windows {fact.agent}"
        found.append(Finding(ERROR, fact.scope.replace(":", " "), f"alert {fact.name}: {fact.why}", next=fix))
    for switch in control.switches.values():
        name = "all agents" if switch.agent == ALL else f"agent {switch.agent}"
        by = f"by {switch.by or 'unknown'}" + (f": {switch.why}" if switch.why else "")
        if switch.what == BREAKER:
            why = f"its breaker is open: {switch.why or 'it failed again and again'}"
            found.append(Finding(WARNING, name, why, "closed", "open", f"mesh windows {switch.agent}"))
        elif switch.what == FAULT:
            if now_ms < switch.until_ms:
                undo = f"mesh unbreak {switch.agent}"
                found.append(Finding(WARNING, name, f"broken on purpose {by}", "", switch.how, undo))
        else:
            undo = "mesh resume all" if switch.agent == ALL else f"mesh resume {name}"
            found.append(Finding(WARNING, name, f"stopped {by}", "running", "stopped", undo))
    return found or [Finding(OK, "agents", "none is stopped, and no alert stands")]


def judge_runs(open_runs: Iterable[tuple[str, int]], deadline_ms: int, now_ms: int) -> list[Finding]:
    """Judge open runs (id and log time of the request): past its deadline a run has ended, or it is stuck."""
    late = sorted(
        (opened_ms, id) for id, opened_ms in open_runs if now_ms - opened_ms > deadline_ms + SERVICE_AGE_MS_MAX
    )
    found = [
        Finding(
            ERROR,
            f"run {id}",
            "the run is open after its deadline",
            f"an end within {deadline_ms / 1_000:,.0f} s",
            f"open for {(now_ms - opened_ms) / 1_000:,.0f} s",
            f"mesh run show {id}",
        )
        for opened_ms, id in late[:RUNS_SHOWN_MAX]
    ]
    if len(late) > RUNS_SHOWN_MAX:
        what = f"{len(late) - RUNS_SHOWN_MAX:,} more runs are open after their deadline"
        found.append(Finding(ERROR, "runs", what, "", "", "mesh run list --state open"))
    return found or [Finding(OK, "runs", "none is open after its deadline")]


def judge_dead_letters(kept: int, recent: int) -> list[Finding]:
    """Judge the number of dead letters, and that of the last hour."""
    if not kept:
        return [Finding(OK, "dead letters", "there is none")]
    what = f"{kept:,} kept, {recent:,} of the last hour"
    return [Finding(WARNING if recent else NOTE, "dead letters", what, "0", f"{kept:,}", "mesh dead list")]


def judge_skew(where: str, ahead_ms: int, *, at_least: bool = False) -> Finding:
    """Judge how far a clock is ahead of that of this machine. `at_least`: it may be more."""
    apart = f"{abs(ahead_ms) / 1_000:.1f} s {'ahead of' if ahead_ms > 0 else 'behind'} this machine"
    if abs(ahead_ms) <= SKEW_MS_MAX:
        return Finding(OK, where, "no clock ahead was seen" if at_least else AGREES)
    expected = f"at most {SKEW_MS_MAX / 1_000:g} s"
    return Finding(
        WARNING, where, f"its clock is {apart}", expected, apart, "set the clock that is wrong, such as by NTP"
    )


def judge_disk(where: str, free_bytes: int, total_bytes: int) -> Finding:
    """Judge the free space of a disk."""
    free = f"{free_bytes / GIB:,.1f} of {total_bytes / GIB:,.1f} GiB free"
    if free_bytes >= FREE_BYTES_LOW:
        return Finding(OK, where, free)
    level = ERROR if free_bytes < FREE_BYTES_MIN else WARNING
    return Finding(
        level, where, f"the disk is almost full: {free}", "1 GiB or more", free, "mesh gc --yes, or more disk"
    )
