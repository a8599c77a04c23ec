"""Directed graphs of names: components, cycles, the longest path. Iterative, so that size cannot exhaust the stack.

A graph maps every node to its successors. All results depend only on the order of the nodes, never on hashes.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

Graph = Mapping[str, Sequence[str]]


def components(graph: Graph) -> list[tuple[str, ...]]:
    """Return the strongly connected components (Tarjan), each after all it leads to, its nodes in graph order."""
    order = {node: n for n, node in enumerate(graph)}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    waiting: set[str] = set()
    found: list[tuple[str, ...]] = []
    for root in graph:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        stack.append(root)
        waiting.add(root)
        walk = [(root, iter(graph[root]))]
        while walk:
            node, successors = walk[-1]
            for successor in successors:
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    stack.append(successor)
                    waiting.add(successor)
                    walk.append((successor, iter(graph[successor])))
                    break
                if successor in waiting:
                    low[node] = min(low[node], index[successor])
            else:
                walk.pop()
                if walk:
                    low[walk[-1][0]] = min(low[walk[-1][0]], low[node])
                if low[node] == index[node]:
                    at = stack.index(node)
                    component = stack[at:]
                    del stack[at:]
                    waiting.difference_update(component)
                    found.append(tuple(sorted(component, key=order.__getitem__)))
    return found


def cycles(graph: Graph) -> list[tuple[str, ...]]:
    """Return the components that contain a cycle, in the order of the graph."""
    order = {node: n for n, node in enumerate(graph)}
    found = [c for c in components(graph) if len(c) > 1 or c[0] in graph[c[0]]]
    return sorted(found, key=lambda component: order[component[0]])


def without(graph: Graph, nodes: Iterable[str]) -> Graph:
    """Return the graph without some nodes."""
    gone = set(nodes)
    return {node: [s for s in after if s not in gone] for node, after in graph.items() if node not in gone}


def shortest_cycle(graph: Graph, start: str) -> tuple[str, ...]:
    """Return the shortest path from `start` back to `start`, both ends included; () if there is none."""
    came: dict[str, str] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for successor in graph[node]:
            if successor == start:
                path = [start, node]
                while path[-1] != start:
                    path.append(came[path[-1]])
                return tuple(reversed(path)) if node != start else (start, start)
            if successor not in came:
                came[successor] = node
                queue.append(successor)
    return ()


def longest_path(graph: Graph) -> tuple[str, ...]:
    """Return a path with the most nodes, one of each component. On graphs with cycles its length is a lower bound."""
    home: dict[str, int] = {}
    best: list[tuple[int, int | None]] = []
    groups = components(graph)
    for n, group in enumerate(groups):
        home.update(dict.fromkeys(group, n))
        nexts = [home[s] for node in group for s in graph[node] if home[s] != n]
        after = max(nexts, key=lambda m: best[m][0], default=None)
        best.append((1 + (0 if after is None else best[after][0]), after))
    at: int | None = max(range(len(groups)), key=lambda n: best[n][0], default=None)
    path: list[str] = []
    while at is not None:
        path.append(groups[at][0])
        at = best[at][1]
    return tuple(path)
