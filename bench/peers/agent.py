"""Our side's agent: `bench.agents.echo`, which can be made slow and written down as the peers' work can.

PEERS_WORK_MS: how long a task takes; PEERS_TOUCH: file that grows by a byte at each begin of a task.
"""

import os

from bench.agents import Answer, Ask
from bench.peers.slow import Slowness
from mesh import agent

SLOWNESS = Slowness.of(os.environ.get("PEERS_WORK_MS", "0"), os.environ.get("PEERS_TOUCH", ""))


@agent
async def echo(ask: Ask) -> Answer:
    """Add the numbers up."""
    await SLOWNESS.wait()
    return Answer(id=ask.id, total=sum(ask.numbers))
