"""Rewrite a model so that XNNPACK's sparse inference can take it: symmetric explicit padding for strided kernels.

'same' with stride 2 pads an even image by 0 on one side and 1 on the other, which XNNPACK's sparse kernels do not
know. Padded by 1 on both sides the output has the same shape, but each strided layer looks one pixel further up and
left: the outputs change, and fine-tuning absorbs it. An image of odd size is padded symmetrically by 'same' already;
writing that down explicitly changes no output. Nor does making an average pooling over the whole image a global one.
Batch normalization and activations need nothing: conversion folds them.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from edgeprune.errors import ModelError
from edgeprune.hardware.xnnpack.sparse_inference import Analysis, Problem, Verdict
from edgeprune.models.graph import CallKey, View
from edgeprune.models.pooling import mean_for, whole_map_poolings
from edgeprune.models.rebuild import copy_layer, copy_weights, make_like, rebuild
from edgeprune.models.types import Layer, Tensor
from edgeprune.prune.sparse.keras import analyse_model

if TYPE_CHECKING:
    import tf_keras


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A rewritten model.

    Attributes:
        model: shares nothing with the one given.
        changed: name of the rewritten layer → what was done.
        analysis: of the new model.
    """

    model: tf_keras.Model
    changed: dict[str, str]
    analysis: Analysis


def prepare(model: tf_keras.Model) -> Prepared:
    """Rewrite what can be rewritten; what cannot is a problem in the analysis of the result.

    Args:
        model: flat functional tf_keras model.
    """
    poolings = whole_map_poolings(model)
    wanted = {v.node.name for v in analyse_model(model).verdicts if v.problem and v.problem.rule == "symmetric"}
    view = View(model)
    plan = {name: step for name in wanted if (step := _step(view, model.get_layer(name)))}
    configs = {layer: {"padding": value} for _, layer, value in plan.values()}
    pads = {name: side for name, (side, layer, _) in plan.items() if layer == name}

    def make_layer(layer: Layer) -> Layer:
        if layer.name in poolings:
            return mean_for(layer)
        if layer.name not in configs:
            return copy_layer(layer)
        return make_like(layer, {**layer.get_config(), **configs[layer.name]})

    make = functools.cache(make_layer)

    def emit(layer: Layer, key: CallKey, args: Any, kwargs: Any) -> Any:
        if layer.name in pads:
            args = (_padded(args[0], pads[layer.name], key), *args[1:])
        return make(layer)(*args, **kwargs)

    rebuilt = rebuild(model, emit)
    copy_weights(model, rebuilt)
    changed = {name: f"padded by {plan[name][0]} on each side" for name in sorted(plan)}
    changed |= dict.fromkeys(sorted(poolings), "made a global average pooling")
    return Prepared(rebuilt, changed, analyse_model(rebuilt))


def _padded(image: Tensor, side: int, key: CallKey) -> Tensor:
    import tf_keras

    name, index = key
    label = f"{name}_symmetric_pad{f'_{index}' if index else ''}"
    return tf_keras.layers.ZeroPadding2D(side, name=label)(image)


def _step(view: View, layer: Layer) -> tuple[int, str, Any] | None:
    """How to pad a layer symmetrically: (pixels on each side, layer that changes, its new padding), or None.

    None where the output would get another shape.
    """
    side = (layer.kernel_size[0] - 1) // 2
    if layer.kernel_size[0] != layer.kernel_size[1] or layer.kernel_size[0] % 2 == 0:
        return None
    if layer.padding == "same":
        return side, layer.name, "valid"
    image = view.uses(layer)[-1].keras_inputs[0]
    before = view.maker(image).layer
    if type(before).__name__ != "ZeroPadding2D" or len(view.uses(before)) > 1:
        return None
    if len(view.readers(image)) > 1 or view.is_end(image):
        return None
    size = before.input_shape[1:3]
    for length, kernel, stride, pad in zip(size, layer.kernel_size, layer.strides, before.padding, strict=True):
        if length is None or (length + sum(pad) - kernel) // stride != (length + 2 * side - kernel) // stride:
            return None
    return side, before.name, ((side, side), (side, side))


def require_qualified(prepared: Prepared) -> None:
    """Refuse a model that cannot get sparse inference, before any time is spent on training it.

    Raises:
        ModelError: with every layer that is in the way, and what to change.
    """
    analysis = prepared.analysis
    if analysis.qualifies:
        return
    lines = [f"  {_line(None, problem)}" for problem in analysis.missing]
    lines += [f"  {_line(verdict, verdict.problem)}" for verdict in analysis.verdicts if verdict.problem]
    raise ModelError(
        "\n".join([f"Sparse inference is not possible for the model {prepared.model.name!r}:", *lines]),
        expected="a stem, then 1x1 and depthwise convolutions, then a global average pooling (`edgeprune check`).",
        fix="change these layers, or leave [weights] sparse_inference out and prune for size only.",
    )


def _line(verdict: Verdict | None, problem: Problem) -> str:
    where = f"{verdict.node.name} " if verdict else ""
    return f"{where}{problem.what}: {problem.fix}."
