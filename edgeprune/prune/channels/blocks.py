"""Whole residual blocks and layers: which can be bypassed, how much each matters, and the surgery.

A block lies between two tensors of the same shape, with no other way in or out. Bypassed, its input takes the place of
its output. ``(model, blocks) -> new model``; nothing given is changed. The oracle is :func:`run_bypassed`: the model as
it was, run call by call, every call of the block included, with the block's output multiplied by zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeprune.errors import DataError, RecipeError
from edgeprune.models.count import count
from edgeprune.models.graph import View, ordered_nodes, symbol_of
from edgeprune.models.rebuild import copy_weights, rebuild
from edgeprune.models.types import Layer, Node, Tensor
from edgeprune.prune.channels.analyse import fixed_macs
from edgeprune.recipe.patterns import check_patterns, matches

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

    from edgeprune.data.source import Batches

Kind = Literal["residual", "chain"]
ADDITIONS = ("math.add", "add", "__operators__.add", "__operators__.radd")


@dataclasses.dataclass(frozen=True)
class Block:
    """What lies between ``entry`` and ``exit``, two tensors of one functional model.

    Attributes:
        name: the addition of a residual block; the first layer of a chain.
        kind: ``residual``: an addition of ``entry`` and a branch that starts there. ``chain``: layers one after the
            other.
        silenced: the tensor that is zero when the block is bypassed: the branch's end, or ``exit``.
        layers: names of the layers that vanish with the block.
        macs: multiply-accumulates for one sample that vanish with it.
    """

    name: str
    kind: Kind
    entry: Tensor
    exit: Tensor
    silenced: Tensor
    layers: tuple[str, ...]
    macs: int


@dataclasses.dataclass(frozen=True)
class BlockEvidence:
    """What decides which block goes.

    Attributes:
        batches: iterates over batches (x, y); for ``similarity``.
        worsening: ``(model, model without a block) -> how much worse the second is`` on validation data; for
            ``sensitivity``.
    """

    batches: Batches | None = None
    worsening: Callable[[tf_keras.Model, tf_keras.Model], float] | None = None


@dataclasses.dataclass(frozen=True)
class Removal:
    """A block of the model as it was just before; ``score``: the criterion's, ``difference``: from the oracle."""

    block: Block
    score: float
    difference: float


def find_blocks(model: tf_keras.Model) -> tuple[Block, ...]:
    """The residual blocks and the chains of a flat functional tf_keras model that can be bypassed.

    A chain starts at a layer with a kernel and ends where the shape is that of its input again, with the normalization
    and activation behind the layer. A block that makes an output of the model stays, so outputs keep their names.
    """
    view = View(model)
    nodes = [node for node in view.nodes if not node.is_input]
    residual = [block for node in nodes for block in _residuals(view, node)]
    branches = {(id(block.entry), id(block.silenced)) for block in residual}
    chains = [block for node in nodes for block in _chains(view, node)]
    return (*residual, *(chain for chain in chains if (id(chain.entry), id(chain.exit)) not in branches))


def bypass(model: tf_keras.Model, blocks: Sequence[Block]) -> tf_keras.Model:
    """A new model without ``blocks`` (of ``model``); the other layers keep names, weights and dtype policies."""
    replaced = {id(block.exit): block.entry for block in blocks}
    pruned = rebuild(model, replaced=replaced)
    copy_weights(model, pruned)
    return pruned


def run_bypassed(model: tf_keras.Model, blocks: Sequence[Block], inputs: Any) -> list[tf.Tensor]:
    """The oracle: outputs of ``model`` with the branch of each residual block, or the output of each chain, multiplied
    by zero, and to the latter the chain's input added.

    Args:
        inputs: tensors, in the structure that the model takes.
    """
    import tensorflow as tf

    silenced = {id(block.silenced): block for block in blocks}
    values = dict(zip(map(id, model.inputs), tf.nest.flatten(inputs), strict=True))
    for node in ordered_nodes(model):
        if node.is_input:
            continue
        args, kwargs = tf.nest.map_structure(lambda v: values.get(id(v), v), (node.call_args, node.call_kwargs))
        outputs = node.layer(*args, **kwargs)
        for tensor, value in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
            block = silenced.get(id(tensor))
            values[id(tensor)] = value if block is None else _silent(block, value, values)
    return [values[id(tensor)] for tensor in model.outputs]


