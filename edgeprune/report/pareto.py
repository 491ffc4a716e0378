"""Which of several points no other one beats."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]], higher_is_better: bool) -> list[int]:
    """Indices of the points that no other point beats, from small to large x.

    A point beats another if it is at least as good on both axes and better on one. Of points at the same place all
    are kept.

    Args:
        points: (cost, value): a smaller cost is better.
        higher_is_better: direction of the value.
    """
    sign = 1 if higher_is_better else -1

    def beaten(index: int) -> bool:
        cost, value = points[index]
        return any(other[0] <= cost and sign * other[1] >= sign * value and other != (cost, value) for other in points)

    return sorted((index for index in range(len(points)) if not beaten(index)), key=lambda index: points[index])
