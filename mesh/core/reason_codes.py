"""Every reason code in one table: its meaning, where it appears, and what to do. docs/reference/protocol.md shows it.

Programs rely on codes, so a code never changes its meaning. The sentences beside it are for people and may change.
"""

from typing import Final, NamedTuple

CALLER: Final = "caller"
"""Raised to the caller, or answered on mesh.outcomes to the client that waits for the run."""
DEAD: Final = "dead"
"""On mesh.dead, with the bytes."""
OUTCOME: Final = "outcome"
"""In the outcome of the run, as a refusal or a failure."""
COUNTED: Final = "counted"
"""Counted by the orchestrator, without any other effect."""


class Reason(NamedTuple):
    """The row of one code. `seen_at`: the places where the code appears. `remedy`: what to do about it."""

    meaning: str
    seen_at: tuple[str, ...]
    remedy: str


_RECORD = (DEAD,)
_REQUEST = (CALLER, DEAD)
_HOP = _TASK = (OUTCOME, DEAD)
_SOFT = (COUNTED,)
_CALL = (CALLER,)
_BOARD = (*_TASK, CALLER)

REASONS: Final[dict[str, Reason]] = {
    # ------------------------------------------------------------------------------------- records and requests
    "empty_value": Reason("the record or body is empty", _REQUEST, "send a JSON document; tombstones have no meaning"),
    "unparseable": Reason("the body is not one JSON document in UTF-8", _REQUEST, "fix the producer"),
    "not_cloudevents": Reason("`specversion` is missing or not 1.0", _REQUEST, "send CloudEvents 1.0"),
    "missing_header": Reason("a required attribute is missing or empty", _REQUEST, "add the header it names"),
    "bad_header": Reason(
        "an attribute has no value, appears twice, is not UTF-8, or does not parse", _REQUEST, "fix the header it names"
    ),
    "later_version": Reason(
        "the record was written by a later version of the mesh than reads it",
        _RECORD,
        "update this process, then redrive the dead letter",
    ),
    "bad_id": Reason(
        "an id is missing, empty, too long, or contains control characters; a run id is 1 to 128 of `A-Za-z0-9._:-`",
        _REQUEST,
        "send an id of that form",
    ),
    "bad_string": Reason(
        "a text contains control characters, bidirectional marks, or lone surrogates", _REQUEST, "clean the text"
    ),
    "bad_number": Reason(
        "a number is NaN, infinite, or an integer beyond 64 bits", _REQUEST, "send it as text, or use larger units"
    ),
    "bad_time": Reason("`time` is not an RFC 3339 time", _REQUEST, "send one, such as 2026-11-20T12:00:00Z"),
    "bad_deadline": Reason(
        "`expirytime` is not an RFC 3339 time, or had passed when the request arrived",
        (*_REQUEST, OUTCOME),
        "send a later one",
    ),
    "duplicate_key": Reason("a key appears twice in one object", _REQUEST, "send each key once"),
    "too_deep": Reason("JSON is nested deeper than 32", _REQUEST, "flatten it"),
    "too_large": Reason(
        "a payload, text, header or board value is over its limit", _REQUEST, "send less, or send a link to the data"
    ),
    "unknown_type": Reason(
        "no ingress topic declares this type",
        (*_REQUEST, OUTCOME),
        "use the type it suggests, or declare it in topics.yaml",
    ),
    "wrong_topic": Reason(
        "a record of an ingress topic has the type of another ingress topic",
        _REQUEST,
        "send it to the topic that declares its type",
    ),
    "forged_source": Reason(
        "a foreign event has a source of the mesh: `/topics/…`, `/agents/…`, `/mesh/…` or `/runs/…`",
        _REQUEST,
        "send the URI of your own system",
    ),
    "foreign_run": Reason(
        "a record of an ingress topic names a run to join, and the topic does not allow that",
        _REQUEST,
        "omit `ce_correlationid`, or set `join: true` for the topic",
    ),
    "other_topology": Reason(
        "another version of topics.yaml admitted the event, and the version that decides its run lacks the type",
        (*_HOP, COUNTED),
        "start the newer version, then redrive the dead letter with `--as-new`",
    ),
    "unknown_kind": Reason(
        "this topic does not take that `ce_meshkind`", (DEAD, COUNTED), "write to ingress topics, not to the mesh's own"
    ),
    "key_mismatch": Reason("the record's key is not its run id", _RECORD, "key records of mesh.inbox by run id"),
    "misrouted": Reason(
        "the record is in another partition than its key requires",
        _RECORD,
        "partition by murmur2 of the key, or of the home in it",
    ),
    "idempotency_conflict": Reason(
        "a request was sent again under the same id with another body", _REQUEST, "give a new request a new id"
    ),
    "already_terminal": Reason(
        "a request or a cancellation arrived for a run that has ended",
        (*_REQUEST, COUNTED),
        "send the request under another correlation id",
    ),
    # ------------------------------------------------------------------------------------------------- refusals
    "depth": Reason("the hop would be deeper than the limit", _HOP, "raise `depth_max`, or shorten the path"),
    "cycle": Reason(
        "the hop would call an agent of its own path again with the same input",
        _HOP,
        "change the input, or end the loop",
    ),
    "visits": Reason(
        "the agent would be visited more often than its limit", _HOP, "raise `visits_max`, or end the loop"
    ),
    "tasks": Reason("the run would have more tasks than the limit", _HOP, "raise `tasks_max`, or emit less"),
    "requests": Reason("the run got as many requests as it may have tasks", _HOP, "use more correlation ids"),
    "fanout": Reason("one result has more events than the limit", _HOP, "raise `fanout_max`, or emit less"),
    "payload": Reason(
        "an emitted payload is over the limit", _HOP, "raise `payload_bytes_max`, or put the data on the board"
    ),
    "state": Reason("the run would hold more bytes than the limit", _HOP, "raise `state_bytes_max`, or emit less"),
    "budget_usd": Reason("the run cannot afford the task in dollars", _HOP, "raise the budget, or reserve less"),
    "budget_tokens": Reason("the run cannot afford the task in tokens", _HOP, "raise the budget, or reserve less"),
    "undeclared_type": Reason("an agent emitted a type that it does not declare", _HOP, "list it under `emits`"),
    "bad_batch": Reason("a batch is unreadable, or was sent where one event is required", _HOP, "fix the sender"),
    "deadline": Reason(
        "the run's deadline passed before the run ended", (OUTCOME,), "allow more time, or find the slow agent"
    ),
    # ------------------------------------------------------------------------------------------------- failures
    "exception": Reason(
        "the agent's function raised an exception", _TASK, "read the stack, then redrive the dead letter"
    ),
    "timed_out": Reason("the function took longer than its timeout", _TASK, "raise `timeout`, or make it faster"),
    "expired": Reason("the run's deadline stopped a task; its timer ends the run", _SOFT, "allow more time"),
    "run_ended": Reason("a task was stopped because its run had ended; its result is ignored", _SOFT, "nothing"),
    "schema": Reason("the payload does not fit the function's parameter", _TASK, "fix the sender or the model"),
    "bad_result": Reason(
        "the function's result is not an event, contradicts its declared type, or cannot be written as JSON exactly",
        _TASK,
        "return a Payload, a list of them, Emit, RetryLater, Reject or None; declare how the field named is written",
    ),
    "later": Reason("the agent asked for a retry at a time too late for the run", _TASK, "allow more time"),
    "left_alone": Reason(
        "the agent was not called because its breaker is open, for longer than the run allows",
        _TASK,
        "find out why the agent fails; allow more time, or name a `fallback`",
    ),
    "rejected": Reason("the agent rejected this task, with a reason", _TASK, "read its reason"),
    "crash_loop": Reason(
        "three processes died during this task, the third while it ran nothing else; in a replay, one died",
        _TASK,
        "find what ends the process (memory, os._exit, a native library), then redrive the dead letter",
    ),
    "bad_usage": Reason(
        "the function reported an invalid usage; its reservation is charged", _BOARD, "report amounts of 0 or more"
    ),
    "overspent": Reason(
        "a result claims more than its attempt was allowed to spend; only the allowance is charged",
        _SOFT,
        "let the agent reserve what it needs, or raise the budget; check which process wrote the result",
    ),
    "unknown": Reason("a failure has no reason code", _TASK, "send `mesh-error-code` with it"),
    "refused_too_large": Reason(
        "the log refused the record: too large", _TASK, "emit less, or raise max.message.bytes"
    ),
    "refused_unauthorized": Reason("the log refused the record: no right to write", _TASK, "grant the right"),
    "refused_unknown_topic": Reason("the log refused the record: no such topic", _TASK, "`mesh topics create`"),
    "refused_invalid": Reason("the log refused the record: not well formed", _TASK, "read the message beside the code"),
    # ---------------------------------------------------------------------------------- drops, counted and harmless
    "duplicate_request": Reason(
        "the same request was sent again; its run continues", (CALLER, COUNTED), "nothing; another id starts a new run"
    ),
    "unknown_run": Reason(
        "an event arrived for an unknown run, or a redrive for a run that is no longer kept",
        (COUNTED, DEAD),
        "redrive the dead letter with `--as-new`",
    ),
    "unknown_task": Reason(
        "an answer to a task that is not open", _SOFT, "nothing: a repeated task was answered twice"
    ),
    "late_result": Reason("an answer of an older attempt, or for a run that ended", _SOFT, "nothing"),
    "fell_back": Reason("a fallback got the task of an agent that failed or whose breaker is open", _SOFT, "nothing"),
    "cascade": Reason(
        "too many agents failed in a row; the run is paused", _SOFT, "find the cause, then `mesh run resume`"
    ),
    "already_paused": Reason("a pause was requested for a paused run", _SOFT, "nothing"),
    "not_paused": Reason("a resume was requested for a run that is not paused", _SOFT, "nothing"),
    "duplicate_redrive": Reason("the same redrive was sent again; the first one counts", _SOFT, "nothing"),
    "nothing_to_redrive": Reason(
        "a redrive names a task that did not fail or was redriven before, or a letter that is no refusal of its run",
        _SOFT,
        "nothing",
    ),
    "unknown_agent": Reason(
        "a redrive is for an agent that the run's topology lacks", _RECORD, "redrive it `--as-new`"
    ),
    "late_timer": Reason("a timer fired when nothing waited for it any more", _SOFT, "nothing"),
    "late_switch": Reason("a statement of mesh.control was repeated or out of date", _SOFT, "nothing"),
    "bad_switch": Reason(
        "a record of mesh.control, or its relay, names no switch that exists",
        (COUNTED, DEAD),
        "write there with `mesh stop` and `mesh resume`",
    ),
    "join_repeated": Reason(
        "the join has this input already",
        _SOFT,
        "emit one event of this type per branch, or write `otherwise: ignore` beside the join",
    ),
    "wrong_agent": Reason(
        "an agent answered for another, or a task is on another agent's topic",
        (COUNTED, DEAD),
        "check which process writes there",
    ),
    "claimed_lineage": Reason(
        "a result claims another depth or path than its task has; those of the task count",
        _SOFT,
        "check which process wrote it",
    ),
    # -------------------------------------------------------------------------------------- errors raised to callers
    "mesh_error": Reason("an error without a code of its own", _CALL, "read the message"),
    "usage": Reason("an argument of a command is wrong", _CALL, "`--help` shows the form"),
    "ambiguous": Reason("a name is that of several runs or letters", _CALL, "give an id; the error names them"),
    "bad_agent": Reason("the function cannot be used as an agent", _CALL, "fix its signature"),
    "bad_name": Reason("a name in topics.yaml contains a character that is not allowed", _CALL, "rename it"),
    "bad_value": Reason("a value in a file or an option has the wrong form or unit", _CALL, "write it as shown"),
    "bad_condition": Reason("a condition or a path does not parse", _CALL, "fix it at the column named"),
    "bad_key": Reason(
        "a board key contains a character that is not allowed", _BOARD, "use 1 to 256 of `A-Za-z0-9._:/-`"
    ),
    "bad_op_id": Reason("an operation id contains a character that is not allowed", _CALL, "use those of a board key"),
    "bad_by": Reason("a writer's name is too long or not printable", _CALL, "name the agent or the person"),
    "bad_limit": Reason("a limit contradicts itself", _BOARD, "give a limit that can be kept"),
    "bad_pattern": Reason(
        "a glob contains a character that is not allowed", _BOARD, "use those of a board key, `*` and `?`"
    ),
    "bad_version": Reason(
        "that is not a version of a board entry", _BOARD, "pass the version that get or put returned"
    ),
    "not_an_array": Reason("an append to a value that is not an array", _BOARD, "use another key"),
    "not_a_counter": Reason("an addition to a value that is not an integer", _BOARD, "use another key"),
    "op_id_reused": Reason(
        "an operation id was used again for another kind of write", _CALL, "give each write its own"
    ),
    "invalid": Reason("the log or its file cannot take what it was given", _CALL, "read the message beside the code"),
    "unauthorized": Reason("the log denies the right to do that", _CALL, "grant the right"),
    "unknown_topic": Reason("the topic does not exist", _CALL, "`mesh topics create`"),
    "config_invalid": Reason(
        "a setting is unknown, malformed or contradicts another", _CALL, "`mesh config show --origin`"
    ),
    "foreign_log": Reason(
        "the topics with this prefix belong to another mesh",
        _CALL,
        "write another `prefix` in topics.yaml, or name another log",
    ),
    "topology_invalid": Reason("topics.yaml was refused", _CALL, "fix the lines it names; `mesh check` shows them all"),
    "topics_invalid": Reason("topics are missing or differ from their declaration", _CALL, "`mesh topics create`"),
    "not_found": Reason("the named run, topic, agent or dead letter does not exist", _CALL, "check the name"),
    "unavailable": Reason("an outside system did not answer in time", _BOARD, "try again"),
    "environment": Reason(
        "the machine lacks open files, memory, disk or threads", _CALL, "raise the limit that the message names"
    ),
    "log_unavailable": Reason("the log did not answer in time", _CALL, "try again; is it running?"),
    "board_unavailable": Reason("the board did not answer in time", _BOARD, "try again; is it running?"),
    "board_incomplete": Reason(
        "the board may have lost the value that a write depends on", _BOARD, "try again: the value is being restored"
    ),
    "fenced": Reason("a commit came from a member that no longer owns the partition", _CALL, "nothing"),
    "not_restorable": Reason(
        "neither a checkpoint nor the remaining records give the state of an inbox partition",
        _CALL,
        "read the message; keep mesh.checkpoints, mesh.topologies and the inbox for as long as runs last",
    ),
    "worker_spent": Reason(
        "too many calls of agents continued after they were cancelled, so the process ended",
        _CALL,
        "start it again (`mesh up --workers` does); let agents end when they are cancelled",
    ),
    "refused": Reason("the mesh does not do that, or not without `--yes`", _CALL, "read the reason"),
    "stale_version": Reason("another writer changed the board entry", _BOARD, "read it again, then write"),
    "wait_timeout": Reason("the awaited event did not happen in time; nothing was cancelled", _CALL, "wait longer"),
}