def _silent(block: Block, value: tf.Tensor, values: dict[int, tf.Tensor]) -> tf.Tensor:
    mask = getattr(value, "_keras_mask", None)
    value = value * 0 if block.kind == "residual" else value * 0 + values[id(block.entry)]
    if mask is not None:
        value._keras_mask = mask
    return value


def verify(pruned: tf_keras.Model, model: tf_keras.Model, blocks: Sequence[Block], seed: int = 0) -> float:
    """Compare with the oracle on random inputs; the largest difference relative to the largest output.

    Raises:
        VerificationError: it is more than rounding explains.
    """
    from edgeprune.prune.channels import surgery  # has layers of its own, so it imports TensorFlow

    inputs = surgery.random_inputs(model, seed)
    return surgery.compare(run_bypassed(model, blocks, inputs), pruned(inputs, training=False), model, inputs)


def similarity(model: tf_keras.Model, blocks: Sequence[Block], evidence: BlockEvidence) -> list[float]:
    """1 - cosine of each block's input and output, mean over samples: what the block changes of the direction.

    Block influence (Men et al. 2024, arXiv:2403.03853), over all positions of a sample at once: after a ReLU, single
    positions are often zero and have no direction.
    """
    import tensorflow as tf
    import tf_keras

    if evidence.batches is None:
        raise DataError(
            "The criterion 'similarity' looks at data, and none was given.", fix="pass evidence with batches."
        )
    pairs = [(block.entry, block.exit) for block in blocks]
    tapped = tf_keras.Model(model._nested_inputs, [tensor for pair in pairs for tensor in pair])

    @tf.function(reduce_retracing=True)
    def cosines(x: Any) -> tf.Tensor:
        values = [tf.cast(v, tf.float32) for v in tf.nest.flatten(tapped(x, training=False))]
        unit = [tf.math.l2_normalize(tf.reshape(value, [tf.shape(value)[0], -1]), -1) for value in values]
        return tf.stack([tf.reduce_sum(a * b, -1) for a, b in zip(unit[::2], unit[1::2], strict=True)])

    per_sample = np.concatenate([cosines(x).numpy() for x, *_ in evidence.batches()], axis=1)
    return [float(score) for score in 1 - per_sample.mean(1)]


def sensitivity(model: tf_keras.Model, blocks: Sequence[Block], evidence: BlockEvidence) -> list[float]:
    """How much worse the model is on validation data without each block, in points of the metric."""
    if evidence.worsening is None:
        raise DataError(
            "The criterion 'sensitivity' measures on data, and none was given.", fix="pass evidence with worsening."
        )
    return [evidence.worsening(model, bypass(model, [block])) for block in blocks]


CRITERIA: dict[str, Callable[[tf_keras.Model, Sequence[Block], BlockEvidence], list[float]]] = {
    "similarity": similarity,
    "sensitivity": sensitivity,
}


def prune_blocks(
    model: tf_keras.Model,
    *,
    remove: int | None = None,
    max_macs: float | None = None,
    criterion: str = "similarity",
    evidence: BlockEvidence,
    protect: Sequence[str] = (),
) -> tuple[tf_keras.Model, list[Removal]]:
    """Remove blocks one after the other, the one that matters least in the model as it is by then.

    Args:
        model: flat functional tf_keras model; it is not changed.
        remove: number of blocks; or
        max_macs: fraction of the multiply-accumulates that may stay, in (0, 1). A block that saves none stays.
        criterion: a key of :data:`CRITERIA`.
        evidence: the data that the criterion looks at.
        protect: shell patterns over layer names; a block with such a layer stays.

    Returns:
        The new model, and the blocks that went, in their order.

    Raises:
        RecipeError: not exactly one budget, an unknown criterion, a pattern that matches no layer, or too few blocks
            for the budget.
        DataError: the criterion needs data that the evidence does not have.
        VerificationError: a pruned model does not equal the oracle.
    """
    if (remove is None) == (max_macs is None):
        raise RecipeError(
            "Removing blocks needs a budget, and one only.",
            expected="remove (how many blocks go) or max_macs (the fraction of the multiply-accumulates that stays).",
        )
    if criterion not in CRITERIA:
        raise RecipeError(f"There is no criterion {criterion!r}.", expected=f"one of: {', '.join(CRITERIA)}.")
    check_patterns("layers", {"protect": protect}, (layer.name for layer in model.layers))
    limit = None if max_macs is None else max_macs * count(model).macs
    removals: list[Removal] = []
    current = model
    while len(removals) < (remove or 0) if limit is None else count(current).macs > limit:
        blocks = [
            block
            for block in find_blocks(current)
            if (limit is None or block.macs) and not matches((block.name, *block.layers), protect)
        ]
        if not blocks:
            raise _too_few(model, current, removals, remove, max_macs)
        scores = CRITERIA[criterion](current, blocks, evidence)
        best = int(np.argmin(scores))
        pruned = bypass(current, [blocks[best]])
        removals.append(Removal(blocks[best], scores[best], verify(pruned, current, [blocks[best]])))
        current = pruned
    return current, removals


