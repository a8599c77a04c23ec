"""Names of spans, attributes and links: the only place where they are written.

Messaging: semantic conventions of OpenTelemetry 1.44.0 (status: development). GenAI: those of 1.41.1. The Python
package of these names renames them between minor versions, so they are copied. `mesh.…` has no convention.
"""

from typing import Final

# -------------------------------------------------------------------------------------------------------- messaging
SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"
GROUP: Final = "messaging.consumer.group.name"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION_ID: Final = "messaging.message.conversation_id"
KAFKA_OFFSET: Final = "messaging.kafka.offset"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
PROCESS: Final = "process"
SEND: Final = "send"
DECIDE: Final = "decide"
# ------------------------------------------------------------------------------------------------------------ GenAI
GENAI_OPERATION: Final = "gen_ai.operation.name"
GENAI_AGENT: Final = "gen_ai.agent.name"
GENAI_CONVERSATION: Final = "gen_ai.conversation.id"
INVOKE_AGENT: Final = "invoke_agent"
# --------------------------------------------------------------------------------------------------------- the mesh
OFFSET: Final = "mesh.log.offset"
TASK_ID: Final = "mesh.task.id"
ATTEMPT: Final = "mesh.task.attempt"
DEPTH: Final = "mesh.task.depth"
EVENT_TYPE: Final = "cloudevents.event_type"
ENDING: Final = "mesh.run.ending"
EFFECTS: Final = "mesh.decision.effects"
COST_USD: Final = "mesh.cost.usd"
TOKENS: Final = "mesh.usage.tokens"
KEPT: Final = "mesh.trace.kept"
LINK: Final = "mesh.link"
PREVIOUS_ATTEMPT: Final = "previous attempt"
DEAD_LETTER: Final = "dead letter"
BAGGAGE_RUN: Final = "mesh.run.id"

ATTRIBUTES: Final[tuple[tuple[str, str, str], ...]] = (
    (SYSTEM, "process, send, decide", "`kafka`, or `sqlite` for the embedded log"),
    (OPERATION_NAME, "process, send, decide", "`process`, `send` or `decide`"),
    (OPERATION_TYPE, "process, send, decide", "`process` or `send`"),
    (DESTINATION, "process, send, decide", "topic"),
    (PARTITION, "process, decide", "partition of the record, as text"),
    (KAFKA_OFFSET, "process, decide", "offset of the record, on Kafka"),
    (OFFSET, "process, decide", "offset of the record, on the embedded log"),
    (GROUP, "process, decide", "consumer group"),
    (MESSAGE_ID, "process, send, decide", "`ce_id` of the event"),
    (CONVERSATION_ID, "process, send, decide", "run id"),
    (SERVER_ADDRESS, "process, send, decide", "first broker of the log's address, on Kafka"),
    (SERVER_PORT, "process, send, decide", "its port"),
    (ERROR_TYPE, "all", "class of the exception, else the reason code, of a failure or refusal; else absent"),
    (EVENT_TYPE, "process, send, decide", "type of the event"),
    (GENAI_OPERATION, "invoke_agent", "`invoke_agent`"),
    (GENAI_AGENT, "invoke_agent, process of tasks", "name of the agent"),
    (GENAI_CONVERSATION, "invoke_agent", "run id"),
    (TASK_ID, "process of tasks", "task id, the same for every attempt"),
    (ATTEMPT, "process of tasks", "which attempt, from 1"),
    (DEPTH, "process of tasks", "hops from the request"),
    (COST_USD, "process of tasks", "what the attempt reported to have spent, if anything"),
    (TOKENS, "process of tasks", "tokens that it reported, if any"),
    (ENDING, "decide", "how the run ended, if this event ended it"),
    (EFFECTS, "decide", "number of effects of the decision"),
    (
        KEPT,
        "process, send, decide",
        "why it is exported, sampled or not: `failed`, `refused` or `slow`",
    ),
)
"""Name of an attribute, the spans that have it, and its value. docs/reference/traces.md is generated from it."""
