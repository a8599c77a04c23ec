"""Errors name what, where, expected, got and the fix; their class determines the exit code."""

import pytest

from mesh.core import errors
from mesh.core.errors import (
    BoardUnavailable,
    Conflict,
    InvalidInput,
    LogUnavailable,
    MeshError,
    Problem,
    TopicsInvalid,
    TopologyInvalid,
    Unavailable,
)

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MeshError)]


EXIT_CODES = {
    "MeshError": 1,
    "TopicsInvalid": 1,
    "Fenced": 1,
    "NotRestorable": 1,
    "InvalidInput": 2,
    "Ambiguous": 2,
    "ConfigInvalid": 2,
    "TopologyInvalid": 2,
    "NotFound": 3,
    "Unavailable": 4,
    "EnvironmentFault": 4,
    "LogUnavailable": 4,
    "BoardUnavailable": 4,
    "BoardIncomplete": 4,
    "ForeignLog": 2,
    "NotAccepted": 5,
    "Conflict": 5,
    "WaitTimeout": 6,
    "WorkerSpent": 7,
}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MeshError("it broke"), "it broke"),
        (MeshError("it broke", where="a.b"), "a.b: it broke"),
        (MeshError("it broke", expected="x"), "it broke; expected x"),
        (MeshError("it broke", got="y"), "it broke; got y"),
        (
            MeshError("it broke", where="a", expected="x", got="y", remedy="Mend it"),
            "a: it broke; expected x, got y. Mend it",
        ),
    ],
)
def test_an_error_reads_as_a_sentence_of_the_parts_it_has(error: MeshError, text: str) -> None:
    assert str(error) == text
    assert error.args == ("it broke",)


def test_invalid_input_carries_the_reason_code_of_its_case() -> None:
    error = InvalidInput("no", code="bad_id")
    assert error.code == "bad_id"
    assert InvalidInput("no", code="schema").code == "schema"
    assert MeshError.code == "mesh_error"
    assert error.exit_code == 2
    assert not error.retriable


def test_a_refused_topology_lists_every_problem_with_its_line() -> None:
    problems = [Problem(3, "unknown key 'onn'", "Did you mean 'on'?"), Problem(9, "deaf agent 'x'", "")]
    error = TopologyInvalid("topics.yaml", problems)
    assert str(error) == "topics.yaml:3: unknown key 'onn'. Did you mean 'on'?\ntopics.yaml:9: deaf agent 'x'."
    assert error.problems == tuple(problems)
    assert error.what == "2 problems"
    assert TopologyInvalid("topics.yaml", problems[:1]).what == "1 problem"


def test_a_problem_that_looks_like_a_secret_masks_no_other_problem() -> None:
    problems = [Problem(3, 'unknown key "tokens:\'20000"', "Known here: usd"), Problem(4, "no value", "Write it's one")]
    first, second = str(TopologyInvalid("topics.yaml", problems)).splitlines()
    assert first.startswith("topics.yaml:3: unknown key ")
    assert second == "topics.yaml:4: no value. Write it's one"


def test_wrong_topics_are_all_named_at_once() -> None:
    error = TopicsInvalid("kafka://h:9092", ["a is missing", "b has 3 partitions"], remedy="Run `mesh topics create`")
    assert error.problems == ("a is missing", "b has 3 partitions")
    assert str(error) == "kafka://h:9092: a is missing; b has 3 partitions. Run `mesh topics create`"


def test_a_conflict_names_the_version_that_stands() -> None:
    error = Conflict("stock/7", expected="", current="i:3")
    assert error.current == "i:3"
    assert "expected version (absent), got i:3" in str(error)
    assert "expected version i:2, got (absent)" in str(Conflict("k", expected="i:2", current=""))


def test_what_may_be_tried_again_says_so() -> None:
    assert {kind.__name__ for kind in ALL if kind.retriable} == {
        "Unavailable",
        "EnvironmentFault",
        "LogUnavailable",
        "BoardUnavailable",
        "BoardIncomplete",
        "Conflict",
        "WaitTimeout",
    }


def test_every_class_has_a_code_and_an_exit_code_of_its_own_kind() -> None:
    assert {kind.__name__: kind.exit_code for kind in ALL} == EXIT_CODES
    own = {kind: kind.code for kind in ALL if "code" in vars(kind)}
    assert len(set(own.values())) == len(own)
    assert issubclass(LogUnavailable, Unavailable)
    assert issubclass(BoardUnavailable, Unavailable)


def test_an_error_as_text_holds_no_secret() -> None:
    error = LogUnavailable("no answer", where="kafka://u:pw1@h:9092", got="password=pw2", remedy="Check token=pw3")
    assert str(error) == "kafka://u:***@h:9092: no answer; got password=***. Check token=***"
    assert "pw1" not in str(TopologyInvalid("t", [Problem(1, "redis://u:pw1@h is no name", "")]))
