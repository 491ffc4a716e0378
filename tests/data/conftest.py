"""Real image folders, and ways to look into splits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeprune.data import Split


def _write_image(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, 0, 255)).save(path)


@pytest.fixture(scope="session")
def pixels_of() -> Callable[[Split], list[int]]:
    """The first value of every sample, in order: the samples of these tests are told apart by it."""

    def read(split: Split) -> list[int]:
        return [int(v) for x, _ in split.batches(4).as_numpy_iterator() for v in x.reshape(len(x), -1)[:, 0]]

    return read


@pytest.fixture(scope="session")
def first_batch() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """(x, y) of the first batch, by default of 64 samples."""

    def read(split: Split, batch_size: int = 64, **options) -> tuple[np.ndarray, np.ndarray]:
        return next(split.batches(batch_size, **options).as_numpy_iterator())

    return read


@pytest.fixture
def flat_folder(tmp_path: Path) -> Path:
    """cat/, dog/, owl/ with 20 PNGs each; red 0..59 identifies the image, classes are in order of red."""
    for i in range(60):
        _write_image(tmp_path / "flat" / ("cat", "dog", "owl")[i // 20] / f"{i:02}.png", i)
    return tmp_path / "flat"


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    """train/ (2 x 20) and test/ (2 x 5), identified by red 0..39 and 100..109."""
    for i in range(40):
        _write_image(tmp_path / "split" / "train" / ("cat", "dog")[i // 20] / f"{i:02}.png", i)
    for i in range(10):
        _write_image(tmp_path / "split" / "test" / ("cat", "dog")[i // 5] / f"{i:02}.png", 100 + i)
    return tmp_path / "split"
