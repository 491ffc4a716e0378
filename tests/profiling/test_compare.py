import json

from edgeprune.profiling.compare import compare
from edgeprune.profiling.profile import profile


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


def test_weights_belong_to_the_layer_that_uses_them(artifacts):
    """float16 weights count where they are used, not where they are unpacked, so they are half of the float32 ones."""
    rows = {row["operator"]: row for row in compare(artifacts["float32"], artifacts["float16"])["operators"]}
    assert rows["DEQUANTIZE"]["b"]["weight_bytes"] == 0
    for name in ("CONV_2D", "FULLY_CONNECTED"):
        assert rows[name]["b"]["weight_bytes"] == rows[name]["a"]["weight_bytes"] / 2


def test_operators_one_by_one(artifacts):
    """Files of one network correspond operator by operator, with the latency on a target; different ones do not."""
    found = compare(artifacts["float32"], artifacts["int8"], "rpi4")
    whole = profile(artifacts["float32"], "rpi4")
    assert [row["operator"] for row in found["aligned"]] == [row.name for row in whole.operators]
    assert found["aligned"][0]["a"]["estimated_ms"] == whole.operators[0].estimated_ms
    assert found["aligned"][0]["b"]["dtype"] == "int8"
    assert found["figures"]["estimated_ms"]["a"] == whole.latency.estimated.median_ms
    assert compare(artifacts["float32"], artifacts["lstm"])["aligned"] is None


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
