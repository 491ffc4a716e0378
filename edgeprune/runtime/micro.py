"""TensorFlow Lite Micro's interpreter on this machine: the outputs of a file on a microcontroller, and its memory.

The package ``tflite-micro`` (``pip install 'edgeprune[micro]'``) holds that interpreter with its portable kernels. It
may end the process that it is in, so files run in the process of :data:`MICRO`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import MissingError, ModelError, UsageError
from edgeprune.runtime.runner import dequantize, quantize
from edgeprune.workers import Worker

if TYPE_CHECKING:
    from edgeprune.runtime.api import TensorDetails
    from edgeprune.tflite.graph import Subgraph, Tensor, TFLiteModel

PACKAGE = "tflite-micro"
MICRO = Worker("TensorFlow Lite Micro's interpreter")
_ALLOCATED = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")


@dataclass(frozen=True)
class Arena:
    """Memory that an interpreter took from its arena, in bytes, as its recording allocator counts them.

    The interpreter here has pointers of 8 bytes: with 4, as on a microcontroller, ``persistent`` is smaller.

    Attributes:
        bytes: all of it; the arena has to be that large.
        activations: what is planned anew by lifetimes: tensors, decoded weights, scratch memory. Also called
            non-persistent.
        persistent: what stays for all inferences: operators, their data, variables.
    """

    bytes: int
    activations: int
    persistent: int


@dataclass(frozen=True)
class Footprint:
    """What a file takes of a microcontroller, in bytes, beside the program.

    Attributes:
        flash_bytes: of the file; it is read where it lies.
        ram_bytes: of the arena that a program has to give it, inputs and outputs included: ``activation_bytes`` and
            ``persistent_bytes``, as in :class:`Arena`, and ``scratch_bytes``, which optimized kernels may want on top.
        recorded_by: the interpreter that took this memory; None: it is not installed, and the file alone says it
            (:func:`edgeprune.tflite.micro.estimated_arena`).
    """

    flash_bytes: int
    ram_bytes: int
    activation_bytes: int
    persistent_bytes: int
    scratch_bytes: int
    recorded_by: str | None


def installed_version() -> str | None:
    """Package and release of the interpreter: 'tflite-micro 0.dev20261023182759'; None: it is not installed."""
    try:
        return f"{PACKAGE} {metadata.version(PACKAGE)}"
    except metadata.PackageNotFoundError:
        return None


def footprint(content: bytes, name: str = "The model") -> Footprint:
    """Flash and RAM that a file takes: as the interpreter records it, or estimated where that is not installed.

    Args:
        content: of a .tflite.
        name: of the file, for messages.

    Raises:
        ModelError: the file is damaged, or the interpreter does not run it.
        WorkerDied: the interpreter ended its process.
    """
    from edgeprune.tflite.flatbuffer import parse

    version, graph = installed_version(), parse(content, name).subgraphs[0]
    if version is None:
        return estimated_footprint(len(content), graph)
    with contextlib.closing(MicroSession(content, name=name)) as session:
        return _footprint(len(content), graph, session.arena.activations, session.arena.persistent, version)


def estimated_footprint(size: int, graph: Subgraph) -> Footprint:
    """The same by the file alone, which is not run.

    Args:
        size: of the file, in bytes.
        graph: its main subgraph.
    """
    from edgeprune.tflite.micro import estimated_arena

    return _footprint(size, graph, *estimated_arena(graph), None)


def _footprint(size: int, graph: Subgraph, activations: int, persistent: int, version: str | None) -> Footprint:
    from edgeprune.tflite.micro import kernel_scratch

    scratch = kernel_scratch(graph)
    return Footprint(size, activations + persistent + scratch, activations, persistent, scratch, version)


class MicroSession:
    """A .tflite in TensorFlow Lite Micro's interpreter, in a process of its own.

    Args:
        model: path or content of the file. Encoded weights are checked before the interpreter sees them.
        name: of the file, for messages; None: its path.
        worker: the process.

    Raises:
        MissingError: the package is not installed.
        ModelError: the file is damaged, or the interpreter does not run it.
        WorkerDied: the interpreter ended its process; :meth:`run` may do so, too.
    """

    def __init__(self, model: str | Path | bytes, name: str | None = None, worker: Worker = MICRO):
        from edgeprune.tflite import decode
        from edgeprune.tflite.flatbuffer import parse, read_bytes

        name = name or ("The model" if isinstance(model, bytes) else str(model))
        content = model if isinstance(model, bytes) else read_bytes(model)
        parsed = parse(content, name)
        decode.check(parsed)
        main = parsed.subgraphs[0]
        self._inputs = [main.tensors[index] for index in main.inputs]
        self._interpreter = worker.create(_Interpreter, content, name, len(main.outputs), _room(parsed))

    def run(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs of a batch, in the file's own number formats.

        Args:
            batch: one array [n, ...] per input, in the file's order and of its types.

        Returns:
            One array [n, ...] per output, in the file's order.

        Raises:
            UsageError: the arrays are not of the file's shapes and types.
        """
        forms = [(tensor.shape[1:], tensor.dtype) for tensor in self._inputs]
        given = [(array.shape[1:], array.dtype.name) for array in batch]
        if given != forms or len({len(array) for array in batch}) != 1 or not len(batch[0]):
            raise UsageError(
                f"The inputs have the shapes and types {[(array.shape, array.dtype.name) for array in batch]}.",
                expected=f"one array [n, ...] each of {forms}.",
            )
        return self._interpreter.call("run", list(batch))

    def close(self) -> None:
        """Let go of the interpreter."""
        self._interpreter.close()

    @functools.cached_property
    def arena(self) -> Arena:
        """What the file takes from the arena."""
        return self._interpreter.call("arena")


