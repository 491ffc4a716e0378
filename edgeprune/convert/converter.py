"""The only place that calls the TFLite converter, in a process of its own (:mod:`edgeprune.convert.native`)."""

from __future__ import annotations

import contextlib
import dataclasses
import keyword
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.convert import native
from edgeprune.convert.recurrent import refuse_state, without_loops
from edgeprune.convert.refusals import fatal, translate
from edgeprune.errors import ConversionError, EdgepruneError, ModelError
from edgeprune.models.finite import require_finite
from edgeprune.models.pooling import with_means
from edgeprune.quantize.plan import RULES, WEIGHT_ONLY, QuantizationPlan, Ranges
from edgeprune.recipe.config import Mode
from edgeprune.runtime.interpreter import Runtime, find_runtime
from edgeprune.runtime.tensors import Sample
from edgeprune.runtime.trial import FileRefused, try_file
from edgeprune.workers import Stream, Worker, WorkerDied

if TYPE_CHECKING:
    import tf_keras

Samples = Callable[[], Iterable[Sample]]

# Start it as soon as TensorFlow is loaded (:meth:`~edgeprune.workers.Worker.start`): a process of its own needs seconds
# to load it, a fork has it.
CONVERTER = Worker("TensorFlow's converter", warm=native.warm, fork=native.may_fork)


def convert(
    model: tf_keras.Model,
    plan: QuantizationPlan,
    samples: Samples | None = None,
    runtime: Callable[[], Runtime] = find_runtime,
) -> bytes:
    """Convert a model to a .tflite for batches of one sample.

    A fixed batch spares the file the operators that compute shapes at run time, and accelerators need it. The
    signature ``serving_default`` keeps the names of the model's inputs and outputs.

    Args:
        model: functional tf_keras model.
        plan: number formats.
        samples: the representative dataset, a callable returning an iterator over lists of arrays in input order;
            required if the plan needs samples.
        runtime: the interpreter here; asked for only where ranges are narrowed, which runs the calibrated file.

    Returns:
        The flatbuffer.

    Raises:
        ConversionError: the converter refused, with operator and layer; or a shape is open that must be fixed; or a
            process ended, the converter's or that of the runtime here on the file, or the runtime refuses the file,
            with the layer if it can be found; or a loop cannot be calibrated.
        ModelError: a weight is NaN or infinite.
        VerificationError: a model with its loops written out computes something else.
        MissingError: the format needs a package that is not installed.
    """
    require_finite(model)
    with _survived(model, plan, samples, runtime):
        return _tried(model, plan, samples, runtime)


def _tried(
    model: tf_keras.Model, plan: QuantizationPlan, samples: Samples | None, runtime: Callable[[], Runtime]
) -> bytes:
    """A file that has run here once, unless it needs operators that only some runtimes have."""
    content = _converted(model, plan, samples, runtime)
    if not plan.select_tf_ops:
        try:
            try_file(content)
        except FileRefused:
            raise
        except ModelError:  # of open sizes: for those to see who run the file on real ones
            pass
    return content


@contextlib.contextmanager
def _survived(
    model: tf_keras.Model, plan: QuantizationPlan, samples: Samples | None, runtime: Callable[[], Runtime]
) -> Iterator[None]:
    """A death of the converter or the interpreter, or a file that is not loaded, as an error about the model."""

    def dies(part: tf_keras.Model, mode: Mode) -> bool:
        def of_part() -> Iterator[Sample]:
            for sample in samples() if samples else ():
                values = _by_name(sample, model.input_names)
                yield [values[name] for name in part.input_names]

        kept = {layer.name for layer in part.layers}
        one_scale = tuple(name for name in plan.one_scale if name in kept)
        changed = dataclasses.replace(plan, mode=mode, needs_samples=RULES[mode].samples, one_scale=one_scale)
        try:
            _tried(part, changed, of_part, runtime)
        except (WorkerDied, FileRefused):
            return True
        except EdgepruneError:
            return False
        return False

    try:
        yield
    except (WorkerDied, FileRefused) as death:
        raise fatal(death, model, plan.mode, dies) from death


def _converted(
    model: tf_keras.Model, plan: QuantizationPlan, samples: Samples | None, runtime: Callable[[], Runtime]
) -> bytes:
    if plan.mode in WEIGHT_ONLY:
        from edgeprune.convert.weight_only import quantize_weights

        content = _run(model, dataclasses.replace(plan, mode="float32"))
        with _refusals(model, plan):
            return quantize_weights(content, plan.mode)
    if RULES[plan.mode].clipping and (plan.mode == "mixed" or plan.ranges != "minmax"):
        (calibrated,) = _calibrated(model, plan, samples, [plan.ranges], runtime).values()
        return quantize_calibrated(calibrated, plan, model)
    return _run(model, plan, samples)


def calibrate(
    model: tf_keras.Model,
    plan: QuantizationPlan,
    samples: Samples | None,
    methods: Sequence[Ranges],
    runtime: Callable[[], Runtime] = find_runtime,
) -> dict[Ranges, bytes]:
    """Float32 .tflite whose activations carry their ranges, by method: what :func:`quantize_calibrated` takes.

    The samples run through the model once for ``minmax``, and once more for all other methods
    (:mod:`edgeprune.quantize.narrowing`).
    """
    with _survived(model, plan, samples, runtime):
        return _calibrated(model, plan, samples, methods, runtime)


