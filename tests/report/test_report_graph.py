"""The graph of a file in the report: every line stands for something that an operator reads."""

import itertools
import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from edgeprune.profiling.profile import profile
from edgeprune.report.graph import arcs, graph_svg, operators_table
from edgeprune.report.schema import Operator, parse


def operator(index, reads, **more):
    return Operator(index=index, name="ADD", output_name="", macs=0, estimated_ms=None, reads=reads, **more)


@st.composite
def graphs(draw):
    """Operators that each read some of those above."""
    count = draw(st.integers(1, 25))
    return [operator(i, sorted(draw(st.sets(st.integers(0, i - 1), max_size=4)) if i else set())) for i in range(count)]


@given(graphs())
def test_arcs_are_what_is_read_from_further_above(operators):
    """Each such pair is on exactly one arc; arcs that share a lane share no row."""
    found = arcs(operators)
    pairs = [(arc.start, end) for arc in found for end in arc.ends]
    assert sorted(pairs) == sorted((i, one.index) for one in operators for i in one.reads if i < one.index - 1)
    for lane in {arc.lane for arc in found}:
        spans = sorted((arc.start, arc.ends[-1]) for arc in found if arc.lane == lane)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_the_drawing_has_a_row_for_each_operator(variations):
    """Name, bar as long as its time, zeros, place; lines only where something is read; any name is well-formed."""
    operators = parse(variations["placed"]()).picked.operators
    hostile = operators[5].model_copy(update={"name": "<b>&\"'", "output_name": "</svg>"})
    root = ElementTree.fromstring(graph_svg([*operators[:5], hostile]))
    rows = root.findall("g")
    assert len(rows) == 6
    assert [row.find("path") is not None for row in rows] == [False, True, True, False, True, True]
    widths = [float(row.find("rect").get("width")) for row in rows[1:]]
    assert widths == [30.0, 60.0, 90.0, 120.0, 150.0]
    assert [row.find("circle").get("class") for row in rows[4:]] == ["node accelerator", "node cpu"]
    texts = [[text.text for text in row.findall("text")] for row in rows]
    assert texts[1] == ["1 CONV_2D", "1 × 8 × 8 × 4", "0.100 ms", "50%", "accelerator"]
    assert texts[5] == ["5 <b>&\"'", "1 × 8 × 8 × 4", "0.500 ms", "CPU"]
    assert len(root.findall("path")) == 2  # 0 → 3, 2 → 4


def test_the_table_says_the_same_in_words(variations):
    """Who does not see the drawing reads what each operator reads, and where it runs."""
    rows = operators_table("x", parse(variations["placed"]()).picked.operators).rows
    assert [cell.text for cell in rows[4]] == [
        "4 ADD", "2, 3", "tensor 4", "1 × 8 × 8 × 4", "int8", "4.00 k", "400 B", "–", "0.400 ms", "accelerator",
    ]  # fmt: skip


def test_reports_of_before_have_a_graph_without_lines(report):
    """Where operators do not say what they read, names and times are shown all the same."""
    old = {"index": 0, "name": "ADD", "output_name": "a", "macs": 0, "estimated_ms": 0.5}
    report["variants"][3]["operators"] = [old, {**old, "index": 1}]
    root = ElementTree.fromstring(graph_svg(parse(report).picked.operators))
    assert len(root.findall("g")) == 2
    assert not root.findall(".//path")


def test_a_profile_says_what_operators_read(artifacts):
    """An addition reads the two operators whose outputs it adds, in the order in which they run."""
    rows = profile(artifacts["int8"], "coral").operators
    add = next(row for row in rows if row.name == "ADD")
    assert len(add.reads) == 2
    assert all(rows[index].output_shape == add.output_shape for index in add.reads)
    assert {row.on_accelerator for row in rows} <= {True, False}
    assert {row.on_accelerator for row in profile(artifacts["int8"], "rpi4").operators} == {None}
