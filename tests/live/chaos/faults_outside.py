"""A ledger that knows nothing of the mesh: kills, clocks that are wrong, and poison, judged from outside."""

import asyncio
import json
import random
import signal
import sys
from pathlib import Path

from bench.mesh_processes import ROOT
from tests.live.chaos.checker import effects_of, lags
from tests.live.chaos.fault import FULL, Criterion, Fault, Phase
from tests.live.chaos.field import Field
from tests.live.chaos.ledger import Entry
from tests.live.chaos.outside import POISON_EVERY, POISONS, TYPE, acknowledged, judge, run_of

KILLS, COUNT, RATE = 60, 20_000, 50.0
PACE = 3.0
"""Factor by which processes are killed more often than the scale says."""
COUNT_MIN = POISON_EVERY * len(POISONS)
CLOCKS = ("clock:3600", "clock:-3600", "step:3600", "step:-3600", "clock:86400", "step:-86400")
"""By how many seconds the clock of a process is wrong, from its start or from some time on."""
CLOCK_EVERY = 3
QUIET_S = 300.0
MESH = ("intake", "orchestrator", "worker")


async def _begun(field: Field, what: str, path: Path, *words: str) -> asyncio.subprocess.Process:
    module = f"tests.live.chaos.outside_{'kafka' if field.brokers else 'file'}"
    place = ("--log", field.log_url, "--topology", field.topology_path)
    arguments = (*place, what, "--file", str(path), *words)
    return await asyncio.create_subprocess_exec(sys.executable, "-m", module, *arguments, cwd=ROOT)


async def _kills(field: Field, phase: Phase) -> None:
    """Kill a process at random; every third one comes back with a clock that is wrong, until its next death."""
    dice = random.Random(f"{field.seed}:{phase.name}")
    keepers = [keeper for kind in MESH for keeper in field.some(kind)]
    steps = 0
    for number in range(field.scale.times(KILLS, 3)):
        await asyncio.sleep(dice.uniform(field.scale.gap_s / 3, field.scale.gap_s) / PACE)
        keeper = dice.choice(keepers)
        await keeper.ready()
        keeper.change()
        if number % CLOCK_EVERY == 1:
            keeper.change(point=CLOCKS[steps % len(CLOCKS)])
            steps += 1
        before = len(keeper.exits)
        keeper.send(signal.SIGKILL)
        await keeper.exited(before)
        phase.kills += 1
    phase.facts["clocks"] = steps
    await field.all_ready()


async def outside(field: Field, phase: Phase) -> None:
    """F37."""
    topic = field.ingress[TYPE]
    sent, seen = field.folder / "sent.jsonl", field.folder / "seen.jsonl"
    count = COUNT if field.scale.name == FULL.name else COUNT_MIN
    producer = await _begun(field, "produce", sent, "--topic", topic, "--count", str(count), "--rate", str(RATE))
    try:
        await _kills(field, phase)
    finally:
        if producer.returncode is None:
            producer.send_signal(signal.SIGTERM)
        status = await producer.wait()
    assert status == 0, f"the producer ended with status {status}"
    acked = acknowledged(sent)
    good = [(run_of(topic, entry.sent), entry.at_s) for entry in acked if not entry.sent.poison]
    field.upstream.told([Entry(run, f"{phase.name}!outside", at_s) for run, at_s in good])
    await field.upstream.all_ended([run for run, _ in good], QUIET_S)
    async with asyncio.timeout(QUIET_S):
        while await lags(field.log, field.topology):  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.2)
    mesh = field.topology
    leaving = [rule.name for rule in mesh.topics.values() if rule.egress]
    topics = [word for name in (topic, mesh.outcomes, mesh.dead, *leaving) for word in ("--topic", name)]
    status = await (await _begun(field, "read", seen, *topics)).wait()
    assert status == 0, f"the consumer ended with status {status}"
    lines = [json.loads(line) for line in seen.read_text().splitlines()]
    late_s = sorted(field.upstream.ended[run] - at_s for run, at_s in good if run in field.upstream.ended)
    phase.facts |= judge(acked, lines, (effect.note for effect in effects_of(field.folder / "effects")))
    phase.facts |= {"p50_s": round(late_s[len(late_s) // 2], 2), "worst_s": round(late_s[-1], 2)}


OUTSIDE = (
    Fault(
        "F37",
        "processes killed (-9) with clocks that are wrong and poison, seen from outside",
        outside,
        (
            Criterion("the ledger of a plain client agrees", lambda f: f.facts["wrong"] == []),
            Criterion("some clocks were wrong", lambda f: f.facts["clocks"] > 0),
        ),
        load=False,
    ),
)
