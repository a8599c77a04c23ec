"""Which tests a worker gets together (`tests/workers.py`); what it leaves out is tested in tests/live."""

from typing import Any, cast

import pytest

from tests.workers import LIVE, FilesAndLive, live_first


class Named:
    """An item of a collection: only its id counts here."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid


@pytest.mark.parametrize(
    ("nodeid", "piece"),
    [
        ("tests/core/test_a.py::test_one[x::y]", "tests/core/test_a.py"),
        ("tests/live/test_a.py::test_one", LIVE),
        ("tests/live/test_b.py::test_two[3]", LIVE),
        ("tests/test_bad_input_live.py::test_one", "tests/test_bad_input_live.py"),
    ],
)
def test_files_stay_together_and_all_tests_against_real_servers_do(nodeid: str, piece: str) -> None:
    assert FilesAndLive.__new__(FilesAndLive)._split_scope(nodeid) == piece


def test_what_waits_for_servers_begins_first_and_all_else_keeps_its_order() -> None:
    items: list[Any] = [
        Named(id) for id in ("tests/b.py::t", "tests/live/z.py::t", "tests/a.py::t", "tests/live/a.py::t")
    ]
    live_first(cast(list[pytest.Item], items))
    assert [item.nodeid for item in items] == [
        "tests/live/z.py::t",
        "tests/live/a.py::t",
        "tests/b.py::t",
        "tests/a.py::t",
    ]
