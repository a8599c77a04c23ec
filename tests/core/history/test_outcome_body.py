"""An outcome is read back as it was in the run."""

import orjson

from mesh.core.history.outcome_body import draft_of, failure_of, refusal_of, result_of, unrouted_of
from mesh.core.publishing.effect_records import outcome_body
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import Draft, Failure, Result, Unrouted
from tests.builders import run


def test_an_outcome_is_read_back_as_it_was_written() -> None:
    ended = run(
        refused=1,
        refusals=(Refusal("depth", "b", ("a",), 1, 2, "depth: a > b"),),
        failures=(Failure("c", "t9", 3, "exception", "no", ("c",)),),
        results=(Result("x1", "sent", "ship", b'{"n":1}'), Result("x2", "sent", "ship", b"no JSON")),
        drafts=(Draft("draft", "review", "l1", b"[1]"),),
        unrouted=(Unrouted("odd", "a", "odd from a", 2),),
    )
    body = orjson.loads(orjson.dumps(outcome_body(ended)))
    assert tuple(map(refusal_of, body["refusals"])) == ended.refusals
    assert tuple(map(failure_of, body["failures"])) == ended.failures
    assert tuple(map(result_of, body["results"])) == ended.results
    assert list(map(draft_of, body["drafts"])) == [Result("l1", "draft", "review", b"[1]")]
    assert tuple(map(unrouted_of, body["unrouted"])) == ended.unrouted


def test_fields_missing_in_an_outcome_take_their_defaults() -> None:
    assert refusal_of({}) == Refusal("", "", (), 0, 0, "")
    assert failure_of({}) == Failure("", "", 1, "", "", ())
    assert result_of({"omitted": "too large"}) == Result("", "", "", b"too large")
    assert unrouted_of({}) == Unrouted("", "", "", 1)
