"""The forms of times, offsets, globs, conditions and names of topics in options."""

from datetime import datetime

import pytest

from mesh.cli.framework.selectors import TIME_FORMS, glob, places, time_form, time_span, topic_names, where
from mesh.core.errors import InvalidInput, NotFound
from tests.builders import topology

NOW_MS = 1_795_953_600_000


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("10m", NOW_MS - 600_000),
        ("24h", NOW_MS - 86_400_000),
        ("1.5m", NOW_MS - 90_000),
        ("@1795000000123", 1_795_000_000_123),
        ("@0", 0),
        ("2026-11-20T12:00:00Z", 1_795_176_000_000),
        ("2026-11-20T12:00:00.250+01:00", 1_795_172_400_250),
        ("2026-11-20T12:00Z", 1_795_176_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),  # a leap second
    ],
)
def test_a_time_is_an_age_an_iso_time_or_milliseconds(text: str, at_ms: int) -> None:
    assert time_form("--since", text).on(NOW_MS) == at_ms


@pytest.mark.parametrize("text", ["2026-11-20", "2026-11-20 12:00:07", "2026-11-20T12:00"])
def test_a_time_without_a_zone_is_in_that_of_this_machine(text: str) -> None:
    assert time_form("--since", text).on(NOW_MS) == round(datetime.fromisoformat(text).timestamp() * 1_000)


@pytest.mark.parametrize("text", ["soon", "", "@", "@-1", "@12s", "2026-13-01", "2026-11-20T25:00Z", "-5m", "9999-99"])
def test_what_is_no_time_is_refused_with_all_forms(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        time_form("--until", text)
    assert (refused.value.where, refused.value.expected, refused.value.code) == ("--until", TIME_FORMS, "bad_value")


def test_a_number_without_its_unit_is_refused_with_the_unit() -> None:
    with pytest.raises(InvalidInput) as refused:
        time_form("--since", "10")
    assert "write 10s" in refused.value.remedy


def test_a_span_that_holds_nothing_is_refused() -> None:
    assert time_span("2h", "1h").on(NOW_MS) == (NOW_MS - 7_200_000, NOW_MS - 3_600_000)
    assert time_span(None, None).on(NOW_MS) == (None, None)
    with pytest.raises(InvalidInput, match="--until is not after --since"):
        time_span("1h", "2h").on(NOW_MS)


def test_places_name_an_offset_for_each_partition() -> None:
    assert places("--from", ["2:120", "0:0"]) == {2: 120, 0: 0}
    assert places("--from", None) == {}


@pytest.mark.parametrize("texts", [["2"], ["2:x"], ["inbox:2:120"], ["-1:3"], ["2:120", "2:5"], [f"0:{2**40}"]])
def test_what_is_no_place_is_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidInput, match="PARTITION:OFFSET") as refused:
        places("--to", texts)
    assert refused.value.where == "--to"


def test_a_condition_knows_the_types_of_the_mesh_and_names_option_and_column() -> None:
    mesh = topology(a="order.placed -> order.priced")
    condition = where("order.placed.total > 3", mesh)
    assert condition is not None
    assert condition.holds({"order.placed": {"total": 4}, "order.priced": {}}, {})
    with pytest.raises(InvalidInput) as refused:
        where("total = 3", mesh)
    assert refused.value.where == "--where, column 7"
    assert where(None, mesh) is None


def test_a_glob_is_optional() -> None:
    fits = glob("o-*")
    assert fits is not None
    assert fits("o-1")
    assert glob(None) is None


def test_topics_go_by_their_name_or_by_that_without_the_prefix() -> None:
    mesh = topology(a="order.placed -> order.priced")
    there = ["mesh.inbox", "mesh.tasks.a", "theirs", "inbox.old"]
    assert topic_names(["inbox", "theirs", "tasks.a", "mesh.inbox"], mesh, there) == [
        "mesh.inbox",
        "theirs",
        "mesh.tasks.a",
    ]
    with pytest.raises(NotFound, match="Did you mean 'inbox'"):
        topic_names(["inbx"], mesh, there)
    with pytest.raises(NotFound, match="mesh topics list"):
        topic_names(["zzzzzzz"], mesh, there)
