"""Shared by benchmarks that compare many builds of one model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import edgeprune


def build(
    model: str | Path, data: str, recipe: dict[str, Any], name: str, out: Path, seed: int, first: str
) -> edgeprune.Report:
    """The report of one build in a folder of its own below ``out``; a build that is there already is not repeated.

    Args:
        first: the name of the build that was made first; what the others have in common with it is not done again.
    """
    from edgeprune.recipe.load import parse_recipe

    folder, earlier = (out / slug(n) for n in (name, first))
    if not folder.exists() and earlier.exists():
        shutil.copytree(earlier / "stages", folder / "stages")
    parsed = parse_recipe(recipe, f"{slug(name)}.toml")
    return edgeprune.build(model, target="rpi4", data=data, recipe=parsed, out=folder, seed=seed)


def smaller(model: str, source: str, samples: int, out: Path) -> str:
    """The data with fewer training images, stratified, validation images included, as an .npz file in ``out``."""
    import numpy as np

    from edgeprune._tensorflow import import_tf

    import_tf()
    from edgeprune.calibration import representative_indices
    from edgeprune.data import InputSpec, load_data
    from edgeprune.models.load import load_model
    from edgeprune.recipe.config import DataConfig

    path = out / "data.npz"
    if not path.exists():
        data = load_data(source, DataConfig(), InputSpec.of(load_model(model)), seed=0)
        train = data.train.subset(representative_indices(data.train, samples, "stratified", 0))
        arrays = {}
        for name, split in (("train", train), ("test", data.test)):
            batches = [(x.numpy().astype(np.uint8), y.numpy()) for x, y in split.batches(512)]
            arrays[f"x_{name}"], arrays[f"y_{name}"] = map(np.concatenate, zip(*batches, strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
    return str(path)


def latency_ms(variant: dict[str, Any], kernels: str) -> float | None:
    """Median on this machine with these kernels, "xnnpack" or "builtin"; None: they do not run the file."""
    return next((m["median_ms"] for m in variant["latency"]["measured"] if m["kernels"] == kernels), None)


def slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
