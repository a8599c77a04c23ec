"""Who gets which partition: as even as it can be, and everybody keeps what he has where that is possible."""

from collections.abc import Collection, Mapping


def assign(eligible: Mapping[str, Collection[int]], current: Mapping[int, str]) -> dict[int, str]:
    """Partition → member. `eligible`: what each member listens to, in the order they joined; `current`: who has what.

    Members with the same subscription differ by at most one partition. A partition moves only when its member is
    gone or has at least two more than somebody else who could take it.
    """
    held: dict[str, list[int]] = {member: [] for member in eligible}
    free = []
    for partition in sorted({p for partitions in eligible.values() for p in partitions}):
        keeper = current.get(partition)
        if keeper in held and partition in eligible[keeper]:
            held[keeper].append(partition)
        else:
            free.append(partition)
    for partition in free:
        takers = [member for member in held if partition in eligible[member]]
        held[min(takers, key=lambda member: len(held[member]))].append(partition)
    while move := _next_move(held, eligible):
        giver, taker, partition = move
        held[giver].remove(partition)
        held[taker].append(partition)
    return {partition: member for member, partitions in held.items() for partition in partitions}


def _next_move(
    held: Mapping[str, Collection[int]], eligible: Mapping[str, Collection[int]]
) -> tuple[str, str, int] | None:
    """A partition whose move from a fuller to an emptier member makes things more even."""
    by_load = sorted(held, key=lambda member: len(held[member]))
    for giver in reversed(by_load):
        for taker in by_load:
            if len(held[giver]) - len(held[taker]) < 2:
                break
            for partition in reversed([*held[giver]]):
                if partition in eligible[taker]:
                    return giver, taker, partition
    return None