def _calibrated(
    model: tf_keras.Model,
    plan: QuantizationPlan,
    samples: Samples | None,
    methods: Sequence[Ranges],
    runtime: Callable[[], Runtime],
) -> dict[Ranges, bytes]:
    from edgeprune.quantize.narrowing import narrowed_ranges
    from edgeprune.tflite.ranges import read_ranges, with_ranges

    assert samples is not None
    content = _run(model, plan, samples, calibrate_only=True)
    narrower = [method for method in methods if method != "minmax"]
    if not narrower:
        return {"minmax": content}
    narrowed = narrowed_ranges(content, read_ranges(content), samples, narrower, runtime(), plan.percentile)
    return {method: content if method == "minmax" else with_ranges(content, narrowed[method]) for method in methods}


def quantize_calibrated(
    calibrated: bytes, plan: QuantizationPlan, model: tf_keras.Model, *, verify: bool = False
) -> bytes:
    """Quantize a calibrated .tflite to int8, all but the operators that make ``plan.float_tensors``.

    Args:
        calibrated: from :func:`calibrate`.
        plan: of a format with int8 activations.
        model: what it was converted from, for messages.
        verify: with operators that compare each result with the float one's (TensorFlow's ``NumericVerify``).
    """
    with _refusals(model, plan):
        return CONVERTER.call(native.quantize, calibrated, plan, verify)


def _run(
    model: tf_keras.Model, plan: QuantizationPlan, samples: Samples | None = None, *, calibrate_only: bool = False
) -> bytes:
    import tensorflow as tf

    _check_shapes(model, plan)
    refuse_state(model)
    if plan.needs_samples and not plan.ranges_in_model:
        model = without_loops(model)
    if RULES[plan.mode].clipping and not plan.ranges_in_model:
        model = with_means(model)
    CONVERTER.start()
    function = _function(model, plan.one_scale)
    names = model.input_names
    # Saved is what the function needs, and not the model: of that, Keras would trace every layer once more.
    module = tf.Module()
    module.state = model.variables
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder, _refusals(model, plan):
        tf.saved_model.save(module, folder, signatures={native.SIGNATURE: function})
        _name_ports(folder, model)
        stream = Stream(lambda: (_by_name(sample, names) for sample in samples())) if samples else None
        return CONVERTER.call(native.convert, folder, plan, stream, calibrate_only)


def _by_name(sample: Sample, names: Sequence[str]) -> dict[str, np.ndarray]:
    """A sample with its inputs by name: the file need not have them in the order of the model."""
    if isinstance(sample, Mapping):
        return dict(sample)
    return dict(zip(names, sample, strict=True))


@contextlib.contextmanager
def _refusals(model: tf_keras.Model, plan: QuantizationPlan) -> Iterator[None]:
    """What the converter or a quantizer raises, in the user's terms."""
    try:
        yield
    except EdgepruneError:  # of samples that cannot be read, for example
        raise
    except Exception as error:  # they raise many types; all of them end the build
        raise translate(error, model, plan.mode) from error


def _check_shapes(model: tf_keras.Model, plan: QuantizationPlan) -> None:
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in zip(model.input_names, model.inputs, strict=True)}
    open_ones = {name: shape for name, shape in shapes.items() if None in shape}
    if plan.static_shapes and open_ones:
        listed = ", ".join(f"{name} {shape}" for name, shape in open_ones.items())
        raise ConversionError(
            f"The model {model.name!r} has inputs of open size: {listed}.",
            expected="fixed sizes: the target takes no shape that is known only at run time.",
            fix="give the size with --input-shape, or to load_model(..., input_shape=...).",
        )


def _function(model: tf_keras.Model, one_scale: Sequence[str] = ()) -> Any:
    import tensorflow as tf

    from edgeprune.quantize.quantizers import one_scale_kernels

    specs = [
        tf.TensorSpec([1, *tensor.shape[1:]], tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, _arguments(model.input_names), strict=True)
    ]

    @tf.function(input_signature=specs)
    def serve(*inputs: Any) -> dict[str, Any]:
        with one_scale_kernels(model, one_scale):
            outputs = model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
        return dict(zip(_arguments(model.output_names), tf.nest.flatten(outputs), strict=True))

    return serve.get_concrete_function()


def _arguments(names: Sequence[str]) -> list[str]:
    """Names that TensorFlow leaves as they are: it makes arguments of Python functions of them, and node names."""
    taken = {"self", *keyword.kwlist}
    plain = all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) and name not in taken for name in names)
    distinct = len({name.lower() for name in names}) == len(names)
    return list(names) if plain and distinct else [f"port_{number}" for number in range(len(names))]


def _name_ports(folder: str, model: tf_keras.Model) -> None:
    """Give the signature in a SavedModel the names of the model's inputs and outputs, whatever these are."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = Path(folder, "saved_model.pb")
    saved = SavedModel.FromString(path.read_bytes())
    signature = saved.meta_graphs[0].signature_def[native.SIGNATURE]
    for ports, names in ((signature.inputs, model.input_names), (signature.outputs, model.output_names)):
        infos = [
            type(ports[argument]).FromString(ports[argument].SerializeToString()) for argument in _arguments(names)
        ]
        ports.clear()
        for name, info in zip(names, infos, strict=True):
            ports[name].CopyFrom(info)
    path.write_bytes(saved.SerializeToString())
