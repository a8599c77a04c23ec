"""The assignment of partitions to members: as even as possible, with as few moves as possible."""

from collections.abc import Collection, Mapping


def assign(eligible: Mapping[str, Collection[int]], current: Mapping[int, str]) -> dict[int, str]:
    """Map partitions to members. `eligible`: partitions by member, in order of joining; `current`: the owners now.

    Members with the same subscription differ by at most one partition. A partition moves only when its member has left,
    or has at least two more than another eligible member.
    """
    assigned: dict[str, list[int]] = {member: [] for member in eligible}
    free = []
    for partition in sorted({p for partitions in eligible.values() for p in partitions}):
        owner = current.get(partition)
        if owner in assigned and partition in eligible[owner]:
            assigned[owner].append(partition)
        else:
            free.append(partition)
    for partition in free:
        takers = [member for member in assigned if partition in eligible[member]]
        assigned[min(takers, key=lambda member: len(assigned[member]))].append(partition)
    while move := _next_move(assigned, eligible):
        giver, taker, partition = move
        assigned[giver].remove(partition)
        assigned[taker].append(partition)
    return {partition: member for member, partitions in assigned.items() for partition in partitions}


def _next_move(
    assigned: Mapping[str, Collection[int]], eligible: Mapping[str, Collection[int]]
) -> tuple[str, str, int] | None:
    """Find a move of a partition from a fuller to an emptier member that makes the assignment more even."""
    by_load = sorted(assigned, key=lambda member: len(assigned[member]))
    for giver in reversed(by_load):
        for taker in by_load:
            if len(assigned[giver]) - len(assigned[taker]) < 2:
                break
            for partition in reversed([*assigned[giver]]):
                if partition in eligible[taker]:
                    return giver, taker, partition
    return None
