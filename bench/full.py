"""The whole report, `make bench`: every workload embedded, most on Kafka too, growth, the peers, plots and pages.

    python -m bench.full                            about a quarter of an hour on two cores
    python -m bench.full --only run1 --minutes 3    parts whose name holds a word
    python -m bench.full --plan                     what would be run, and how long it takes

A broker is started with scripts/kafka, and stopped. If that is impossible, the parts that need one are left out. Peers
get an environment of their own (.peers); if it cannot be made, they are left out. Both are reported, and neither is a
failure. Results go to bench/results, the pages to docs.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from bench.__main__ import broker
from bench.mesh_processes import ROOT
from bench.plan import MINUTES, SPARE_S, Part, plan, share, without_broker
from bench.report import RESULTS

PATIENCE: Final = 4
"""A part is ended when it takes so many times as long as planned, and a minute."""
END_S: Final = 30.0
PAGES_S: Final = 120.0
LOG: Final = "kafka://{broker}"
"""In the plan, until the broker's address is known."""


class Options(NamedTuple):
    """The options of the user."""

    to: Path
    docs: Path
    minutes: float
    only: Sequence[str]
    peers: bool
    seconds: float | None
    """Seconds of every part; None: as planned."""

    def parts(self) -> list[Part]:
        """Return the parts of the plan that are wanted."""
        every = plan(str(self.to), LOG, peers=self.peers)
        parts = [part for part in every if not self.only or any(word in part.what for word in self.only)]
        if self.seconds is None:
            return parts
        return [part._replace(seconds=self.seconds) if part.seconds else part for part in parts]


class Run:
    """Parts one after the other, each in a process of its own; what failed and what was left out is kept."""

    def __init__(self, parts: Sequence[Part], minutes: float) -> None:
        self.began = time.monotonic()
        self.failed: list[str] = []
        self.left_out: list[str] = []
        self._left = list(parts)
        self._limit_s = minutes * 60 - SPARE_S

    def passed_s(self) -> float:
        """Since the begin."""
        return time.monotonic() - self.began

    def without(self, what: str, left: Sequence[Part]) -> None:
        """Only these are left to run, since something could not be had."""
        self.left_out.append(what)
        self._left = list(left)

    def until(self, needs: str | None) -> None:
        """Run what comes before the first part that needs this; None: everything."""
        while self._left and (needs is None or needs not in self._left[0].needs):
            part = self._left[0]
            fits = share(self._left, self._limit_s - self.passed_s())
            takes = sum(each.takes_s(fits) for each in self._left)
            late = "" if fits == 1 else f", measuring {fits:.0%} of the planned time"
            print(
                f"\n== {_clock(self.passed_s())} {part.what}: about {part.takes_s(fits):.0f} s{late};"
                f" {len(self._left)} parts left, {_clock(takes)}",
                flush=True,
            )
            went = done(part.words(fits), PATIENCE * part.takes_s(fits) + 60)
            self._left = self._left[1:]
            if not went:
                self._fell_behind(part)

    def at(self, log: str) -> None:
        """The broker's address is known now."""
        url = log.removeprefix("kafka://")
        self._left = [
            part._replace(arguments=tuple(word.replace("{broker}", url) for word in part.arguments))
            for part in self._left
        ]

    def _fell_behind(self, part: Part) -> None:
        if part.module == "bench.peers.setup":
            left = [other for other in self._left if "peers" not in other.needs]
            self.without("the peers: their environment could not be made", left)
        else:
            self.failed.append(part.what)

    @property
    def needs_broker(self) -> bool:
        """Whether any part is left that does."""
        return any("broker" in part.needs for part in self._left)

    @property
    def left(self) -> list[Part]:
        """Parts that were not run yet."""
        return self._left


def done(words: Sequence[str], patience_s: float) -> bool:
    """Run a module to its end; False if it failed or had to be ended. Whatever it started ends with it."""
    process = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, start_new_session=True)
    try:
        return process.wait(patience_s) == 0
    except subprocess.TimeoutExpired:
        print(f"ended after {patience_s:.0f} s: it takes far longer than planned", flush=True)
        return False
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def asked_to_end() -> Iterator[None]:
    """SIGTERM ends what was started, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def report(options: Options) -> int:
    """Everything; how many parts failed."""
    parts = options.parts()
    say(parts)
    run = Run(parts, options.minutes)
    run.until("broker")
    if run.needs_broker:
        with broker() as log:
            if log:
                run.at(log)
            else:
                run.without("Kafka: no broker could be started here", without_broker(run.left))
            run.until(None)
    run.failed += pages(options.to, options.docs)
    print(f"\n== {_clock(run.passed_s())} in all")
    for what in run.left_out:
        print(f"   left out: {what}")
    for what in run.failed:
        print(f"   failed: {what}")
    return len(run.failed)


def pages(results: Path, docs: Path) -> list[str]:
    """Write docs/reference/benchmarks.md with its plots, and the numbers of docs/guide/scaling.md; what failed."""
    scaling = docs / "guide" / "scaling.md"
    if not scaling.exists():
        scaling.parent.mkdir(parents=True, exist_ok=True)
        scaling.write_bytes((ROOT / "docs" / "guide" / "scaling.md").read_bytes())
    made = {
        "docs/reference/benchmarks.md": ["bench.report_page", "--docs", str(docs / "reference")],
        "docs/guide/scaling.md": ["bench.scaling_page", "--page", str(scaling)],
    }
    return [page for page, words in made.items() if not done([*words, "--results", str(results)], PAGES_S)]


def say(parts: Sequence[Part]) -> None:
    """The plan."""
    for part in parts:
        print(f"   {part.takes_s():5.0f} s  {part.what}")
    print(f"   {sum(part.takes_s() for part in parts) / 60:5.1f} min in all, about", flush=True)


def _clock(seconds: float) -> str:
    return f"{max(0, round(seconds)) // 60}:{max(0, round(seconds)) % 60:02d}"


def main() -> None:
    """Command line; exit status 1 when a part failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.full", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="WORD,WORD…", help="parts whose name holds one of these words")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"that the whole may take; default: {MINUTES:g}")
    parser.add_argument("--seconds", type=float, help="that every part measures; to try it: its figures are worthless")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="measure them too")
    parser.add_argument("--plan", action="store_true", help="only say what would be run")
    parser.add_argument("--to", type=Path, default=RESULTS, metavar="FOLDER", help="where results are kept")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="FOLDER", help="where the pages are")
    given = parser.parse_args()
    only = [word.strip() for word in given.only.split(",") if word.strip()]
    options = Options(given.to.absolute(), given.docs.absolute(), given.minutes, only, given.peers, given.seconds)
    if given.plan:
        say(options.parts())
        return
    with asked_to_end():
        sys.exit(1 if report(options) else 0)


if __name__ == "__main__":
    main()
