"""The Pareto front: the methods that no other one beats in both cost and metric."""

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points (cost, gain) that no other one beats, by rising cost: none costs no more and gains no less.

    Of points that are equal the first one is kept.
    """
    best, front = float("-inf"), []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front
