"""Which sizes the open inputs of a model get: those that the user names, else those that all samples have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgeprune.data.spec import InputSpec, Shape
from edgeprune.errors import DataError

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data.split import Split
    from edgeprune.models.front import Front
    from edgeprune.models.sizes import InputShapes
    from edgeprune.recipe.config import DataConfig


def settle(
    model: tf_keras.Model, given: InputShapes | None, front: Front | None = None, config: DataConfig | None = None
) -> tuple[InputSpec, str]:
    """The inputs of a model with the sizes that the user named, and who fixes what was open.

    Args:
        front: the part of the model that was cut off before these inputs.
        config: what the recipe says of the data.

    Raises:
        UsageError: sizes that do not fit the inputs.
    """
    from edgeprune.models.sizes import Inputs

    spec = InputSpec.of(model)
    shapes = Inputs.of(model).filled(given)
    by_data = "[data] size" if config and config.size else "the data"
    origin = by_data if any(None in shape for shape in shapes) else "--input-shape"
    return dataclasses.replace(spec, shapes=shapes, front=front), origin


def common_spec(spec: InputSpec, splits: Mapping[str, Split], name: str) -> InputSpec:
    """The inputs with the sizes that the samples of all splits have.

    Raises:
        DataError: the splits have samples of different sizes.
    """
    if not any(None in shape for shape in spec.shapes):
        return spec
    found = {split: part.store.shapes for split, part in splits.items()}
    first, shapes = next(iter(found.items()))
    for split, others in found.items():
        for one, other, wanted in zip(shapes, others, spec.shapes, strict=True):
            if one != other:
                raise varied(f"data of {name}", wanted, one, other, f"{first} and {split}")
    return dataclasses.replace(spec, shapes=shapes)


def varied(where: str, wanted: Shape, one: Shape, other: Shape, places: str = "") -> DataError:
    """The error for samples that have no common size, with what brings such samples to one."""
    return DataError(
        f"The {where} have samples of different sizes: {one} and {other}{f' in {places}' if places else ''}.",
        expected=f"one size for all samples, which the model, open for {wanted}, is then built for.",
        fix=_remedy(wanted),
    )


def _remedy(wanted: Shape) -> str:
    if len(wanted) == 3 and wanted.count(None) == 2:
        return (
            "resize them in the data source: dataset.map(lambda x, y: (tf.image.resize(x, [224, 224]), y)) before "
            ".batch(); image files in class folders are resized by [data] size = [224, 224] in the recipe."
        )
    return (
        "cut or pad them to one length in the data source: tf_keras.utils.pad_sequences(x, maxlen=100) for arrays, "
        ".padded_batch(32, padded_shapes=...) with a length given for a dataset."
    )
