"""The worker: one or more agents in one process, each a member of its own group on mesh.tasks.<agent>.

    answer acknowledged by the inbox  →  task finished  →  contiguous prefix committed

Tasks run in lanes (same ordering key in order, others in parallel). Answers of many tasks travel in one append. A
task whose process dies is read again by whoever gets the partition; its answer has the same id, so the second one
is dropped by the orchestrator. Retries are the orchestrator's: here a task runs once and says how it went.

`service` holds the agents of a process, `consumer` one of them at work, `attempt` one piece of work and its time,
`invocation` the call of its function, `assignment` what is known of a partition, `poison` how a task begins that may
have killed its process, `outbox` the answers under way, `cache` what was answered before.
"""

from mesh.services.worker.consumer import AgentConsumer
from mesh.services.worker.counts import Counts
from mesh.services.worker.service import Worker

__all__ = ["AgentConsumer", "Counts", "Worker"]
