"""Run a plan, and make a failing one smaller."""

import gc
import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import Any, NamedTuple

from tests.sim.check import violations
from tests.sim.faults import schedule
from tests.sim.plan import Plan, plan_of
from tests.sim.stage import Stage

CALM: dict[str, Any] = {
    "slow": 0.0,
    "dribble": False,
    "gap": 0.0,
    "refuse": 0.0,
    "trouble": 0.0,
    "board": 0.0,
    "skew_ms": 0,
    "eager": False,
    "drift": 0.0,
}
"""Neutral values of the fields of a plan; shrinking a failing plan sets as many as possible."""
COLLECT_EVERY = 50

Patch = Callable[[], AbstractContextManager[None]]


class Result(NamedTuple):
    """The result of a simulation. `runs` counts acknowledged requests."""

    plan: Plan
    violations: tuple[str, ...]
    trace: str
    runs: int
    simulated_s: float
    story: tuple[str, ...] = ()


def run(plan: Plan, *, story: bool = False, patch: Patch = nullcontext) -> Result:
    """Simulate a plan. `patch` plants a bug meanwhile."""
    with _no_collector(), _quiet(), patch():
        stage = Stage(plan)
        if story:
            stage.world.story = []
        try:
            stage.play(schedule)
            stage.violations += violations(stage)
        except Exception:  # noqa: BLE001  # whatever it is: this seed found it
            stage.violations.append(traceback.format_exc())
        world = stage.world
        lines = tuple(world.story or ())
        stage.vanish()
        return Result(plan, tuple(stage.violations), world.trace(), len(stage.acked), world.loop.time(), lines)


_count = 0


@contextmanager
def _no_collector() -> Iterator[None]:
    """The collector would run cleanup of dead processes whenever it likes."""
    global _count
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        _count += 1
        if enabled:
            gc.enable()
        if _count % COLLECT_EVERY == 1:
            gc.collect()
            gc.freeze()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the logs of the simulated processes, which report the injected faults."""
    logger = logging.getLogger("mesh")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def search(seeds: Sequence[int], *, patch: Patch = nullcontext, seconds_max: float | None = None) -> Result | None:
    """The first seed that fails, or None."""
    begun = perf_counter()
    for seed in seeds:
        result = run(plan_of(seed), patch=patch)
        if result.violations:
            return result
        if seconds_max is not None and perf_counter() - begun > seconds_max:
            break
    return None


def smaller(plan: Plan, *, patch: Patch = nullcontext, tries_max: int = 120) -> Plan:
    """A plan that still fails, with fewer faults in a calmer world: delta debugging over the list of faults."""
    tries = 0

    def fails(candidate: Plan) -> bool:
        nonlocal tries
        tries += 1
        return tries <= tries_max and bool(run(candidate, patch=patch).violations)

    size = max(1, len(plan.faults))
    while size:
        at = 0
        while at < len(plan.faults):
            candidate = plan._replace(faults=plan.faults[:at] + plan.faults[at + size :])
            if fails(candidate):
                plan = candidate
            else:
                at += size
        size //= 2
    for knob, rest in CALM.items():
        calm = plan._replace(**{knob: rest})
        if calm != plan and fails(calm):
            plan = calm
    while plan.requests > 1 and fails(fewer := plan._replace(requests=plan.requests // 2)):
        plan = fewer
    return plan


def command(plan: Plan, planted: str = "") -> str:
    """Return the command that repeats exactly this."""
    whole = plan_of(plan.seed)
    words = [f"python -m tests.sim --seed {plan.seed}"]
    if plan.faults != whole.faults:
        words.append("--faults " + (",".join(str(whole.faults.index(f)) for f in plan.faults) or "none"))
    changed = [k for k in CALM if getattr(plan, k) != getattr(whole, k)]
    if changed:
        words.append("--calm " + ",".join(changed))
    if plan.requests != whole.requests:
        words.append(f"--requests {plan.requests}")
    if planted:
        words.append(f"--planted {planted}")
    return " ".join(words)


def narrowed(seed: int, *, faults: str = "", calm: str = "", requests: int = 0) -> Plan:
    """The plan that `command` names."""
    plan = plan_of(seed)
    if faults:
        chosen = [] if faults == "none" else [int(n) for n in faults.split(",")]
        plan = plan._replace(faults=tuple(plan.faults[n] for n in chosen))
    for knob in calm.split(",") if calm else ():
        plan = plan._replace(**{knob: CALM[knob]})
    return plan._replace(requests=requests) if requests else plan
