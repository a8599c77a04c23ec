"""Joins: an agent that needs several types fires once per run (per branch, below a fan-out) when all are there.

A branch is the list of fan-outs crossed. An input seen above a fan-out serves every branch below it; inputs of
sibling branches never meet. The first input of a type in a branch counts, later ones change nothing.
"""

from collections.abc import Iterator, Mapping, Sequence

from mesh.core.run import FIRED, Arrival, Branch

Slots = dict[Branch, dict[str, Arrival] | None]


def arrive(
    slots: Slots, needs: Sequence[str], type: str, branch: Branch, arrival: Arrival
) -> list[tuple[Branch, list[Arrival]]]:
    """Note an input and answer the branches that now have all of `needs`, each with its inputs in that order."""
    slot = slots.setdefault(branch, {})
    if slot is FIRED or type in slot:
        return []
    slot[type] = arrival
    ready = []
    for candidate in [b for b in slots if b[: len(branch)] == branch]:
        inputs = _gather(slots, needs, candidate)
        if inputs is not None:
            ready.append((candidate, inputs))
    for candidate, _ in ready:
        slots[candidate] = FIRED
    return ready


def starved(name: str, slots: Slots, needs: Sequence[str]) -> Iterator[str]:
    """Sentences for the branches of join `name` that got something and can never fire."""
    fired = [branch for branch, slot in slots.items() if slot is FIRED]
    for branch, slot in slots.items():
        if slot and not any(b[: len(branch)] == branch for b in fired):
            missing = [t for t in needs if _nearest(slots, t, branch) is None]
            yield f"{name}: got {', '.join(slot)}; missing {', '.join(missing)}"


def held_bytes(slots: Mapping[Branch, dict[str, Arrival] | None]) -> int:
    """Payload bytes that wait in these slots."""
    return sum(len(a.data) for slot in slots.values() if slot for a in slot.values())


def _gather(slots: Slots, needs: Sequence[str], branch: Branch) -> list[Arrival] | None:
    if slots[branch] is FIRED:
        return None
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
        if slot and type in slot:
            return slot[type]
    return None
