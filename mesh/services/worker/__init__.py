"""The worker: one or more agents in one process, each a member of its own group on mesh.tasks.<agent>.

    answer acknowledged by the inbox  →  task finished  →  contiguous prefix committed

Tasks run in lanes: those with the same ordering key in order, others in parallel. One append carries the answers of
many tasks. A task whose process dies is read again by the next owner of the partition; its answer has the same id, so
the orchestrator drops the second one. The orchestrator retries: a worker runs a task once and reports the result.

`service` runs all agents of a process in one `environment`, `consumer` one of them. `partitions` takes partitions over
and commits, `assignment` is the state of one. `attempt` is one piece of work and its time limit, `invocation` the call
of the function, `lifespans` its resources. `poison` begins tasks that may have killed a process.
`outbox` appends answers, `cache` keeps them for repeated tasks.
"""

from mesh.services.worker.consumer import AgentConsumer
from mesh.services.worker.counts import Counts
from mesh.services.worker.environment import WorkerOptions
from mesh.services.worker.service import Worker

__all__ = ["AgentConsumer", "Counts", "Worker", "WorkerOptions"]
