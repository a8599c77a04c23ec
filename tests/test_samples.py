"""The sample outputs of README and guides are what the mesh answers: ids, results and messages, word for word."""

import json
import shlex
from pathlib import Path

from mesh.testing import MeshTest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
REDRIVE = (ROOT / "docs" / "guide" / "failures-and-redrive.md").read_text("utf-8")


def shown(page: str, command: str) -> tuple[list[str], str]:
    """The words of a command that a page shows, and the output below it."""
    line = next(line for line in page.split("\n") if line.startswith(f"$ {command}"))
    return shlex.split(line)[3:], page.split(line, 1)[1].split("\n```", 1)[0].split("\n$ ", 1)[0]


async def test_the_request_of_the_readme_ends_as_shown() -> None:
    words, output = shown(README, 'mesh publish order.placed \'{"order_id":"o-1"')
    async with MeshTest(str(ROOT / "topics.yaml")) as mesh:
        run = await mesh.publish(words[0], json.loads(words[1]))
        outcome = await run.outcome()
    assert f"{outcome.ending} in" in output
    assert run.id in output
    for result in outcome.results:
        assert f"{result.type}  by {result.agent}" in output
        assert json.dumps(result.data, separators=(",", ":")) in output


async def test_the_ids_of_the_redrive_are_those_of_the_sample_orders() -> None:
    orders = [
        json.loads(line) for line in (ROOT / "agents" / "samples" / "orders.jsonl").read_text("utf-8").splitlines()
    ]
    order = next(order for order in orders if order["order_id"] == "order-0004")
    async with MeshTest(str(ROOT / "topics.yaml")) as mesh:
        run = await mesh.publish("order.placed", order)
        outcome = await run.outcome()
    assert f"run {run.id} ·" in REDRIVE
    assert outcome.ending == "completed"