def _too_few(
    model: tf_keras.Model,
    current: tf_keras.Model,
    removals: list[Removal],
    remove: int | None,
    max_macs: float | None,
) -> RecipeError:
    asked = f"{remove} blocks" if remove else f"all but {max_macs:.1%} of the multiply-accumulates"
    kept = count(current).macs / max(count(model).macs, 1)
    return RecipeError(
        f"[layers] cannot remove {asked}: {len(removals)} blocks can go, which leaves {kept:.1%} of the "
        "multiply-accumulates.",
        expected="residual additions, or layers whose input and output have the same shape.",
        fix="ask for less, protect fewer layers, or remove filters instead ([filters]).",
    )


def _residuals(view: View, node: Node) -> Iterable[Block]:
    """The residual block that ends in this call, if it is one."""
    if not _is_addition(node) or len(node.keras_inputs) != 2 or view.is_end(node.outputs):
        return
    for entry, branch in (node.keras_inputs, node.keras_inputs[::-1]):
        if _alike(entry, node.outputs) and _is_branch(view, entry, branch, node):
            yield _block(view, node.layer.name, "residual", entry, node.outputs, branch)
            return


def _is_branch(view: View, entry: Tensor, branch: Tensor, addition: Node) -> bool:
    """Whether the calls behind ``branch`` see ``entry`` alone, and feed nothing but the addition."""
    inside: dict[int, Node] = {}
    waiting = [branch]
    while waiting:
        tensor = waiting.pop()
        if tensor is entry:
            continue
        node = view.maker(tensor)
        if not _makes_one(node) or view.is_end(tensor):
            return False
        if id(node) not in inside:
            inside[id(node)] = node
            waiting += node.keras_inputs
    allowed = {*inside, id(addition)}
    readers = [reader for node in inside.values() for reader in view.readers(node.outputs)]
    heavy = any(_has_kernel(node.layer) for node in inside.values())
    return heavy and all(id(reader) in allowed for reader in readers)


def _chains(view: View, start: Node) -> Iterable[Block]:
    """The shortest chain from this call on, with what follows its last layer that has a kernel."""
    if not _has_kernel(start.layer) or not _is_link(start):
        return
    entry, end, node = start.keras_inputs[0], None, start
    while True:
        if _alike(entry, node.outputs) and not view.is_end(node.outputs):
            end = node.outputs
        readers = view.readers(node.outputs)
        if len(readers) != 1 or view.is_end(node.outputs) or not _is_link(readers[0]):
            break
        node = readers[0]
        if end is not None and _has_kernel(node.layer):
            break
    if end is not None:
        yield _block(view, start.layer.name, "chain", entry, end, end)


def _is_link(node: Node) -> bool:
    return len(node.keras_inputs) == 1 and _makes_one(node)


def _makes_one(node: Node) -> bool:
    """Whether a call takes one tensor or more and makes one."""
    return not node.is_input and not isinstance(node.outputs, list | tuple | dict)


def _block(view: View, name: str, kind: Kind, entry: Tensor, exit: Tensor, silenced: Tensor) -> Block:
    needed = view.needed({id(exit): entry})
    gone = [node for node in view.nodes if id(node) not in needed]
    left = {node.layer.name for node in view.nodes if id(node) in needed}
    names = dict.fromkeys(node.layer.name for node in gone if node.layer.name not in left)
    return Block(name, kind, entry, exit, silenced, tuple(names), int(sum(map(fixed_macs, gone))))


def _is_addition(node: Node) -> bool:
    return type(node.layer).__name__ == "Add" or symbol_of(node.layer) in ADDITIONS


def _has_kernel(layer: Layer) -> bool:
    return any(len(weight.shape) > 1 for weight in layer.weights)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and tuple(a.shape) == tuple(b.shape)
