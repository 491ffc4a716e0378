"""The limits of the Edge TPU, as of edgetpu_compiler 16.

Sources, named in the rules: [docs] https://coral.ai/docs/edgetpu/models-intro/ (supported operations and model
requirements); [#N] https://github.com/google-coral/edgetpu/issues/N; [log] output of the compiler that somebody
published; [pairs] files that their authors published before and after compilation. Where the documentation and a log
of the compiler disagree, the log counts.
"""

from __future__ import annotations

import math

from edgeprune.hardware.placement import Answer, activations, constant, rule
from edgeprune.tflite.graph import Operator, Subgraph
from edgeprune.tflite.versions import first_release

MAPPED = "Mapped to Edge TPU"
UNSUPPORTED = "Operation not supported"
DATA_TYPE = "Operation is working on an unsupported data type"
LIMITATION = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
SUBGRAPHS = "More than one subgraph is not supported"
VERSION = "Operation version not supported"

# The compiler was made in July 2021 (release notes of 16.0, https://coral.ai/news): its TensorFlow Lite knows what
# TensorFlow 2.6 knows. [#147, #384] show what it says to newer operators: "Didn't find op for builtin opcode".
TENSORFLOW = (2, 6)
# The documentation says 16,000; softmax over 128x128 = 16,384 compiled ([pairs], LibrEdgeTPU docs/ROBOTICS_STATUS.md).
SOFTMAX_ELEMENTS = 16_384
INTEGERS = {"int8", "uint8"}


@rule(DATA_TYPE, "use built-in operators; move what must stay custom to the end of the model.")
def custom_operator(graph: Subgraph, operator: Operator) -> Answer:
    """Custom and Flex operators run on the CPU.

    [log] CUSTOM in SSD and PoseNet; ops.csv.
    """
    return operator.custom


@rule(LIMITATION, "convert with integer inputs (inference_input_type = int8), or leave it: it is only the first step.")
def quantize_float(graph: Subgraph, operator: Operator) -> Answer:
    """A QUANTIZE from float input stays on the CPU; one between integer formats is mapped.

    [log] mnist4 and mnist9 of nrf20, compiler 15.
    """
    data = graph.input(operator, 0)
    return operator.name == "QUANTIZE" and data is not None and data.dtype not in INTEGERS


@rule(DATA_TYPE, "convert with full-integer quantization, inputs and outputs included (int8).")
def not_integer(graph: Subgraph, operator: Operator) -> Answer:
    """All tensors must be 8-bit integers.

    [docs] model requirements; [log] DEQUANTIZE. State of an LSTM may be int16 ([pairs] keras_lstm).
    """
    if operator.name == "QUANTIZE":
        return any(t.dtype not in INTEGERS for t in (graph.output(operator),) if t)
    allowed = INTEGERS | ({"int16"} if operator.name == "UNIDIRECTIONAL_SEQUENCE_LSTM" else set())
    return any(tensor.dtype not in allowed for tensor in activations(graph, operator))


@rule(RANK, "use batch size 1 and at most three dimensions larger than 1.")
def too_many_dimensions(graph: Subgraph, operator: Operator) -> Answer:
    """Only the three innermost dimensions of a tensor may be larger than 1, so the batch must be 1.

    [docs] model requirements; [log] thermal_face (RESHAPE, PACK).
    """
    return any(math.prod(tensor.shape[:-3]) > 1 for tensor in activations(graph, operator))


@rule("Attempting to use a delegate that only supports static-sized tensors", "convert with fixed input sizes.")
def dynamic_size(graph: Subgraph, operator: Operator) -> Answer:
    """Sizes must be known when compiling. A batch of unknown size is taken as 1.

    [docs] model requirements; [pairs] files with a batch of -1 were compiled and mapped.
    """
    return any(size < 0 for tensor in activations(graph, operator) for size in tensor.signature[1:])


@rule(VERSION, "convert with an older TensorFlow (2.6 or before), or with per-tensor weights in dense layers.")
def too_new(graph: Subgraph, operator: Operator) -> Answer:
    """The operator's version is newer than the TensorFlow Lite inside the compiler (TensorFlow 2.6).

    [#147, #384, #420] "Didn't find op for builtin opcode ... version ..."; the compiler may refuse the whole file.
    """
    if operator.custom:
        return False
    release = first_release(operator.name, operator.version, "tensorflow")
    return release is None or release[:2] > TENSORFLOW


@rule(LIMITATION, "put a ReLU after the pooling, not into it.")
def fused_activation(graph: Subgraph, operator: Operator) -> Answer:
    """No fused activation function.

    [docs] AveragePool2d, MaxPool2d, Concatenation.
    """
    return operator.options.get("fused_activation_function", "NONE") not in ("NONE", 0)


