"""What a rectifier behind a layer lets through of the layer's errors.

Where the original model's value is cut off by a ReLU, any other value that is cut off is as good. So the targets of a
refit are the original outputs where these pass, and elsewhere what the layer gives already, as far as that is cut off
(Zhang et al. 2016, arXiv:1505.06798, section 2.2, whose objective this minimizes by majorization).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeprune.models.graph import View, activation_name, flat, symbol_of
from edgeprune.models.types import Layer, Node
from edgeprune.reconstruction.forward import call
from edgeprune.reconstruction.linear import Values
from edgeprune.reconstruction.sums import factors_of

# What the kept rows of one layer may fill; a layer with more is fitted to its outputs as they are.
ROWS_BYTES = 256_000_000
_LIMITS = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0)}


@dataclasses.dataclass(frozen=True)
class Rectifier:
    """What the output of a layer goes through, in the original model, until a rectifier reads it.

    Attributes:
        steps: the calls between the layer and the rectifier.
        slope: by how much the value that the rectifier reads rises with the layer's output, per channel.
        low, high: between which the rectifier lets values through.
    """

    steps: tuple[Node, ...]
    slope: np.ndarray
    low: float
    high: float

    @classmethod
    def behind(cls, view: View, node: Node, is_there: Callable[[Any], bool]) -> Rectifier | None:
        """The rectifier behind a call, where nothing else reads what lies between.

        Args:
            view: of the original model.
            node: a call of it.
            is_there: whether the value of a tensor is known when the layer is refitted.
        """
        if limits := _limits(node.layer):
            return cls((), np.ones(node.outputs.shape[-1]), *limits)
        if activation_name(node.layer) != "linear":
            return None
        slope, made = np.ones(node.outputs.shape[-1]), node.outputs
        steps: list[Node] = []
        while True:
            readers = view.readers(made)
            if len(readers) != 1 or view.is_end(made) or len(view.uses(readers[0].layer)) > 1:
                return None
            (reader,) = readers
            if limits := _limits(reader.layer):
                return cls(tuple(steps), slope, *limits)
            factors = factors_of(reader)
            others = [tensor for tensor in reader.keras_inputs if tensor is not made]
            if factors is None or len(others) + 1 < len(reader.keras_inputs) or not all(map(is_there, others)):
                return None
            slope, made = slope * factors, reader.outputs
            steps.append(reader)

    def others(self, node: Node) -> list[int]:
        """Ids of the tensors that the steps read and that are not made of the output of the layer's call ``node``."""
        made = {id(tensor) for call_ in (node, *self.steps) for tensor in flat(call_.outputs)}
        return [id(tensor) for step in self.steps for tensor in step.keras_inputs if id(tensor) not in made]

    def reached(self, node: Node, linear: Any, values: Values) -> np.ndarray:
        """What the rectifier reads in the original model, from the output of the layer without its activation, and the
        values of :meth:`others`, at the same positions."""
        made, values = linear, {**values, id(node.outputs): linear}
        for step in self.steps:
            made = call(step, values)
            values[id(step.outputs)] = made
        return np.asarray(made)


def _limits(layer: Layer) -> tuple[float, float] | None:
    """Between which values a layer is the identity behind its own operation, if it cuts others off to them."""
    if type(layer).__name__ == "ReLU":
        plain = not layer.negative_slope and not layer.threshold
        return (0.0, np.inf if layer.max_value is None else float(layer.max_value)) if plain else None
    return _LIMITS.get(activation_name(layer)) or _LIMITS.get(symbol_of(layer).removeprefix("nn."))


class Rows:
    """The rows of a refit, kept until it is solved.

    Attributes:
        x: what is multiplied, float32 [parts, rows, terms].
        wanted: the original outputs, [parts, rows, columns].
        reached: what the rectifier read there.
    """

    def __init__(self, rectifier: Rectifier):
        self.rectifier = rectifier
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._bytes = 0

    @property
    def fits(self) -> bool:
        """Whether all rows are kept: there is room for them."""
        return self._bytes <= ROWS_BYTES

    def add(self, x: np.ndarray, wanted: np.ndarray, reached: np.ndarray) -> None:
        self._bytes += x.nbytes + wanted.nbytes + reached.nbytes
        if self.fits:
            self._parts.append((x, wanted, reached))
        else:
            self._parts.clear()

    def targets(self, matrix: np.ndarray, constant: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows, some at a time, and what they should give, in float64, for a layer that is at this matrix
        [parts, terms, columns] and constant [parts, columns]."""
        slope = self.rectifier.slope.reshape(constant.shape)[:, None]
        felt = np.abs(slope) > 1e-12
        for x, wanted, reached in self._parts:
            # In double precision: pixels beside each other are nearly equal, so that solving for their weights makes
            # what is rounded in these sums ten thousand times larger.
            x = x.astype(np.float64)
            given = x @ matrix + constant[:, None]
            here = reached + slope * (given - wanted)
            for limit, cut in ((self.rectifier.low, np.less_equal), (self.rectifier.high, np.greater_equal)):
                edge = wanted + np.where(felt, (limit - reached) / np.where(felt, slope, 1), 0)
                wanted = np.where(cut(reached, limit), np.where(cut(here, limit), given, edge), wanted)
            yield x, wanted
