"""Milliseconds by a target's compiler: of a whole file exactly, of its operators as functions of their sizes.

What a compiler says follows no short formula, but at its place in a model an operator takes nearly a constant and so
much for each element of what it reads and makes, channels counted in blocks of eight: its kernel has the product of two
widths. These shares are fitted to a few files whose widths are spread over all that are possible. What they miss is
left to the exact milliseconds.

Weights count as ones that cannot be compressed, for what they are in the end is not known while channels are chosen:
the file that is built takes no longer than said here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.optimize
from scipy.stats import qmc

from edgeprune.errors import RecipeError
from edgeprune.hardware.compilers import Timing, time_for
from edgeprune.prune.choice.file_shapes import FileShapes
from edgeprune.prune.choice.ladders import Widths
from edgeprune.target import Target
from edgeprune.tflite.graph import Operator, Subgraph

# Files that shares are fitted to. On a ResNet8 and a MobileNet, 40 are no better.
FILES = 12
# Channels that an Ethos-U computes at once: fewer take as long. Counted singly, widths between blocks came out 17 %
# (U55) and 30 % (U65) too fast on the ResNet8, in blocks 5 % and 20 %.
_BLOCK = 8
# Kernels of few bytes may take some more than random ones do: up to 0.15 % of the time of a small file on the U65.
_SPARE = 1.002
# Errors count in relation to the time, but to no less than this part of the operator's longest.
_LEAST_TIME = 0.02


class CompilerTimes:
    """What the compiler of a target says of a model's files; it is asked about each file once.

    Attributes:
        whole: milliseconds of the file as it is, with its own weights.
        close: see :class:`edgeprune.prune.choice.budget.Resource`; each file takes the compiler about a second.

    Raises:
        MissingError: the compiler is not installed.
        ConversionError: it refuses a file.
        RecipeError: it leaves operators to the processor, whose time it does not know.
    """

    close = 2e-2

    def __init__(self, shapes: FileShapes, target: Target):
        self._shapes, self._target = shapes, target
        self._known: dict[bytes, Timing] = {}
        self._clock: tuple[float, Callable[[Subgraph, Operator], float]] | None = None
        self.whole = self._timing(shapes.content).milliseconds

    def exact(self, keep: np.ndarray) -> float:
        """The most milliseconds that the file in which only some units stay takes: bool [units]."""
        return _SPARE * self._timing(self._shapes.file(keep)).milliseconds

    def clock(self, widths: Widths) -> tuple[float, Callable[[Subgraph, Operator], float]]:
        """The milliseconds that belong to no operator, and a function for those of an operator of a graph."""
        if self._clock is None:
            self._clock = self._fitted(_spread(widths))
        return self._clock

    def _fitted(self, keeps: Sequence[np.ndarray]) -> tuple[float, Callable[[Subgraph, Operator], float]]:
        graphs = [self._shapes.at(keep) for keep in keeps]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            timings = list(pool.map(self._timing, map(self._shapes.file, keeps)))
        times, rest = _by_operator(self._shapes.base, timings)
        shares = {
            index: _shares(np.array([_sizes(graph, graph.operators[index]) for graph in graphs]), milliseconds)
            for index, milliseconds in times.items()
        }

        def milliseconds(graph: Subgraph, operator: Operator) -> float:
            known = shares.get(operator.index)
            return 0.0 if known is None else float(_sizes(graph, operator) @ known)

        return rest, milliseconds

    def _timing(self, content: bytes) -> Timing:
        if content not in self._known:
            found = time_for(self._target, content)
            if found.left:
                raise RecipeError(
                    f"The latency on {self._target.name} is not known: its compiler times the accelerator only, and "
                    f"{len(found.left)} operators stay on the processor: {', '.join(sorted(set(found.left)))}.",
                    expected="a file of which the accelerator runs all.",
                    fix="build int8 files, see why operators stay with "
                    f"`edgeprune check FILE --target {self._target.name}`, or limit max_macs instead.",
                )
            self._known[content] = found
        return self._known[content]


def _spread(widths: Widths) -> list[np.ndarray]:
    """Choices in which the widths of each group are evenly spread, those of different groups independently."""
    drawn = qmc.LatinHypercube(len(widths.sizes), seed=0).random(FILES)
    is_block = np.array([bool(one.group.block) for one in widths.ladders])
    options = np.where(is_block, 0, np.floor(drawn * widths.sizes).astype(int))
    return [widths.keep(row.tolist()) for row in options]


def _by_operator(graph: Subgraph, timings: Sequence[Timing]) -> tuple[dict[int, np.ndarray], float]:
    """By operator, its milliseconds in each file; and the mean of those of none.

    The compiler splits operators, and names the parts after what they make in the end.
    """
    makers = {graph.tensors[index].name: one.index for one in graph.operators for index in one.outputs if index >= 0}
    found: dict[int, np.ndarray] = {}
    rest = 0.0
    for number, timing in enumerate(timings):
        for name, milliseconds in timing.by_tensor.items():
            made = max((one for one in makers if name.startswith(one)), key=len, default=None)
            if made is None:
                rest += milliseconds
            else:
                found.setdefault(makers[made], np.zeros(len(timings)))[number] += milliseconds
    return found, rest / len(timings)


def _sizes(graph: Subgraph, operator: Operator) -> np.ndarray:
    """One, and the elements of each tensor that it reads or makes, in whole blocks: float [1 + tensors].

    Sizes that are no channels are filled up, too, which changes nothing: they are the same in all files.
    """
    used = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
    return np.array([1.0, *(math.prod(-(-size // _BLOCK) * _BLOCK for size in tensor.shape) for tensor in used)])


def _shares(sizes: np.ndarray, milliseconds: np.ndarray) -> np.ndarray:
    """Of sizes [files, terms], what each adds to the milliseconds [files] of an operator: [terms], none negative."""
    weights = 1 / np.maximum(milliseconds, max(_LEAST_TIME * milliseconds.max(), 1e-12))
    units = np.maximum(sizes.max(0), 1.0)
    return scipy.optimize.nnls(sizes / units * weights[:, None], milliseconds * weights)[0] / units
