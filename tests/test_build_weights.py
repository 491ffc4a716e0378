"""Recipes that zero weights on the demo, with few epochs: what they promise is in the files."""

import json

import pytest
from commands import run
from matrix import representatives

CHANGES = {
    "gradual": "[finetune]\nepochs = 2\n",
    "lottery": "[lottery]\nepochs = 2\nrounds = 2\n",
    "oneshot-sparse": (
        '[quantize]\nmodes = ["float32"]\n[reconstruct]\nsamples = 64\n'
        "[weights]\nsparsity = 0.8\n[finetune]\nepochs = 1\n"
    ),
}
VARIANTS = {
    "gradual": ["magnitude-regrow"],
    "lottery": ["lottery", "lottery-control"],
    "oneshot-sparse": ["reconstruct"],
}


@pytest.mark.parametrize("recipe", representatives(["gradual", "oneshot-sparse", "lottery"], "oneshot-sparse"))
def test_the_recipe_builds_sparse_files(tmp_path, begin_demo, recipe):
    """Every variant of the recipe is in the report, with four fifths of its prunable weights zero."""
    begin_demo(tmp_path / "run")
    (tmp_path / "edgeprune.toml").write_text(f'extends = ["{recipe}"]\n{CHANGES[recipe]}')
    done = run("build", "--target", "rpi4", "--json", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = {row["name"]: row for row in report["variants"]}
    assert list(rows) == ["float32", *(f"{name}-float32" for name in VARIANTS[recipe])]
    for name in VARIANTS[recipe]:
        facts = json.loads((tmp_path / "run" / "stages" / name / "artifact.json").read_text())["facts"]
        zeros, size = (sum(row[key] for row in facts["zeros"]) for key in ("zeros", "size"))
        assert zeros == pytest.approx(0.8 * size, abs=len(facts["zeros"]))
        assert rows[f"{name}-float32"]["gzip_bytes"] < 0.5 * rows["float32"]["gzip_bytes"]
    if recipe == "lottery":
        assert rows["lottery-control-float32"]["control_of"] == "lottery-float32"
        assert not any("control" in name for name in report["picks"].values())
        assert {entry["name"]: entry["lottery"]["round"] for entry in report["pruning"]}["lottery"] == 2
        assert "the control trains other random weights" in (tmp_path / "run" / "report.md").read_text()
    if recipe == "oneshot-sparse":  # zeros first, then training around them
        facts = json.loads((tmp_path / "run" / "stages" / "reconstruct.zero" / "artifact.json").read_text())["facts"]
        assert facts["zeroed"]["validation"]["reconstructed"] > facts["zeroed"]["validation"]["pruned"]
        assert sum(row["zeros"] for row in facts["zeros"]) == zeros
        assert all(row["seconds"] > 0 for row in facts["zeroed"]["refitted"] if row["after"] is not None)
