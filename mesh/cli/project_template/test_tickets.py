"""The agents on the real orchestrator and the real worker, with a log in a temporary file."""

import asyncio
from pathlib import Path

from mesh.testing import MeshTest

TOPOLOGY = str(Path(__file__).with_name("topics.yaml"))


def test_a_ticket_about_an_invoice_goes_to_billing() -> None:
    async def scenario() -> None:
        async with MeshTest(TOPOLOGY) as mesh:
            run = await mesh.publish("ticket.opened", {"id": "t-1", "text": "My invoice is wrong"})
            outcome = await run.outcome()
        assert outcome.ending == "completed"
        (result,) = outcome.results
        assert (result.type, result.data["team"], result.data["number"]) == ("ticket.answered", "billing", 1)

    asyncio.run(scenario())
