"""`mesh run show` prints the charged usage of a run, and usage that came too late."""

from mesh.cli.views.run_view import facts, history_json
from mesh.core.protocol.event import Usage
from tests.builders import record
from tests.core.history.test_timeline import Told
from tests.playbook import cancelled, requested, succeeded


def test_what_is_reported_after_the_end_of_a_run_is_shown_apart_from_what_was_charged() -> None:
    told = Told().let(requested(), succeeded("plan", "plan.ready", usage=Usage(2_000, 5)))
    late = succeeded("price", "priced", usage=Usage(1_500, 20))(told.play)
    told.let(cancelled())
    assert facts(told.history).endswith("3 tasks · $0.0020 · 5 tokens")
    told.take(record(late))
    assert facts(told.history).endswith("$0.0020 · 5 tokens · reported too late to be charged: $0.0015, 20 tokens")
    shown = history_json(told.history)
    assert shown["used"] == {"usd": 0.002, "tokens": 5}
    assert shown["used_late"] == {"usd": 0.0015, "tokens": 20}
