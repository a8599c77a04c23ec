"""Lines of records: each fits its terminal, whatever the length of its topic, offset and subject."""

import time

import pytest
from rich.cells import cell_len

from mesh.cli.framework.output import Output
from mesh.cli.views.record_view import record_line
from mesh.core.protocol.codec import Unreadable
from mesh.core.protocol.event import FOREIGN, OUTCOME, REQUESTED, SUCCEEDED, Event
from tests.builders import event, record


class Narrow(Output):
    """Output of 80 cells a line, which folds nothing itself."""

    @property
    def width(self) -> int:
        return 80


@pytest.mark.parametrize("offset", [9, 999, 99_999, 9_999_999])
@pytest.mark.parametrize("topic", ["", "inbox", "tasks.keeper", "tasks.an-agent-with-a-name-of-forty-characters"])
@pytest.mark.parametrize("at_ms", [0, int(time.time() * 1_000)], ids=["long ago", "now"])
@pytest.mark.parametrize(
    "shown",
    [
        event(REQUESTED, run_id="0123456789abcdef01234567", subject="a-subject-of-many-characters" * 3),
        event(SUCCEEDED, run_id="0123456789abcdef01234567", agent="an-agent-with-a-long-name", type="x" * 60),
        event(OUTCOME, run_id="0123456789abcdef01234567", subject="注文" * 20),
        event(FOREIGN, run_id="", source="https://shop.example/" + "orders/" * 9, subject="注文" * 20),
        Unreadable("not_cloudevents", "no event"),
    ],
    ids=["request", "answer", "outcome", "foreign", "unreadable"],
)
def test_a_line_fits_80_columns(
    capsys: pytest.CaptureFixture[str], offset: int, topic: str, at_ms: int, shown: Event | Unreadable
) -> None:
    stored = record(event(), offset, timestamp=at_ms)
    record_line(Narrow(), stored, shown, topic=topic)
    (line,) = capsys.readouterr().out.splitlines()
    assert cell_len(line) <= 80
    assert f"{stored.partition}:{offset}  " in line
