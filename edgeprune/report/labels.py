"""Labels beside points that cover neither each other nor the points, as well as a greedy search finds it.

Each label tries places around its point, nearest first, and takes the one that covers least (the point-feature label
placement of Christensen, Marks & Shieber, ACM TOG 14(3), 1995, in its greedy form).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_DISTANCES = (9.0, 18.0, 30.0, 44.0, 60.0, 80.0)
_ANGLES = (0, 180, 90, 270, 35, 145, 325, 215)
_MARKER = 6.0  # half the side of the square that a marker takes
# What a place costs, per unit of area covered: a label outside of the frame cannot be read at all.
_OUTSIDE, _ON_MARKER, _ON_LABEL, _ON_LINE = 50.0, 4.0, 6.0, 1.0
_LEADER_FROM = 18.0  # a label this far from its point gets a line to it


@dataclass(frozen=True)
class Box:
    left: float
    bottom: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height

    def overlap(self, other: Box) -> float:
        """Area that both cover."""
        width = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        height = min(self.bottom + self.height, other.bottom + other.height) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The place in the box that is nearest to (x, y)."""
        return (
            min(max(x, self.left), self.left + self.width),
            min(max(y, self.bottom), self.bottom + self.height),
        )


@dataclass(frozen=True)
class Place:
    """Where a label goes: its box, and whether a line should lead to its point."""

    box: Box
    leader: bool


def clusters(points: Sequence[tuple[float, float]], reach: float = 8.0) -> list[list[int]]:
    """Indices of points whose markers touch, directly or through others: they share one label of several lines."""
    groups: list[list[int]] = []
    for index, point in enumerate(points):
        near = [group for group in groups if any(math.dist(point, points[other]) < reach for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append(sorted([index, *(other for group in near for other in group)]))
    return sorted(groups)


def place(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    markers: Sequence[tuple[float, float]],
    lines: Sequence[Box] = (),
) -> list[Place]:
    """Find a place for each label.

    Args:
        anchors: (x, y) that each label belongs to, in any unit of length with y upwards, say typographic points.
        sizes: (width, height) of each label, same unit.
        frame: where labels may be.
        markers: (x, y) of all markers, which labels should not cover.
        lines: thin boxes that labels had better not cover.

    Returns:
        One place per label, in order. The same input gives the same places.
    """
    boxes = [Box(x - _MARKER, y - _MARKER, 2 * _MARKER, 2 * _MARKER) for x, y in markers]
    placed: dict[int, Place] = {}
    # Short labels first: they fit where long ones do not. Then from the top right, as one reads crowded points.
    for index in sorted(range(len(anchors)), key=lambda i: (sizes[i][1], -anchors[i][1], -anchors[i][0], i)):
        taken = [other.box for other in placed.values()]
        drawn = [*lines, *(dot for i, other in placed.items() for dot in _leader(other, anchors[i]))]
        candidates = _candidates(anchors[index], sizes[index])
        costs = [
            _cost(candidate.box, frame, boxes, taken, drawn) + _crossed(_leader(candidate, anchors[index]), taken)
            for candidate in candidates
        ]
        placed[index] = candidates[costs.index(min(costs))]
    return [placed[index] for index in range(len(anchors))]


def _candidates(point: tuple[float, float], size: tuple[float, float]) -> list[Place]:
    (x, y), (width, height) = point, size
    places = []
    for distance in _DISTANCES:
        for angle in _ANGLES:
            right, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The label hangs on the side that faces the point; straight above or below it is centred.
            left = x + distance * right - width * (1 - round(right, 6) / max(abs(right), 0.5)) / 2
            bottom = y + distance * up - height * (1 - up) / 2
            places.append(Place(Box(left, bottom, width, height), leader=distance >= _LEADER_FROM))
    return places


def _cost(box: Box, frame: Box, markers: Sequence[Box], taken: Sequence[Box], lines: Sequence[Box]) -> float:
    kinds = ((_ON_MARKER, markers), (_ON_LABEL, taken), (_ON_LINE, lines))
    covered = sum(weight * sum(box.overlap(other) for other in others) for weight, others in kinds)
    # Rounded, so that among places that cover nothing the nearest wins.
    return round(_OUTSIDE * (box.area - box.overlap(frame)) + covered, 3)


def _leader(place: Place, anchor: tuple[float, float]) -> list[Box]:
    """The line from a label to its point, as small boxes along it."""
    if not place.leader:
        return []
    x, y = place.box.nearest(*anchor)
    steps = max(1, round(math.dist((x, y), anchor) / 3))
    along = [(x + (anchor[0] - x) * i / steps, y + (anchor[1] - y) * i / steps) for i in range(steps)]
    return [Box(across - 1.5, up - 1.5, 3, 3) for across, up in along]


def _crossed(leader: Sequence[Box], taken: Sequence[Box]) -> float:
    return round(_ON_LABEL * sum(dot.overlap(other) for dot in leader for other in taken), 3)
