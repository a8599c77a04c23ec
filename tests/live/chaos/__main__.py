"""`python -m tests.live.chaos`: faults at full scale; writes bench/results/ and docs/reference/reliability.md."""

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.live.chaos.fault import FULL, SCALES, Fault, Scale
from tests.live.chaos.faults_board import BoardFault
from tests.live.chaos.field import COUNTED, Field, complaints
from tests.live.chaos.report import keep, write_page
from tests.live.chaos.table import ON_BOARD, ON_CLUSTER, ON_FILE, ON_KAFKA

TOGETHER = 6
"""Faults that act on one field after another; then they are judged, and what they came to is kept."""


async def trial(
    faults: list[Fault], scale: Scale, *, brokers: int, seed: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """Some faults, one after the other, on one field."""
    with tempfile.TemporaryDirectory(prefix="mesh-chaos-") as folder:
        async with Field(Path(folder), scale, brokers=brokers, seed=seed) as field:
            for fault in faults:
                print(f"{fault.id} {fault.title} …", flush=True)
                await field.run(fault)
                print(f"    {field.phases[-1][1]}", flush=True)
            rows, wrong = await field.verdict()
    return [row.as_json() for row in rows], complaints(rows, wrong)


async def board_trial(faults: list[BoardFault], scale: Scale) -> tuple[list[dict[str, Any]], list[str]]:
    """The same for faults of Redis that need no mesh."""
    rows, complaints = [], []
    for fault in faults:
        print(f"{fault.id} {fault.title} …", flush=True)
        with tempfile.TemporaryDirectory(prefix="mesh-chaos-") as folder:
            facts, wrong = await fault.act(Path(folder), scale)
        nothing = dict.fromkeys((*COUNTED, "calls_repeated"), 0) | {"p99_s": 0.0, "p50_s": 0.0}
        rows.append({**nothing, "fault": fault.id, "title": fault.title, "facts": facts, "failed": wrong, **facts})
        complaints += [f"{fault.id} {fault.title}: {text}" for text in wrong]
    return rows, complaints


def main() -> int:
    """Command line; exit status 1 when a criterion did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.chaos", description="break the mesh and count")
    known = sorted({*ON_KAFKA, *ON_CLUSTER, *ON_BOARD, *(f"{id}-file" for id in ON_FILE)})
    parser.add_argument("names", nargs="*", metavar="FAULT", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--scale", choices=sorted(SCALES), default=FULL.name)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it would tell of every outage that is made here
    names = given.names or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown fault {unknown[0]!r}; known: {', '.join(known)}")
    scale = SCALES[given.scale]
    fields = (
        ("kafka", 1, [ON_KAFKA[name] for name in names if name in ON_KAFKA]),
        ("kafka, 3 brokers", 3, [ON_CLUSTER[name] for name in names if name in ON_CLUSTER]),
        ("embedded file", 0, [ON_FILE[name[:-5]] for name in names if name.endswith("-file")]),
    )
    failed = False
    for log, brokers, faults in fields:
        for start in range(0, len(faults), TOGETHER):
            some = faults[start : start + TOGETHER]
            rows, wrong = asyncio.run(trial(some, scale, brokers=brokers, seed=given.seed))
            keep(rows, log=log, scale=scale, seed=given.seed)
            print("\n".join(wrong) or f"{log}: all is well", flush=True)
            failed |= bool(wrong)
    if boards := [ON_BOARD[name] for name in names if name in ON_BOARD]:
        rows, wrong = asyncio.run(board_trial(boards, scale))
        keep(rows, log="redis", scale=scale, seed=given.seed)
        print("\n".join(wrong) or "redis: all is well")
        failed |= bool(wrong)
    write_page()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
