"""Pareto front, labels, and the SVG they end in."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from edgeprune.report.labels import Box, clusters, place
from edgeprune.report.pareto import front
from edgeprune.report.plots import Line, Point, curves, scatter

COORDINATES = st.tuples(st.integers(0, 9), st.integers(0, 9))
POINTS = [Point("float32", 328, 83.8, baseline=True), Point("int8", 95.4, 83.5), Point("pruned", 95.4, 82.7, pick=True)]


@given(st.lists(COORDINATES, min_size=1, max_size=12), st.booleans())
def test_the_front_is_what_nothing_beats(points, higher_is_better):
    """A point is on the front if and only if no other is at least as good on both axes and better on one."""

    def beats(a, b):
        as_good = a[0] <= b[0] and (a[1] >= b[1] if higher_is_better else a[1] <= b[1])
        return as_good and a != b

    chosen = front(points, higher_is_better)
    assert chosen == sorted(chosen, key=lambda index: points[index])
    for index, point in enumerate(points):
        assert (index in chosen) == (not any(beats(other, point) for other in points))


def test_labels_of_close_points_overlap_neither_each_other_nor_markers():
    """Twelve points in a heap: every label is inside the frame and covers nothing."""
    points = [(150 + 14 * (i % 4), 100 + 13 * (i // 4)) for i in range(12)]
    frame = Box(0, 0, 400, 260)
    places = [spot.box for spot in place(points, [(50.0, 10.0)] * 12, frame, points)]
    assert all(abs(box.overlap(frame) - box.area) < 1e-6 for box in places)
    assert all(a.overlap(b) == 0 for a, b in itertools.combinations(places, 2))
    assert all(box.overlap(Box(x - 4, y - 4, 8, 8)) == 0 for box in places for x, y in points)


def test_a_lone_label_stands_beside_its_point():
    """Without a crowd there is no line to the point."""
    (spot,) = place([(200, 100)], [(50.0, 10.0)], Box(0, 0, 400, 260), [(200, 100)])
    assert not spot.leader
    assert spot.box.left > 200


@given(st.lists(COORDINATES, max_size=10))
def test_clusters_are_a_partition_by_nearness(points):
    """Every point is in one cluster, and two points nearer than the reach share it."""
    groups = clusters(points, reach=2.0)
    assert sorted(itertools.chain(*groups)) == list(range(len(points)))
    home = {index: number for number, group in enumerate(groups) for index in group}
    for a, b in itertools.combinations(range(len(points)), 2):
        if (points[a][0] - points[b][0]) ** 2 + (points[a][1] - points[b][1]) ** 2 < 4:
            assert home[a] == home[b]


def test_the_svg_fits_into_a_page():
    """Colours are variables of the page, ids are its own, no namespace, style sheet or date comes along."""
    svg = scatter(POINTS, "File size (kB)", "Accuracy (%)", True, "size")
    assert svg.startswith("<svg")
    assert not re.search(r"#[0-9a-f]{6}|xmlns|http|<style|<metadata|<\?xml|font-family", svg)
    assert "var(--accent)" in svg
    assert all(name.startswith("size-") for name in re.findall(r'\bid="([^"]*)"', svg))
    assert {*re.findall(r'(?:href="#|url\(#)([^")]*)', svg)} <= {*re.findall(r'\bid="([^"]*)"', svg)}


def test_names_stay_text():
    """A name that looks like markup, mathematics or one of our stand-in colours is shown as it is."""
    names = ["<script>alert(1)</script>", "$x^2$", "#010101", 'id="a" &amp;']
    svg = scatter([Point(name, 10.0 * i, i) for i, name in enumerate(names, 1)], "x", "y", True, "p")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert "<script" not in svg
    escaped = {name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for name in names}
    assert escaped <= set(texts)


def test_every_point_has_its_label_even_when_all_coincide():
    """Points on one spot share a label of several lines."""
    svg = scatter([Point(f"variant-{i}", 95.4, 83.5) for i in range(6)], "x", "y", True, "p")
    assert all(f">variant-{i}<" in svg for i in range(6))


def test_wide_ranges_get_a_logarithmic_axis():
    """From 1 kB to 10 MB, small and large files are both told apart."""
    points = [Point("a", 1, 1), Point("b", 2, 2), Point("c", 10_000, 3)]
    found = re.findall(r'<use href="#\S+" x="([\d.]+)" y="[\d.]+" style="fill: var\(--point\)', scatter(
        points, "x", "y", True, "p"
    ))  # fmt: skip
    a, b, *_ = map(float, found)
    assert b - a > 10


def test_curves_leave_gaps_and_stay_the_same():
    """A missing epoch is a gap, not a zero, and drawing twice gives the same bytes."""
    lines = [Line("train", [0.9, None, 0.7]), Line("validation", [float("nan"), 0.8, 0.75], dashed=True)]
    svg = curves(lines, [1, 2, 3], "Loss", "loss")
    assert svg == curves(lines, [1, 2, 3], "Loss", "loss")
    assert ">train<" in svg
    assert len(re.findall(r'<use href="#\S+" x="[^"]*" y="[^"]*" style="fill: var\(--accent\)', svg)) == 3  # 2 + legend
