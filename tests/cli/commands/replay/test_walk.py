"""A walk through the steps of a run: each key leads to the step that it names, and back means back."""

from mesh.cli.commands.replay.walk import Walk
from mesh.core.topology.model import Limits
from tests.builders import topology
from tests.core.replay.recorded import Recorded
from tests.playbook import requested, succeeded

DESK = topology(
    Limits(depth_max=3),
    plan="ask -> half, other",
    price="half -> priced",
    stock="other -> stocked",
    ship="priced -> shipping",
    send="shipping -> sent",
)
RECORDED = Recorded(DESK).let(
    requested(),
    succeeded("plan", "half", "other"),
    succeeded("price", "priced"),
    succeeded("stock", "stocked"),
    succeeded("ship", "shipping"),
)
"""Steps: request, plan, price, stock, and ship, whose next hop is too deep."""


def walk(agent: str = "") -> Walk:
    return Walk(RECORDED.steps, (lambda step: step.agent == agent) if agent else None)


def at(walked: Walk, *keys: str) -> int:
    """The number of the step after these keys."""
    assert all(walked.press(key) for key in keys)
    return walked.step.number


def test_forward_and_back_reach_the_same_steps() -> None:
    walked = walk()
    forward = [at(walked, key) for key in ("right", "n", " ", "enter")]
    assert forward == [2, 3, 4, 5]
    assert [at(walked, key) for key in ("left", "p", "backspace", "page up")] == [4, 3, 2, 1]
    assert at(walked, "left") == 1
    assert walked.message == "this is the first step"
    assert at(walked, "G") == at(walked, "n") == 5
    assert walked.message == "this is the last step"
    assert at(walked, "home") == 1
    assert walked.message == ""


def test_a_number_jumps_to_its_step() -> None:
    walked = walk()
    assert at(walked, ":", "4", "enter") == 4
    assert at(walked, ":", "9", "backspace", "2", "enter") == 2
    assert at(walked, ":", "9", "enter") == 2
    assert walked.message == "there are steps 1 to 5"
    assert at(walked, ":", "3", "escape", "n") == 3


def test_an_agent_is_found_where_it_is_asked_and_where_it_answers() -> None:
    walked = walk()
    assert at(walked, "a", *"price", "enter") == 2
    assert at(walked, "a", "enter") == 3
    assert at(walked, "a", "enter") == 3
    assert walked.message == "no step of 'price' after this one"
    assert at(walked, "A", "enter") == 2


def test_a_refusal_is_found_in_both_directions() -> None:
    walked = walk()
    assert at(walked, "r") == 5
    assert at(walked, "r") == 5
    assert walked.message == "no refusal after this one"
    assert at(walked, "R") == 5
    assert walked.message == "no refusal before this one"


def test_a_walk_begins_at_the_first_break_and_goes_from_break_to_break() -> None:
    walked = Walk(RECORDED.steps, lambda step: step.agent in ("plan", "stock"))
    assert (walked.step.number, walked.stops) == (2, [1, 3])
    assert at(walked, "b") == 4
    assert at(walked, "B") == 2
    assert at(walked, "B") == 2
    assert walked.message == "no step that fits --break before this one"
    none = walk()
    assert at(none, "b") == 1
    assert none.message == "no --break was given"


def test_payloads_and_scrolling_change_no_place() -> None:
    walked = walk()
    assert at(walked, "v", "down", "down", "up") == 1
    assert (walked.payload, walked.scroll) == (True, 1)
    assert at(walked, "n") == 2
    assert walked.scroll == 0


def test_q_and_escape_end_the_walk() -> None:
    assert not walk().press("q")
    assert not walk().press("escape")
    assert walk().press("x")
