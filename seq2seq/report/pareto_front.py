"""The Pareto front: the methods that no other method beats in both cost and metric."""

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the non-dominated points (cost, metric), by increasing cost.

    A point is dominated if another one costs no more and scores no less; of equal points, the first is kept.
    """
    best, front = float("-inf"), []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front
