"""Pictures of a profile: every operator has its place, and the same input gives the same bytes."""

import xml.etree.ElementTree as ElementTree

import pytest

from edgeprune.errors import OutputError
from edgeprune.report.profile_plots import MAX_BARS, Bar, bars, memory_svg, write_pngs

OPERATORS = [(index, "CONV_2D", 0.1 * (1 + index % 7)) for index in range(100)]


def document(milliseconds=(0.5, 0.2), timeline=(1000, 3000)):
    operators = [{"index": i, "name": "CONV_2D", "estimated_ms": ms} for i, ms in enumerate(milliseconds)]
    estimated = {"median_ms": 0.7, "threads": 4, "model_version": "1-xnnpack"}
    return {
        "target": "rpi4",
        "operators": operators,
        "latency": {"estimated": estimated if milliseconds[0] is not None else None},
        "memory": {"timeline_bytes": list(timeline)},
    }


def test_bars_keep_the_sum_and_the_order():
    """The slowest operators in their order, the rest in one bar; together all the time there is."""
    rows = bars(OPERATORS)
    assert len(rows) == MAX_BARS
    assert sum(row.ms for row in rows) == pytest.approx(sum(ms for _, _, ms in OPERATORS))
    indices = [int(row.name.split()[0]) for row in rows[:-1]]
    assert indices == sorted(indices)
    assert rows[-1].name == f"{100 - MAX_BARS + 1} others"
    assert min(row.ms for row in rows[:-1]) >= 0.5 - 1e-9  # 28 of 0.6 or more, 11 of 0.5


def test_few_operators_all_have_a_bar():
    """Nothing is put together while there is room; what takes no time has no bar."""
    assert bars([(0, "PAD", 0.1), (1, "RESHAPE", 0.0), (2, "ADD", 0.2)]) == [Bar("0 PAD", 0.1), Bar("2 ADD", 0.2)]


def test_drawings_are_svg_and_repeatable():
    """Well-formed elements without stand-in colours, the same for the same input."""
    first = memory_svg([10, 30, 20], "b")
    assert first == memory_svg([10, 30, 20], "b")
    ElementTree.fromstring(first)
    assert "#04" not in first


def test_pictures_are_written_as_far_as_there_are_figures(tmp_path):
    """Both pictures with an estimate; only the memory without; the same bytes each time."""
    assert [path.name for path in write_pngs(document(), tmp_path / "new")] == ["latency.png", "memory.png"]
    first = (tmp_path / "new" / "latency.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    write_pngs(document(), tmp_path / "new")
    assert (tmp_path / "new" / "latency.png").read_bytes() == first
    assert [p.name for p in write_pngs(document((None, None)), tmp_path / "without")] == ["memory.png"]


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    """A file in the way is reported with the option to change."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--plot"):
        write_pngs(document(), tmp_path / "file")
