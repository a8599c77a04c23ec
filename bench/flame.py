"""Flame graphs of a run's CPU time: `python -m bench.flame run1 --to docs/reference/flames --mark before`.

    python -m bench.flame run1 --to FOLDER                  embedded
    python -m bench.flame run1 --to FOLDER --broker         on a broker that is started and stopped here
    python -m bench.flame run1 --to FOLDER --log kafka://127.0.0.1:9092

One orchestrator and one worker run under load, with py-spy attached to each. It is found on PATH, in .venv, or by
--py-spy (`pip install 'agent-mesh[bench]'` installs it). The files are MARK-SERVICE-LOG.svg. Width is CPU time; a box
was called by the box below it. Frames below the first one of the mesh are left out.
"""

import argparse
import asyncio
import hashlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple

from bench.__main__ import broker
from bench.field import Setup
from bench.load import burst, watching
from bench.mesh_processes import Child
from bench.report import commit
from mesh.cli.framework.text import seconds
from mesh.core.errors import MeshError, NotFound

WORKLOADS: Final = ("run1", "run3", "join", "fan")
SERVICES: Final = ("orchestrator", "worker")
RATE: Final = 250
"""Samples a second: enough for shares of a percent within ten seconds, and little beside the work."""
SHARE_MIN: Final = 0.002
"""Boxes narrower than this are left out."""
WIDTH, ROW, LETTER = 1200, 16, 6.3
PLUMBING: Final = (
    "runpy",
    "asyncio/",
    "threading.py",
    "concurrent/futures/",
    "typer/",
    "click/",
    "mesh/cli/",
    "<frozen",
)
WAITING: Final = ("Condition.wait (", "EpollSelector.select (", "Writer._next_group (", "_worker (concurrent/futures/")
"""Innermost frames of idle threads; py-spy cannot detect all of them."""
AREAS: Final = (
    ("mesh/core/", "core", 28),
    ("mesh/services/", "services", 8),
    ("mesh/adapters/", "adapters", 48),
    ("mesh/runtime/", "runtime", 95),
    ("aiokafka/", "aiokafka", 275),
    ("asyncio/", "asyncio", 205),
)
OTHER: Final = ("other", 110)
Stack = tuple[str, ...]


class Box(NamedTuple):
    """One function, called by what lies below it."""

    name: str
    depth: int
    begin: int
    """Samples to its left."""
    samples: int


def stacks(raw: Iterable[str]) -> Counter[Stack]:
    """Samples of each stack that works, from py-spy's lines `frame;frame;frame 12`."""
    found: Counter[Stack] = Counter()
    for line in raw:
        frames, _, count = line.rstrip("\n").rpartition(" ")
        stack = tuple(frames.split(";"))
        if not stack[-1].startswith(WAITING):
            found[_ours(stack)] += int(count)
    return found


def _ours(stack: Stack) -> Stack:
    """Without the plumbing at its bottom; if there is nothing else, where it ends."""
    first = next((n for n, frame in enumerate(stack) if not _in(frame, PLUMBING)), len(stack) - 2)
    return stack[max(0, first) :]


def _in(frame: str, folders: Sequence[str]) -> bool:
    file = frame.rpartition("(")[2]
    return any(folder in file for folder in folders) or frame.startswith("<module>")


def boxes(found: Counter[Stack]) -> list[Box]:
    """Stacks that begin alike side by side, callers below what they call; too narrow ones left out."""
    made: list[Box] = []
    least = max(1.0, found.total() * SHARE_MIN)

    def lay(group: list[tuple[Stack, int]], depth: int, begin: int) -> None:
        by_name: dict[str, list[tuple[Stack, int]]] = {}
        for stack, samples in group:
            if len(stack) > depth:
                by_name.setdefault(stack[depth], []).append((stack, samples))
        for name, members in sorted(by_name.items()):
            size = sum(samples for _, samples in members)
            if size >= least:
                made.append(Box(name, depth, begin, size))
                lay(members, depth + 1, begin)
            begin += size

    lay(list(found.items()), 0, 0)
    return made