@rule(LIMITATION, "use the same dilation in both directions.")
def uneven_dilation(graph: Subgraph, operator: Operator) -> Answer:
    """The dilation must be the same in x and y, except along a side on which kernel or image has length 1.

    [docs] Conv2d, DepthwiseConv2d; [pairs] temporal convolutions, dilated along time only, were mapped.
    """
    data, kernel = graph.input(operator, 0), graph.input(operator, 1)
    if data is None or kernel is None or len(data.shape) != 4 or len(kernel.shape) != 4:
        return True
    sides = zip("hw", data.shape[1:3], kernel.shape[1:3], strict=True)
    effective = {operator.options.get(f"dilation_{axis}_factor", 1) for axis, *lengths in sides if 1 not in lengths}
    return len(effective) > 1


@rule(LIMITATION, "make the weights a constant of the model.")
def computed_weights(graph: Subgraph, operator: Operator) -> Answer:
    """Weights and biases must be constants.

    [docs] model requirements.
    """
    # TRANSPOSE_CONV reads (output shape, weights, data); the others (data, weights).
    weights, bias = graph.input(operator, 1), graph.input(operator, 3 if operator.name == "TRANSPOSE_CONV" else 2)
    return weights is None or not weights.constant or (bias is not None and not bias.constant)


@rule(LIMITATION, "flatten before the dense layer, so that it has one row.")
def dense_rows(graph: Subgraph, operator: Operator) -> Answer:
    """The output of a fully connected layer must be one-dimensional.

    [docs] FullyConnected; [log] B23 (Dense on a 3-D input), v9.
    """
    output = graph.output(operator)
    return output is not None and math.prod(output.shape[:-1]) > 1


@rule(LIMITATION, "use the default format of fully connected weights.")
def shuffled_weights(graph: Subgraph, operator: Operator) -> Answer:
    """Only the default format of fully connected weights.

    [docs] FullyConnected.
    """
    return bool(operator.options.get("weights_format", 0))


@rule(LIMITATION, "concatenate computed tensors only, or pad with zeros.")
def constant_part(graph: Subgraph, operator: Operator) -> Answer:
    """A constant may be concatenated only to one other tensor, and only if it is all zeros.

    [docs] Concatenation.
    """
    constants = [graph.tensors[i] for i in operator.inputs if i >= 0 and graph.tensors[i].constant]
    if not constants:
        return False
    if len(operator.inputs) != 2:
        return True
    point = constants[0].quantization.zero_point[0] if constants[0].quantization else 0
    return constants[0].is_short or bool((constants[0].data() != point).any())


@rule(LIMITATION, "move what works along the batch out of the model.")
def batch_axis(graph: Subgraph, operator: Operator) -> Answer:
    """Nothing may be reduced, padded, split, packed or repeated along the batch.

    [docs] Mean, Sum, ReduceMax, ReduceMin, Pad, Pack, Split; Tile by analogy.
    """
    return _BATCH[operator.name](graph, operator)


def _reduces_batch(graph: Subgraph, operator: Operator) -> Answer:
    data, axes = graph.input(operator, 0), constant(graph, operator, 1)
    if data is None or axes is None:
        return True
    return data.shape[:1] != (1,) and any(axis % max(len(data.shape), 1) == 0 for axis in axes)


def _pads_batch(graph: Subgraph, operator: Operator) -> Answer:
    paddings, data = constant(graph, operator, 1), graph.input(operator, 0)
    return paddings is None or data is None or (len(data.shape) > 3 and any(paddings[:2]))


def _splits_batch(graph: Subgraph, operator: Operator) -> Answer:
    axis, data = constant(graph, operator, 0), graph.input(operator, 1)
    if axis is None or data is None:
        return True
    return int(operator.options.get("num_splits", 2)) > 1 and axis[0] % max(len(data.shape), 1) == 0


def _packs_batch(graph: Subgraph, operator: Operator) -> Answer:
    return int(operator.options.get("axis", 0)) == 0 and int(operator.options.get("values_count", 2)) > 1


def _repeats_batch(graph: Subgraph, operator: Operator) -> Answer:
    data, repeats = graph.input(operator, 0), constant(graph, operator, 1)
    return repeats is None or data is None or (len(data.shape) > 3 and repeats[0] > 1)


_BATCH = {
    "MEAN": _reduces_batch,
    "PACK": _packs_batch,
    "PAD": _pads_batch,
    "REDUCE_MAX": _reduces_batch,
    "REDUCE_MIN": _reduces_batch,
    "SPLIT": _splits_batch,
    "SUM": _reduces_batch,
    "TILE": _repeats_batch,
}


@rule(LIMITATION, "reduce over a number of channels that is a multiple of 4.")
def channel_mean(graph: Subgraph, operator: Operator) -> Answer:
    """A mean over channels needs a multiple of 4 channels.

    [docs] Mean.
    """
    data, axes = graph.input(operator, 0), constant(graph, operator, 1)
    if data is None or not axes or not data.shape:
        return False
    return any(axis % len(data.shape) == len(data.shape) - 1 for axis in axes) and data.shape[-1] % 4 != 0


