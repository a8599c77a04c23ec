"""Joins: an agent that needs several types fires once per run (per branch, below a fan-out) when all are there.

A branch is the list of fan-outs crossed. An input seen above a fan-out serves every branch below it, whenever it
comes; inputs of sibling branches never meet. The first input of a type in a branch counts, later ones change
nothing. So which branches fire does not depend on the order of arrival. Only a join on a cycle fires again, each
time that all has come anew.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from mesh.core.condition import Condition
from mesh.core.event import parsed
from mesh.core.run import Arrival, Branch, Slot, Slots
from mesh.core.verdict import is_refuted

_NEW: Final = Slot({})
Ready = tuple[Branch, list[Arrival]]
"""A branch in which a join fires, with its inputs in the order in which they are declared."""


def accepts(slots: Slots, type: str, branch: Branch) -> bool:
    """Whether an input of this type would be the first in its branch."""
    slot = slots.get(branch)
    return slot is None or type not in slot.inputs


def arrive(
    slots: Slots, needs: Sequence[str], type: str, branch: Branch, arrival: Arrival, *, again: bool = False
) -> tuple[Slots, list[Ready]]:
    """The slots with one more input, which they must accept, and the branches that fire now.

    `again`: the join lies on a cycle, so a branch that fires gives its inputs away and may fire once more.
    """
    inputs, fired, declined = slots.get(branch, _NEW)
    slots = {**slots, branch: Slot({**inputs, type: arrival}, fired, declined and fired)}
    ready = []
    for below, slot in slots.items():
        if slot.inputs and not slot.fired and below[: len(branch)] == branch:
            gathered = _gather(slots, needs, below)
            if gathered is not None:
                ready.append((below, gathered))
    for below, _ in ready:
        slots[below] = Slot({}) if again else Slot(slots[below].inputs, fired=True)
    return slots, ready


def starved(name: str, slots: Slots, needs: Sequence[str], when: Condition | None = None) -> list[str]:
    """Sentences for the branches of join `name` that got something and can never fire.

    A join whose `when` is false already, whatever the missing events would hold, is not wanted and does not starve.
    """
    found: Counter[str] = Counter()
    for branch, slot in slots.items():
        if slot.inputs and not slot.fired and not _serves_below(slots, branch):
            missing = [type for type in needs if _nearest(slots, type, branch) is None]
            got = [type for type in needs if type not in missing]
            if when is not None and is_refuted(when, _payloads(slots, got, branch)):
                continue
            found[f"{name}: got {', '.join(got)}; missing {', '.join(missing)}"] += 1
    return [text if times == 1 else f"{text} ({times} branches)" for text, times in found.items()]


def _payloads(slots: Slots, types: Sequence[str], branch: Branch) -> dict[str, Any]:
    nearest = ((type, _nearest(slots, type, branch)) for type in types)
    return {type: parsed(arrival.data) for type, arrival in nearest if arrival is not None}


def held_bytes(slots: Slots) -> int:
    """Payload bytes that these slots hold."""
    return sum(len(arrival.data) for slot in slots.values() for arrival in slot.inputs.values())


def _gather(slots: Slots, needs: Sequence[str], branch: Branch) -> list[Arrival] | None:
    inputs = []
    for type in needs:
        found = _nearest(slots, type, branch)
        if found is None:
            return None
        inputs.append(found)
    return inputs


def _nearest(slots: Slots, type: str, branch: Branch) -> Arrival | None:
    for length in range(len(branch), -1, -1):
        slot = slots.get(branch[:length])
        if slot is not None and type in slot.inputs:
            return slot.inputs[type]
    return None


def _serves_below(slots: Slots, branch: Branch) -> bool:
    return any(len(other) > len(branch) and other[: len(branch)] == branch for other in slots)
