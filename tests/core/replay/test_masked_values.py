"""Values that an export masked, or cut in an older recording, are told from others."""

from typing import Any

import pytest

from mesh.core.replay.masked_values import holds_masked, not_compared, stands_for


@pytest.mark.parametrize(
    ("recorded", "new", "stands"),
    [
        ("***", "sk-aaa", True),
        ("***", {"number": 4111}, True),
        ("see api_key=***", "see api_key=abcdefgh12345678", True),
        ("see api_key=***", "look at api_key=abcdefgh12345678", False),
        ("***bold*** text", "another text", False),
        ("plain", "other", False),
        (1, 2, False),
        ("the beginning… [cut: 935,488 characters]", "the beginning and the rest", True),
        ("the beginning… [cut: 935,488 characters]", "another beginning", False),
        ("the beginning… [cut: 935,488 characters]", 7, False),
    ],
)
def test_a_recorded_value_stands_for_a_new_one(recorded: Any, new: Any, stands: bool) -> None:
    assert stands_for(recorded, new) is stands


@pytest.mark.parametrize(
    ("payload", "holds"),
    [
        (b'{"a":"***"}', True),
        ('{"a":"x… [cut: 935,488 characters]"}'.encode(), True),
        (b'{"a":["[cut: 3 more]"]}', True),
        (b'{"a":"[cut: nothing]"}', False),
        (b'{"a":1}', False),
    ],
)
def test_a_payload_with_masked_or_cut_values_is_recognized(payload: bytes, holds: bool) -> None:
    assert holds_masked(payload) is holds


def test_the_number_is_told() -> None:
    assert not_compared(1) == "1 masked place was not compared"
    assert not_compared(1_200) == "1,200 masked places were not compared"
