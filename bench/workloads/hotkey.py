"""hotkey: all tasks of an agent under one key, against tasks under many."""

from collections.abc import Sequence
from functools import partial

from bench.field import Setup, written
from bench.load import Payload, ask, throughput
from bench.report import Figure, middle
from bench.workloads import Workload

TEXT = written({"echo": "on: bench.ask, emits: bench.answer, lanes: 1024, key: text"})
MANY = 1_000


def keyed(keys: int, n: int) -> Payload:
    """A request whose task is ordered with those of the same text."""
    return ask(n) | {"text": f"{n % keys:04d} " + "what is the sum of these numbers? " * 4}


async def run(setup: Setup) -> Sequence[Figure]:
    """Runs a second with many keys and with one."""
    found: list[Figure] = []
    for keys in (MANY, 1):
        setup.say(f"{keys:,} keys")
        asked = await throughput(
            *(setup, TEXT, ["orchestrator"], ["worker"]), seconds=setup.seconds / 2, payload=partial(keyed, keys)
        )
        found += asked.figures(keys=keys)
    one, many = (next(f for f in found if f.name == "runs_per_s" and f.at["keys"] == keys) for keys in (1, MANY))
    share = middle("one_key_of_many", [one.value / many.value], "x")
    return [*found, share]


WORKLOAD = Workload(
    "hotkey",
    "one key against many",
    "As run1, but the agent's tasks are ordered by a field of the payload, of which there are a thousand values, then "
    "one: tasks of one key are done one after the other.",
    run,
)
