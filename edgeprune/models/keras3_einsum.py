"""``keras.ops.einsum`` and ``tf.einsum`` as transpositions, reshapes and one matrix product.

tf_keras writes calls of ``tf.einsum`` into files without their tensors, and cannot read them back.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.models.keras3_emit import Emitter
from edgeprune.models.keras3_ops import operation_rule, unsupported
from edgeprune.models.types import Arguments, Operation, Structure, Tensor


@operation_rule("Einsum")
def _einsum(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    operands = [emitter.cast(operand, dtype) for operand in arguments["operands"]]
    return einsum(emitter, operation, operation.subscripts, operands)


def einsum(emitter: Emitter, operation: Operation, subscripts: str, operands: Sequence[Tensor]) -> Structure:
    """The einsum of tensors of tf_keras by operations that a file keeps.

    Raises:
        ModelError: it is of another form, named after ``operation``.
    """
    given, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = given.split(",")
    plain = all(len(set(term)) == len(term) == len(x.shape) for term, x in zip(terms, operands, strict=True))
    if not arrow or not 1 <= len(terms) <= 2 or not plain or not set(result) <= set(given):
        raise unsupported(operation, f"einsum {subscripts!r}, of one or two tensors without ... or diagonals")
    tensors = [
        _summed(emitter, x, term, result + "".join(terms[:place] + terms[place + 1 :]))
        for place, (x, term) in enumerate(zip(operands, terms, strict=True))
    ]
    (x, a), *second = tensors
    if not second:
        return _ordered(emitter, x, a, result)
    y, b = second[0]
    batch = [letter for letter in a if letter in b and letter in result]
    inner = [letter for letter in a if letter in b and letter not in result]
    left = [letter for letter in a if letter not in b]
    right = [letter for letter in b if letter not in a]
    sizes: dict[str, int | None] = {**dict(zip(b, y.shape, strict=True)), **dict(zip(a, x.shape, strict=True))}
    x = _ordered(emitter, x, a, [*batch, *left, *inner])
    y = _ordered(emitter, y, b, [*batch, *inner, *right])
    made = [*batch, *left, *right]
    if any(len(group) != 1 for group in (batch, left, inner, right)):
        x = _shaped(emitter, x, [batch, left, inner], sizes)
        y = _shaped(emitter, y, [batch, inner, right], sizes)
        flat = emitter.op("linalg.matmul", x, y, suffix="product")
        product = _shaped(emitter, flat, [[letter] for letter in made], sizes)
    else:
        product = emitter.op("linalg.matmul", x, y, suffix="product")
    return _ordered(emitter, product, made, result)


def _summed(emitter: Emitter, x: Tensor, term: str, needed: str) -> tuple[Tensor, list[str]]:
    """Without the axes that stand in no other term and not in the result."""
    axes = [place for place, letter in enumerate(term) if letter not in needed]
    if axes:
        x = emitter.op("math.reduce_sum", x, axes, suffix="sum")
    return x, [letter for letter in term if letter in needed]


def _ordered(emitter: Emitter, x: Tensor, letters: Sequence[str], wanted: Sequence[str]) -> Tensor:
    if list(letters) == list(wanted):
        return x
    return emitter.op("transpose", x, [list(letters).index(letter) for letter in wanted], suffix="order")


def _shaped(emitter: Emitter, x: Tensor, groups: Sequence[Sequence[str]], sizes: dict[str, int | None]) -> Tensor:
    """With the axes of each group made one. One size, that of the batch, may be open."""
    shape = []
    for group in groups:
        size: int | None = 1
        for letter in group:
            one = sizes[letter]
            size = None if size is None or one is None else size * one
        shape.append(-1 if size is None else size)
    return emitter.op("reshape", x, shape, suffix="shape")