@rule(LIMITATION, "pool in two steps: an average pooling before the mean.")
def large_mean(graph: Subgraph, operator: Operator) -> Answer:
    """A mean over a large area is not mapped: 256x128 was not, 64x128 was; between these it cannot be told.

    [#461] a maintainer's answer.
    """
    data, output = graph.input(operator, 0), graph.output(operator)
    area = data.size // max(output.size, 1) if data and output else 0
    return None if 64 * 128 < area < 256 * 128 else area >= 256 * 128


@rule(LIMITATION, "resize in smaller steps, or outside the model.")
def imprecise_resize(graph: Subgraph, operator: Operator) -> Answer:
    """A resize is left to the CPU where it would lose precision: from a single pixel, or to more than 256 pixels in
    one direction. Between 128 and 256 it cannot be told.

    [docs] ResizeBilinear, ResizeNearestNeighbor; [#31] 128 mapped, 512 not; [#187] 256 not, 128 mapped; [pairs]
    DeepLab, 1x1 to 33x33.
    """
    data, output = graph.input(operator, 0), graph.output(operator)
    if data is None or output is None or len(data.shape) != 4 or len(output.shape) != 4:
        return True
    before, after = data.shape[1:3], output.shape[1:3]
    if before == (1, 1) and after != (1, 1):
        return True
    return None if 128 < max(after) <= 256 else max(after) > 256


@rule(LIMITATION, "take the softmax outside the model, or over fewer classes.")
def long_softmax(graph: Subgraph, operator: Operator) -> Answer:
    """Softmax takes one row of at most 16,384 elements (16,000 in the documentation).

    [docs] Softmax; [pairs] LibrEdgeTPU: 16,384 elements were mapped. Several rows: mapped in [log] B21, else unknown.
    """
    data = graph.input(operator, 0)
    if data is None:
        return True
    rows = data.size // max(data.shape[-1] if data.shape else 1, 1)
    return True if data.shape and data.shape[-1] > SOFTMAX_ELEMENTS else (None if rows > 1 else False)


@rule(LIMITATION, "share the slopes over height and width (shared_axes=[1, 2]).")
def alpha_shape(graph: Subgraph, operator: Operator) -> Answer:
    """The slopes of PReLU must be one per channel.

    [docs] PReLU.
    """
    alpha = graph.input(operator, 1)
    return alpha is None or math.prod(alpha.shape[:-1]) > 1


@rule(LIMITATION, "drop only leading dimensions of size 1.")
def inner_squeeze(graph: Subgraph, operator: Operator) -> Answer:
    """Only leading dimensions of size 1 can be squeezed away: 1x1x10 and 1x5x10 fit, 5x1x10 does not.

    [docs] Squeeze.
    """
    data, output = graph.input(operator, 0), graph.output(operator)
    if data is None or output is None:
        return True
    significant = [size for size in data.shape if size > 1]
    leading = list(data.shape[len(data.shape) - len(significant) :]) == significant
    return not leading


@rule("Only Strided-Slice with unitary strides supported", "slice without a step, or crop with Cropping2D.")
def strided(graph: Subgraph, operator: Operator) -> Answer:
    """Slices with a step were refused up to compiler 15; compiler 16 mapped them in the only log there is.

    [docs] StridedSlice; [log] B19 (refused, 15.0) and B20 (mapped, 16.0), the same network.
    """
    strides = constant(graph, operator, 3)
    if strides is None:
        return True
    return None if any(stride != 1 for stride in strides) else False


@rule(LIMITATION, "slice without an ellipsis and without new axes.")
def ellipsis(graph: Subgraph, operator: Operator) -> Answer:
    """No ellipsis and no new axis in a slice.

    [docs] StridedSlice.
    """
    return bool(operator.options.get("ellipsis_mask", 0) or operator.options.get("new_axis_mask", 0))


@rule(LIMITATION, "keep tensors in the order height, width, channels, and small where they are transposed.")
def large_transpose(graph: Subgraph, operator: Operator) -> Answer:
    """Transposes of large tensors are not mapped; where the limit lies is not known.

    [#433]; [log] B20, B21 (YOLO at 192 and 224 pixels: some mapped, some not).
    """
    data, order = graph.input(operator, 0), constant(graph, operator, 1)
    if data is None or order is None:
        return True
    kept = [axis for axis in order if data.shape[axis] > 1]
    return None if kept != sorted(kept) and data.size > 65_536 else False


@rule(LIMITATION, "keep the kernels of transposed convolutions small.")
def large_transposed_convolution(graph: Subgraph, operator: Operator) -> Answer:
    """A transposed convolution with a 2x2 kernel from 1024 to 512 channels was not mapped; the limit is not known.

    [#684].
    """
    weights = graph.input(operator, 1)
    return None if weights is not None and weights.size >= 2 * 2 * 512 * 1024 else False


@rule(LIMITATION, "reshape smaller tensors, or at the end of the model.")
def large_reshape(graph: Subgraph, operator: Operator) -> Answer:
    """Certain reshapes of large tensors are not mapped; which, is not known.

    [docs] Reshape; [#512] YOLOv5 from 384 pixels on.
    """
    data = graph.input(operator, 0)
    return None if data is not None and data.size > 2**20 else False
