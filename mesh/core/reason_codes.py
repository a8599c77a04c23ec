"""Every reason code, in one table: meaning, receivers and remedy. docs/reference/protocol.md is generated from it.

A code is for programs and never changes its meaning; the sentence that comes with it is for people and may.
"""

from typing import Final, NamedTuple

CALLER: Final = "caller"
"""Raised to whoever called, or answered on mesh.outcomes to whoever waits for the run of a request."""
DEAD: Final = "dead"
"""On mesh.dead, with the bytes."""
OUTCOME: Final = "outcome"
"""In the outcome of the run, as a refusal or a failure."""
COUNTED: Final = "counted"
"""Counted by the orchestrator; nothing happens."""


class Reason(NamedTuple):
    """`seen_at`: the places where the code appears. `remedy`: what to do about it."""

    meaning: str
    seen_at: tuple[str, ...]
    remedy: str


_RECORD = (DEAD,)
_REQUEST = (CALLER, DEAD)
_HOP = (OUTCOME, DEAD)
_TASK = (OUTCOME, DEAD)
_SOFT = (COUNTED,)
_CALL = (CALLER,)

REASONS: Final[dict[str, Reason]] = {
    # ------------------------------------------------------------------------------------- records and requests
    "empty_value": Reason(
        "the record or body is empty", _REQUEST, "send a JSON document; tombstones mean nothing here"
    ),
    "unparseable": Reason("the body is not one JSON document in UTF-8", _REQUEST, "mend the producer"),
    "not_cloudevents": Reason("`specversion` is missing or not 1.0", _REQUEST, "send CloudEvents 1.0"),
    "missing_header": Reason("a required attribute is missing or empty", _REQUEST, "add the header it names"),
    "bad_header": Reason(
        "an attribute has no value, stands twice, is not UTF-8, or does not parse", _REQUEST, "mend the header it names"
    ),
    "bad_id": Reason(
        "an id is missing, empty or too long, or holds control characters; a run id has other characters than"
        " `A-Za-z0-9._:-` or more than 128",
        _REQUEST,
        "send an id of that form",
    ),
    "bad_string": Reason(
        "a text holds control characters, marks that turn its direction, or lone surrogates", _REQUEST, "clean the text"
    ),
    "bad_number": Reason(
        "NaN, infinite, or an integer that does not fit", _REQUEST, "send it as text, or count in larger units"
    ),
    "bad_time": Reason("`time` is no RFC 3339 time", _REQUEST, "send one, such as 2026-11-20T12:00:00Z"),
    "bad_deadline": Reason(
        "`expirytime` is no RFC 3339 time, or had passed when the request arrived",
        (*_REQUEST, OUTCOME),
        "send a later one",
    ),
    "duplicate_key": Reason("a key stands twice in one object", _REQUEST, "send each key once"),
    "too_deep": Reason("JSON is nested deeper than 32", _REQUEST, "flatten it"),
    "too_large": Reason(
        "a payload, text, header or board value is over its limit", _REQUEST, "send less, or the address of it"
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
        "a foreign event bears a source of the mesh: `/topics/…`, `/agents/…`, `/mesh/…` or `/runs/…`",
        _REQUEST,
        "send the URI of your own system",
    ),
    "foreign_run": Reason(
        "a record of an ingress topic names the run that it wants to join, where the topic does not allow it",
        _REQUEST,
        "leave `ce_correlationid` out, or say `join: true` for the topic",
    ),
    "other_topology": Reason(
        "another version of topics.yaml admitted the type than the one that decides the run, which does not declare it",
        (*_HOP, COUNTED),
        "start that version, then send the dead letter again with `--as-new`",
    ),
    "unknown_kind": Reason(
        "`ce_meshkind` is none that this topic takes", (DEAD, COUNTED), "write to ingress topics, not to the mesh's own"
    ),
    "key_mismatch": Reason("the record's key is not its run id", _RECORD, "key records of mesh.inbox by run id"),
    "misrouted": Reason(
        "the record lies in another partition than its key says",
        _RECORD,
        "partition by murmur2 of the key, or of the home in it",
    ),
    "idempotency_conflict": Reason(
        "a request came again with another body under the same id", _REQUEST, "give a new request a new id"
    ),
    "already_terminal": Reason(
        "a request or a cancellation came for a run that has ended",
        (*_REQUEST, COUNTED),
        "ask again under another correlation id",
    ),
    # ------------------------------------------------------------------------------------------------- refusals
    "depth": Reason("the hop would lie deeper than the limit", _HOP, "raise `depth_max`, or shorten the way"),
    "cycle": Reason(
        "the hop repeats an ancestor's agent with the same input", _HOP, "change the input, or end the loop"
    ),
    "visits": Reason("the agent would be reached more often than its cap", _HOP, "raise `visits_max`, or end the loop"),
    "tasks": Reason("the run would have more tasks than the limit", _HOP, "raise `tasks_max`, or emit less"),
    "requests": Reason("the run has heard as many requests as it may have tasks", _HOP, "use more correlation ids"),
    "fanout": Reason("one answer holds more events than the limit", _HOP, "raise `fanout_max`, or emit less"),
    "payload": Reason(
        "an emitted payload is over the limit", _HOP, "raise `payload_bytes_max`, or put it on the board"
    ),
    "state": Reason("the run would hold more bytes than the limit", _HOP, "raise `state_bytes_max`, or emit less"),
    "budget_usd": Reason("the run cannot afford the task in dollars", _HOP, "raise the budget, or reserve less"),
    "budget_tokens": Reason("the run cannot afford the task in tokens", _HOP, "raise the budget, or reserve less"),
    "undeclared_type": Reason("an agent emitted a type that it does not declare", _HOP, "list it under `emits`"),
    "bad_batch": Reason("a batch of events cannot be read, or stands where one event is due", _HOP, "mend the sender"),
    "deadline": Reason("the run's deadline passed before it ended", (OUTCOME,), "allow more time, or look who is slow"),
    # ------------------------------------------------------------------------------------------------- failures
    "exception": Reason("the agent's function raised", _TASK, "read the stack; then send the dead letter again"),
    "timed_out": Reason("the function took longer than its timeout", _TASK, "raise `timeout`, or make it faster"),
    "expired": Reason("a task was stopped by the run's deadline, whose timer ends the run", _SOFT, "allow more time"),
    "run_ended": Reason("a task was stopped since its run had ended; nothing of it counts", _SOFT, "nothing"),
    "schema": Reason("the payload does not fit the function's parameter", _TASK, "mend the sender or the model"),
    "bad_result": Reason(
        "the function returned what is no event, contradicts its declared type, or what JSON does not carry exactly",
        _TASK,
        "return a Payload, a list of them, Emit, RetryLater, Reject or None; declare how the field named is written",
    ),
    "later": Reason("the agent asked to be asked again later, too late for the run", _TASK, "allow more time"),
    "left_alone": Reason(
        "the agent was not called since its breaker is open, for longer than the run allows",
        _TASK,
        "look why the agent fails; allow more time, or name a `fallback`",
    ),
    "rejected": Reason("the agent will not do this task, and said why", _TASK, "read its reason"),
    "crash_loop": Reason(
        "process after process died at this task, the third one at nothing else",
        _TASK,
        "look for what ends the process (memory, os._exit, a native library), then send the dead letter again",
    ),
    "bad_usage": Reason(
        "what the function reported is no usage; its reservation is charged",
        (*_TASK, CALLER),
        "report amounts of 0 or more",
    ),
    "overspent": Reason(
        "an answer claims more than its attempt might spend; what it might spend is charged",
        _SOFT,
        "let the agent reserve what it needs, or raise the budget; look who wrote the answer",
    ),
    "unknown": Reason("a failure came without a reason", _TASK, "send `mesh-error-code` with it"),
    "refused_too_large": Reason(
        "the log refused the record: too large", _TASK, "emit less, or raise max.message.bytes"
    ),
    "refused_unauthorized": Reason("the log refused the record: no right to write", _TASK, "grant it"),
    "refused_unknown_topic": Reason("the log refused the record: no such topic", _TASK, "`mesh topics create`"),
    "refused_invalid": Reason(
        "the log refused the record: not well formed", _TASK, "read the message that comes with it"
    ),
    # ---------------------------------------------------------------------------------- drops, counted and harmless
    "duplicate_request": Reason(
        "the same request came again; its run stands", (CALLER, COUNTED), "nothing; another id begins a new run"
    ),
    "unknown_run": Reason(
        "something came for a run that nobody opened, or a redrive for one that is forgotten",
        (COUNTED, DEAD),
        "send the dead letter with `--as-new`",
    ),
    "unknown_task": Reason(
        "an answer to a task that is not open", _SOFT, "nothing: a repeated task was answered twice"
    ),
    "late_result": Reason("an answer of an older attempt, or for a run that ended", _SOFT, "nothing"),
    "fell_back": Reason("a fallback is asked in the place of an agent that failed or is left alone", _SOFT, "nothing"),
    "cascade": Reason(
        "too many agents failed one after another; the run is paused", _SOFT, "look into it, then `mesh run resume`"
    ),
    "already_paused": Reason("a run was to be paused that is", _SOFT, "nothing"),
    "not_paused": Reason("a run was to be resumed that is not paused", _SOFT, "nothing"),
    "duplicate_redrive": Reason("the same redrive came again; the first one stands", _SOFT, "nothing"),
    "nothing_to_redrive": Reason(
        "a redrive names a task that did not fail or is redriven already, or a letter that is no refusal of its run",
        *(_SOFT, "nothing"),
    ),
    "unknown_agent": Reason("a redrive is for an agent that the run's topology has not", _RECORD, "send it `--as-new`"),
    "late_timer": Reason("a timer with nothing left to wake", _SOFT, "nothing"),
    "late_switch": Reason("what mesh.control says came again, or too late", _SOFT, "nothing"),
    "bad_switch": Reason(
        "a record of mesh.control, or its relay, turns nothing that there is",
        (COUNTED, DEAD),
        "write there with `mesh stop` and `mesh resume`",
    ),
    "join_repeated": Reason(
        "an input that its join has got already",
        _SOFT,
        "emit one event of this type a branch, or write `otherwise: ignore` beside the join",
    ),
    "wrong_agent": Reason(
        "an agent answered for another, or a task lies on another agent's topic",
        (COUNTED, DEAD),
        "look who writes there",
    ),
    "claimed_lineage": Reason(
        "an answer claims another depth or path than its task has; the task's stand", _SOFT, "look who wrote it"
    ),
    # -------------------------------------------------------------------------------------- errors raised to callers
    "mesh_error": Reason("an error without a code of its own", _CALL, "read it"),
    "usage": Reason("an argument of a command is wrong", _CALL, "`--help` shows the form"),
    "ambiguous": Reason("a shortened id fits several runs", _CALL, "give more of it"),
    "bad_agent": Reason("a function cannot be an agent as it is", _CALL, "mend its signature"),
    "bad_name": Reason("a name in topics.yaml has other characters than it may", _CALL, "rename it"),
    "bad_value": Reason("a value in a file or an option has the wrong form or unit", _CALL, "write it as shown"),
    "bad_condition": Reason("a condition or a path does not parse", _CALL, "mend it at the column named"),
    "bad_key": Reason(
        "a board key has other characters than it may", (*_TASK, CALLER), "use `A-Za-z0-9._:/-`, 1 to 256"
    ),
    "bad_op_id": Reason("an operation id has other characters than it may", _CALL, "use those of a board key"),
    "bad_by": Reason("a writer's name is too long or not printable", _CALL, "name the agent or the person"),
    "bad_limit": Reason("a limit contradicts itself", (*_TASK, CALLER), "give one that something can keep"),
    "bad_pattern": Reason(
        "a glob has other characters than it may", (*_TASK, CALLER), "use those of a key, `*` and `?`"
    ),
    "bad_version": Reason("that is no version of a board entry", (*_TASK, CALLER), "hand on what get or put answered"),
    "not_an_array": Reason(
        "something was to be appended to a value that is no array", (*_TASK, CALLER), "use another key"
    ),
    "not_a_counter": Reason(
        "an amount was to be added to a value that is no integer", (*_TASK, CALLER), "use another key"
    ),
    "op_id_reused": Reason("an operation id came back with another kind of write", _CALL, "give each write its own"),
    "invalid": Reason(
        "the log or its file cannot take what was handed in", _CALL, "read the message that comes with it"
    ),
    "unauthorized": Reason("the log denies the right to do that", _CALL, "grant it"),
    "unknown_topic": Reason("the topic does not exist", _CALL, "`mesh topics create`"),
    "config_invalid": Reason(
        "a setting is unknown, malformed or contradicts another", _CALL, "`mesh config show --origin`"
    ),
    "foreign_log": Reason(
        "the topics with this prefix belong to another mesh",
        _CALL,
        "write another `prefix` in topics.yaml, or name another log",
    ),
    "topology_invalid": Reason(
        "topics.yaml was refused", _CALL, "mend the lines it names; `mesh check` shows them all"
    ),
    "topics_invalid": Reason("topics are missing or differ from what was declared", _CALL, "`mesh topics create`"),
    "not_found": Reason("the named run, topic, agent or dead letter does not exist", _CALL, "check the name"),
    "unavailable": Reason("an outside system did not answer in time", (*_TASK, CALLER), "try again"),
    "environment": Reason(
        "the machine lacks open files, memory, disk or threads", _CALL, "raise the limit that the message names"
    ),
    "log_unavailable": Reason("the log did not answer in time", _CALL, "try again; is it running?"),
    "board_unavailable": Reason("the blackboard did not answer in time", (*_TASK, CALLER), "try again; is it running?"),
    "board_incomplete": Reason(
        "the blackboard may have lost the value that a write depends on", (*_TASK, CALLER), "try again: it is put back"
    ),
    "fenced": Reason("a commit came from a member whose time was over", _CALL, "nothing: the new owner goes on"),
    "not_restorable": Reason(
        "the state of an inbox partition can be had from no checkpoint and not from the records that are left",
        _CALL,
        "read the message; keep mesh.checkpoints, mesh.topologies and the inbox for as long as runs last",
    ),
    "worker_spent": Reason(
        "too many calls of agents went on after they were given up, so the process ended",
        _CALL,
        "start it again (`mesh up --workers` does); let agents end when they are cancelled",
    ),
    "refused": Reason("the mesh does not do that, or not without `--yes`", _CALL, "read why"),
    "stale_version": Reason(
        "a board entry was changed by somebody else", (*_TASK, CALLER), "read it again, then write"
    ),
    "wait_timeout": Reason("what was waited for did not come in time; nothing was cancelled", _CALL, "wait longer"),
}
