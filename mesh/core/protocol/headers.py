"""Names of the headers of events, each with its meaning. docs/reference/protocol.md is generated from them."""

from typing import Final

HEADERS: Final[tuple[tuple[str, str], ...]] = (
    ("ce_specversion", "always `1.0`"),
    ("ce_id", "id of the event; the same decision makes the same id again"),
    ("ce_source", "the sender: `/mesh/<name>`, `/agents/<agent>`, or the upstream's own URI"),
    ("ce_type", "type of the event"),
    (
        "ce_time",
        "RFC 3339: the sender's on requests (none: `1970-01-01T00:00:00.000Z`), else the log time of the cause; "
        "on tasks that of the first attempt",
    ),
    (
        "ce_subject",
        "of the request that opened the run, or its id where it has none; on requests, tasks, egress and outcomes",
    ),
    ("content-type", "of the value; `application/cloudevents-batch+json` when it holds several events"),
    ("ce_correlationid", "run id (CloudEvents Correlation extension); equals the record's key on mesh.inbox"),
    ("ce_causationid", "id of the event that caused this one (Correlation extension)"),
    ("ce_expirytime", "absolute deadline, RFC 3339 (Expiry Time extension)"),
    ("mesh-lifetime-ms", "on requests, in place of expirytime: how long the run may take from the time of the record"),
    ("ce_meshkind", "what happened, see Kinds"),
    ("ce_meshagent", "agent that the task is for or that answered"),
    ("ce_meshtask", "task id; the same for every attempt"),
    ("ce_meshdepth", "hops from the request"),
    ("ce_meshpath", "agents crossed so far, separated by `,`"),
    ("ce_meshusd", "millionths of a dollar used, on results"),
    ("ce_meshtokens", "tokens used, on results"),
    ("ce_meshtopology", "digest of the topology by which a request was admitted, or which a partition adopts"),
    ("mesh-attempt", "which attempt of the task, from 1"),
    ("mesh-origin", "`topic:partition:offset` of the record that this one answers"),
    (
        "mesh-waited-ms",
        "on results, from 100 ms on: how long the task waited on its topic before its function was called",
    ),
    ("mesh-error-code", "reason code, on failures"),
    ("mesh-error-class", "class of the exception, on failures; of a group `group[member, member]`"),
    ("mesh-error-message", "message of the exception, on failures"),
    ("mesh-error-retryable", "`true` or `false`, on failures"),
    ("mesh-error-stack", "stack as text, at most 8 KiB, secrets masked"),
    (
        "mesh-error-retry-after-ms",
        "milliseconds until the agent may be called again; with code `later` or `left_alone`",
    ),
    (
        "mesh-extensions",
        "on requests: names of further CloudEvents attributes, separated by `,`; each is a header `ce_…`",
    ),
    ("ce_meshtasktime", "`ce_time` of the task, on failures: its next attempt has the same"),
    ("traceparent", "W3C Trace Context, exactly one"),
    ("tracestate", "W3C Trace Context, exactly one"),
)