class FloatMicroSession:
    """A .tflite in TensorFlow Lite Micro's interpreter on batches of float samples, in the order of its Keras model.

    What :class:`edgeprune.runtime.session.Session` is for LiteRT. Samples are spread over a process for each core.

    Args:
        model: content of the file.
        plain: the file that it was encoded from, which names its inputs and outputs; they are at the same places.
        inputs, outputs: names of the Keras model's inputs and outputs, in the model's order (``serving_default``).

    Raises:
        MissingError, ModelError, WorkerDied: as :class:`MicroSession`.
    """

    def __init__(self, model: bytes, plain: TFLiteModel, inputs: Sequence[str], outputs: Sequence[str]):
        graph = plain.subgraphs[0]
        self.inputs = tuple(inputs)
        self._takes = [graph.inputs.index(index) for index in _named(plain, "inputs", inputs)]
        self._gives = [graph.outputs.index(index) for index in _named(plain, "outputs", outputs)]
        self._forms = [_details(graph.tensors[index]) for index in graph.inputs]
        self._results = [_details(graph.tensors[index]) for index in graph.outputs]
        self._sessions = [MicroSession(model, worker=worker) for worker in _workers(len(os.sched_getaffinity(0)))]
        self._pool = concurrent.futures.ThreadPoolExecutor(len(self._sessions))

    def run(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs of a batch, dequantized to float32.

        Args:
            batch: one array [n, ...] per input, in the model's order.

        Returns:
            One array [n, ...] per output, in the model's order.
        """
        given: list[np.ndarray] = [np.empty(0)] * len(batch)
        for place, values in zip(self._takes, batch, strict=True):
            given[place] = quantize(np.asarray(values), self._forms[place])
        parts = np.array_split(np.arange(len(batch[0])), min(len(self._sessions), len(batch[0])))
        made = list(self._pool.map(lambda one, rows: one.run([v[rows] for v in given]), self._sessions, parts))
        joined = [np.concatenate(rows) for rows in zip(*made, strict=True)]
        return [dequantize(joined[place], self._results[place]) for place in self._gives]

    def close(self) -> None:
        """Let go of the interpreters."""
        for session in self._sessions:
            session.close()
        self._pool.shutdown()


@functools.cache
def _worker(number: int) -> Worker:
    return Worker(MICRO.name)


def _workers(count: int) -> list[Worker]:
    """Processes: an interpreter holds the lock of Python in its own while it runs."""
    return [MICRO, *(_worker(number) for number in range(1, count))]


def _named(plain: TFLiteModel, kind: str, names: Sequence[str]) -> list[int]:
    """Indices of the tensors with these names in the file's signature; in the file's order where it does not say."""
    own = list(getattr(plain.subgraphs[0], kind))
    for signature in plain.signatures:
        indices = getattr(signature, kind)
        if {*names} == {*indices} and {*indices.values()} == {*own}:
            return [indices[name] for name in names]
    return own


def _details(tensor: Tensor) -> TensorDetails:
    quantization = tensor.quantization
    scale = (quantization.scale[0], quantization.zero_point[0]) if quantization else (0.0, 0)
    return {
        "name": tensor.name,
        "index": tensor.index,
        "shape": np.array(tensor.shape),
        "dtype": np.dtype(tensor.dtype).type,
        "quantization": scale,
    }


def _room(model: Any) -> int:
    """Bytes of an arena that is certainly large enough: lifetimes and what operators share are not known here."""
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    operators = sum(len(graph.operators) for graph in model.subgraphs)
    # Scratch memory of an operator is at most an int32 for each byte of its output, and tables for its channels.
    activations = sum(tensor.nbytes for tensor in tensors if not tensor.constant)
    channels = sum(len(tensor.quantization.scale) for tensor in tensors if tensor.quantization)
    needed = (1 << 16) + 6 * activations + 2048 * (len(tensors) + operators) + 64 * channels
    return -(-needed // 4096) * 4096  # aligned at its end, too: what is measured depends on that


class _Interpreter:
    """Lives in the process of :data:`MICRO`."""

    def __init__(self, content: bytes, name: str, outputs: int, room: int):
        self.name, self.outputs = name, outputs
        runtime = _package()
        with self._refusals():
            self.interpreter = runtime.Interpreter.from_bytes(content, arena_size=room)

    def run(self, batch: list[np.ndarray]) -> list[np.ndarray]:
        rows = []
        with self._refusals():
            for sample in range(len(batch[0])):
                self.interpreter.reset()  # states would begin where the last sample ended
                for place, array in enumerate(batch):
                    self.interpreter.set_input(array[sample : sample + 1], place)
                self.interpreter.invoke()
                rows.append([np.array(self.interpreter.get_output(place)) for place in range(self.outputs)])
        return [np.concatenate(column) for column in zip(*rows, strict=True)]

    def arena(self) -> Arena:
        with _written() as lines:
            self.interpreter.print_allocations()
        found = {part: int(number) for part, number in _ALLOCATED.findall("\n".join(lines))}
        return Arena(found["total"], found["head"], found["tail"])

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """What the interpreter raises, with the line that it wrote about it."""
        try:
            with _written() as lines:
                yield
        except (RuntimeError, ValueError) as error:
            said = next((line.rstrip(".") for line in lines if line.strip()), str(error))
            raise ModelError(
                f"{self.name} does not run in TensorFlow Lite Micro: {said}.",
                expected="operators that it registers, with int8 or float32 tensors of fixed shapes.",
            ) from None


def _package() -> Any:
    """The interpreter's module."""
    try:
        return importlib.import_module("tflite_micro").runtime
    except ImportError:
        raise MissingError(
            "TensorFlow Lite Micro's interpreter (tflite-micro) is not installed.",
            fix="pip install 'edgeprune[micro]'",
        ) from None


@contextlib.contextmanager
def _written() -> Iterator[list[str]]:
    """What native code writes to standard error inside of this block: lines, which are there at its end."""
    lines: list[str] = []
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            lines.extend(file.read().decode("utf-8", "replace").splitlines())