def svg(found: Counter[Stack], title: str) -> str:
    """A drawing of its own, without scripts. The same stacks give the same text."""
    total, made = found.total(), boxes(found)
    rows = max((box.depth for box in made), default=0) + 1
    height = (rows + 3) * ROW + 8
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace"'
    lines = [f'{head} font-size="11">', f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>']
    lines.append(f'<text x="4" y="14" font-size="13">{escape(title)} · {total:,} samples</text>')
    lines += _legend()
    for box in made:
        x, width = box.begin / total * WIDTH, box.samples / total * WIDTH
        y = height - (box.depth + 1) * ROW - 4
        tooltip = escape(f"{box.name} {box.samples / total:.1%}")
        rect = (
            f'<rect x="{x:.1f}" y="{y}" width="{max(0.3, width - 0.5):.1f}" height="{ROW - 1}" fill="{_colour(box)}"/>'
        )
        letters = int((width - 4) / LETTER)
        text = f'<text x="{x + 2:.1f}" y="{y + 11}">{escape(_cut(box.name, letters))}</text>' if letters > 2 else ""
        lines.append(f"<g><title>{tooltip}</title>{rect}{text}</g>")
    return "\n".join([*lines, "</svg>", ""])


def _cut(name: str, letters: int) -> str:
    short = name.partition(" (")[0]
    whole = f"{short}  {name.rpartition('(')[2].rstrip(')').rpartition('/')[2].partition(':')[0]}"
    return next((text for text in (whole, short) if len(text) <= letters), short[: letters - 1] + "…")


def _legend() -> Iterator[str]:
    for n, (name, hue) in enumerate([*((name, hue) for _, name, hue in AREAS), OTHER]):
        yield f'<rect x="{4 + n * 90}" y="20" width="11" height="11" fill="hsl({hue},75%,68%)"/>'
        yield f'<text x="{19 + n * 90}" y="30">{name}</text>'


def _colour(box: Box) -> str:
    hue = next((hue for folder, _, hue in AREAS if folder in box.name), OTHER[1])
    shade = 62 + hashlib.sha256(box.name.encode()).digest()[0] % 14
    return f"hsl({hue},75%,{shade}%)"


# ---------------------------------------------------------------------------------------------------------- measuring


def spy(given: str) -> str:
    """Return the path of py-spy. Raises NotFound."""
    beside = Path(sys.executable).with_name("py-spy")
    found = given or shutil.which("py-spy") or (str(beside) if beside.exists() else "")
    if not found or shutil.which(found) is None:
        remedy = "`pip install 'agent-mesh[bench]'` brings it; --py-spy names one elsewhere"
        raise NotFound("there is no py-spy", where="bench.flame", remedy=remedy)
    return found


async def recorded(program: str, child: Child, seconds: float, path: Path) -> Counter[Stack]:
    """Record one process. Raises MeshError when py-spy lacks the right, or found no sample."""
    assert child.process is not None
    command = [program, "record", "--duration", str(max(1, round(seconds))), "--rate", str(RATE), "--format", "raw"]
    looking = await asyncio.create_subprocess_exec(
        *(*command, "--function", "--output", str(path), "--pid", str(child.process.pid)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await looking.communicate()
    found = stacks(_lines(path))
    if looking.returncode or not found:
        words = said.decode("utf-8", "replace").strip()[-300:] or "it saw nothing"
        raise MeshError(f"py-spy failed: {words}", where="bench.flame", remedy="It may need root, or ptrace allowed")
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


async def profiles(workload: str, setup: Setup, program: str) -> dict[str, Counter[Stack]]:
    """Service → stacks, both seen at the same time, under bursts that follow one another."""
    text = import_module(f"bench.workloads.{workload}").TEXT
    first = 3 if workload == "fan" else 500
    services = [[name] for name in SERVICES]
    with tempfile.TemporaryDirectory(prefix="mesh-flame-") as folder:
        async with setup.field(text) as field, field.up(*services) as children, watching(field) as outcomes:
            await burst(field.mesh, outcomes, first)
            looking = [
                asyncio.ensure_future(recorded(program, child, setup.seconds, Path(folder) / name))
                for name, child in zip(SERVICES, children, strict=True)
            ]
            while not all(look.done() for look in looking):
                await burst(field.mesh, outcomes, first * 4)
            return dict(zip(SERVICES, await asyncio.gather(*looking), strict=True))


def drawn(workload: str, setup: Setup, program: str, folder: Path, mark: str) -> list[Path]:
    """Measure, and write one file a service."""
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for service, found in asyncio.run(profiles(workload, setup, program)).items():
        when = time.strftime("%Y-%m-%d", time.gmtime())
        title = f"{workload}, {service} on {setup.kind} · commit {commit() or 'unknown'}, {when} · {RATE}/s"
        path = folder / f"{mark}-{service}-{setup.kind}.svg"
        path.write_text(svg(found, title), "utf-8")
        written.append(path)
    return written


def main() -> None:
    """Command line; exit status 1 when nothing could be drawn."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.flame", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--mark", default="now", help="how the files begin: before, after")
    parser.add_argument("--log", default="", help="kafka://HOST:PORT; default: an embedded log in a temporary folder")
    parser.add_argument("--broker", action="store_true", help="start a broker with scripts/kafka, and stop it")
    parser.add_argument("--for", dest="time", default="10s", metavar="TIME", help="how long py-spy looks")
    parser.add_argument("--py-spy", default="", metavar="PATH", help="default: the one on PATH, or in this environment")
    given = parser.parse_args()
    try:
        program = spy(given.py_spy)
        with broker() if given.broker else nullcontext(given.log) as log:
            if given.broker and not log:
                sys.exit(1)
            setup = Setup(log, seconds=seconds("--for", given.time))
            for path in drawn(given.workload, setup, program, given.to, given.mark):
                print(path)
    except (MeshError, RuntimeError, TimeoutError) as error:
        sys.exit(f"error: {error or 'the runs did not end in time'}")


if __name__ == "__main__":
    main()
