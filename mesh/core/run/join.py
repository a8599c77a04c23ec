"""Joins: an agent that needs several types fires once per run when all have arrived; below a fan-out, once per branch.

A branch is the list of fan-outs crossed. An input above a fan-out counts for every branch below it, whenever it
arrives. Inputs of sibling branches are never combined. The first input of a type in a branch counts. A join does not
take a later one, nor an input for a branch that has fired. So the order of arrival does not change which branches fire.
Only a join on a cycle fires again, each time that all inputs have arrived again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from mesh.core.expression.condition import Condition
from mesh.core.expression.partial_evaluation import is_refuted
from mesh.core.protocol.event import parse_json
from mesh.core.run.state import Arrival, Branch, Slot, Slots

_NEW: Final = Slot({})
Ready = tuple[Branch, list[Arrival]]
"""Branch in which a join fires, with its inputs in the order of their declaration."""
Unwanted = tuple[Branch, Mapping[str, Arrival]]
"""Branch that did not fire, with its inputs."""


def accepts(slots: Slots, type: str, branch: Branch) -> bool:
    """Return whether an input of this type would be the first in its branch, and the branch has not fired."""
    slot = slots.get(branch)
    return slot is None or not (slot.fired or type in slot.inputs)


def arrive(
    slots: Slots, needs: Sequence[str], type: str, branch: Branch, arrival: Arrival, *, again: bool = False
) -> tuple[Slots, list[Ready]]:
    """Return the slots with one more input, which they must accept, and the branches that fire now.

    `again`: the join lies on a cycle, so a branch that fires drops its inputs and may fire once more.
    """
    inputs, fired, declined = slots.get(branch, _NEW)
    slots = {**slots, branch: Slot({**inputs, type: arrival}, fired, declined and fired)}
    ready = []
    for below, slot in slots.items():
        if slot.inputs and not slot.fired and below[: len(branch)] == branch:
            found = nearest_inputs(slots, needs, below)
            if len(found) == len(needs):
                ready.append((below, [arrived for _, arrived in found.values()]))
    for below, _ in ready:
        slots[below] = Slot({}) if again else Slot(slots[below].inputs, fired=True)
    return slots, ready


def find_starved(
    name: str, slots: Slots, needs: Sequence[str], when: Condition | None = None
) -> tuple[list[str], list[Unwanted]]:
    """Return sentences for the branches of join `name` that have inputs and can never fire, and the unwanted branches.

    A branch is unwanted, and does not starve, when the condition of the join is false already, whatever the missing
    events would contain.
    """
    found: Counter[str] = Counter()
    unwanted = []
    for branch, got in _left_over(slots, needs):
        if when is not None and is_refuted(when, {type: parse_json(arrival.data) for type, arrival in got.items()}):
            unwanted.append((branch, got))
            continue
        missing = [type for type in needs if type not in got]
        found[f"{name}: got {', '.join(got)}; missing {', '.join(missing)}"] += 1
    return [text if times == 1 else f"{text} ({times} branches)" for text, times in found.items()], unwanted


def _left_over(slots: Slots, needs: Sequence[str]) -> Iterator[Unwanted]:
    """Yield the branches that did not fire and have an input that no branch below uses, each with all its inputs."""
    for branch, slot in slots.items():
        if slot.inputs and not slot.fired and not all(_serves_below(slots, type, branch) for type in slot.inputs):
            yield branch, {type: arrival for type, (_, arrival) in nearest_inputs(slots, needs, branch).items()}


def nearest_inputs(slots: Slots, needs: Sequence[str], branch: Branch) -> dict[str, tuple[Branch, Arrival]]:
    """Return the inputs of a branch, its own and those of the branches above, each with the branch it arrived in."""
    found = {}
    for type in needs:
        for length in range(len(branch), -1, -1):
            slot = slots.get(branch[:length])
            if slot is not None and type in slot.inputs:
                found[type] = branch[:length], slot.inputs[type]
                break
    return found


def used_inputs(slots: Slots, needs: Sequence[str], *, cyclic: bool) -> set[tuple[str, Branch]]:
    """Return the inputs of the branches that fired for a task or that wait for more, each as its type and its branch.

    An input above a fan-out is used where a branch below uses it. A join on a cycle has dropped its inputs: each may
    have arrived in its branch or in one above.
    """
    waiting = {branch for branch, _ in _left_over(slots, needs)}
    found: set[tuple[str, Branch]] = set()
    for branch, slot in slots.items():
        if slot.declined or (slot.inputs and not slot.fired and branch not in waiting):
            continue
        if cyclic:
            found.update((type, branch[:length]) for type in needs for length in range(len(branch) + 1))
        else:
            found.update((type, place) for type, (place, _) in nearest_inputs(slots, needs, branch).items())
    return found


def slot_bytes(slots: Slots) -> int:
    """Return the payload bytes in these slots."""
    return sum(len(arrival.data) for slot in slots.values() for arrival in slot.inputs.values())


def _serves_below(slots: Slots, type: str, branch: Branch) -> bool:
    """Return whether a branch below would take this input, since it has no nearer one of the type."""
    below = (other for other in slots if len(other) > len(branch) and other[: len(branch)] == branch)
    return any(nearest_inputs(slots, (type,), other)[type][0] == branch for other in below)
