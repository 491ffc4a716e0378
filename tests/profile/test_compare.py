import json

from edgeprune.profile import profile
from edgeprune.profile.compare import compare


def test_a_file_equals_itself(artifacts):
    """Compared with itself, a file differs in nothing."""
    found = compare(artifacts["int8"], artifacts["int8"])
    assert all(not pair["change"] for pair in found["figures"].values())
    assert all(row["a"] == row["b"] for row in found["operators"])


def test_figures_are_those_of_the_profiles(artifacts):
    """Every figure is the profile's, the change is B minus A, and the document is JSON."""
    found = json.loads(json.dumps(compare(artifacts["float32"], artifacts["int8"])))
    a, b = profile(artifacts["float32"]), profile(artifacts["int8"])
    assert found["figures"]["bytes"] == {"a": a.bytes, "b": b.bytes, "change": b.bytes - a.bytes}
    assert found["figures"]["arena_bytes"]["b"] == b.memory.arena_bytes


def test_rows_add_up_to_the_file(artifacts):
    """Counts and MACs by operator add up to those of the file; an operator of one side has no figures on the other."""
    found = compare(artifacts["float32"], artifacts["int8"])
    for side, name in (("a", "float32"), ("b", "int8")):
        rows = [row[side] for row in found["operators"] if row[side]]
        whole = profile(artifacts[name])
        assert sum(row["count"] for row in rows) == len(whole.operators)
        assert sum(row["macs"] for row in rows) == whole.macs
    only = next(row for row in found["operators"] if row["operator"] == "QUANTIZE")
    assert only["a"] is None
    assert only["b"]["count"] > 0
