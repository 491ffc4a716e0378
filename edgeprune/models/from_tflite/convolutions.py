"""Operators with kernels: convolutions of all kinds, and products with matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.models.from_tflite.call import Blocks, Call, Value, check_size
from edgeprune.models.from_tflite.registry import NoRule, rule
from edgeprune.models.graph import is_symbolic
from edgeprune.models.types import Tensor

PADDINGS = {"SAME": "same", "VALID": "valid"}


def padding_of(call: Call) -> str:
    return PADDINGS[call.option("padding", "SAME")]


def rows_and_columns(call: Call, name: str, sides: tuple[str, str] = ("h", "w")) -> tuple[int, int]:
    """An option along height and width, such as ``stride_{}``; at least 1."""
    height, width = (int(call.option(name.format(side), 1)) for side in sides)
    if min(height, width) < 1:
        raise NoRule(f"has {name.format('...')} of {height} and {width}", "at least 1")
    return height, width


def image(call: Call, position: int = 0) -> Tensor:
    """An input [batch, height, width, channels]."""
    value = call.value(position)
    if len(value.shape) != 4 or value.shape[0] != 1:
        raise NoRule(f"works on a tensor of shape {list(value.shape)}", "one image: [1, height, width, channels]")
    return call.single(value)


def bias_of(call: Call, position: int, kernel: np.ndarray) -> list[np.ndarray]:
    return [kernel, call.constant(position, "bias").ravel()] if call.has(position) else [kernel]


@rule("CONV_2D")
def conv_2d(call: Call) -> Value:
    kernel = call.constant(1, "kernel")
    filters, height, width, depth = _kernel_shape(kernel)
    given = _Convolved.of(call, (height, width))
    channels = int(given.tensor.shape[-1])
    if channels % depth:
        raise NoRule(f"has a kernel for {depth} channels, and gets {channels}", "a complete file")
    weights = bias_of(call, 2, kernel.transpose(1, 2, 3, 0))
    if max(given.strides) > 1 and max(given.dilation) > 1:
        raise NoRule("has strides and dilation at once", "one of them")
    made = call.weighted(
        "Conv2D", given.tensor, weights, filters=filters, kernel_size=(height, width), strides=given.strides,
        dilation_rate=given.dilation, padding=given.padding, use_bias=len(weights) > 1, groups=channels // depth,
    )  # fmt: skip
    return given.made(call, made)


def _kernel_shape(kernel: np.ndarray) -> tuple[int, int, int, int]:
    if kernel.ndim != 4:
        raise NoRule(f"has a kernel of shape {list(kernel.shape)}", "four axes")
    return kernel.shape


@rule("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(call: Call) -> Value:
    kernel = call.constant(1, "kernel")
    _, height, width, made_channels = _kernel_shape(kernel)
    given = _Convolved.of(call, (height, width))
    channels = int(given.tensor.shape[-1])
    if made_channels % channels:
        raise NoRule(f"makes {made_channels} channels of {channels}", "a multiple")
    multiplier, strides, dilation = made_channels // channels, given.strides, given.dilation
    if strides[0] != strides[1] or (strides[0] > 1 and max(dilation) > 1):
        return _grouped(call, given, kernel, multiplier)
    weights = bias_of(call, 2, kernel.reshape(height, width, channels, multiplier))
    made = call.weighted(
        "DepthwiseConv2D", given.tensor, weights, kernel_size=(height, width), strides=strides, dilation_rate=dilation,
        padding=given.padding, depth_multiplier=multiplier, use_bias=len(weights) > 1,
    )  # fmt: skip
    return given.made(call, made)


def _grouped(call: Call, given: _Convolved, kernel: np.ndarray, multiplier: int) -> Value:
    """A depthwise convolution with different strides along height and width, which TensorFlow has only as groups."""
    channels = int(given.tensor.shape[-1])
    if max(given.dilation) > 1:
        raise NoRule("has strides and dilation at once", "one of them")
    weights = bias_of(call, 2, kernel.transpose(1, 2, 0, 3))
    made = call.weighted(
        "Conv2D", given.tensor, weights, filters=channels * multiplier, kernel_size=kernel.shape[1:3],
        strides=given.strides, padding=given.padding, groups=channels, use_bias=len(weights) > 1,
    )  # fmt: skip
    return given.made(call, made)


@dataclass(frozen=True)
class _Convolved:
    """What a convolution is called on, and how: also where the file has it between blocks of an image.

    Attributes:
        blocks: of the file's result.
    """

    tensor: Tensor
    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: str
    blocks: Blocks | None = None

    @classmethod
    def of(cls, call: Call, kernel: tuple[int, int]) -> _Convolved:
        """
        Args:
            kernel: its height and width.
        """
        strides, dilation = rows_and_columns(call, "stride_{}"), rows_and_columns(call, "dilation_{}_factor")
        value = call.value(0, blocks=True)
        if value.blocks is None or value.tensor is None:
            return cls(image(call), strides, dilation, padding_of(call))
        if strides != (1, 1) or padding_of(call) != "valid":
            raise NoRule("has strides or pads within blocks of an image", "a convolution without them")
        dilation = (dilation[0] * value.blocks.size[0], dilation[1] * value.blocks.size[1])
        return cls._between_blocks(call, value.tensor, value.blocks, kernel, dilation)

    @classmethod
    def _between_blocks(
        cls, call: Call, tensor: Tensor, blocks: Blocks, kernel: tuple[int, int], dilation: tuple[int, int]
    ) -> _Convolved:
        made = _blocks_behind(call)
        if made.size != blocks.size:
            raise NoRule(f"makes blocks of {list(blocks.size)}, read as of {list(made.size)}", "the same")
        # What is cut off behind the convolution need not be computed before: the rest are its own pads.
        sides = zip(blocks.margins, made.margins, strict=True)
        pads = tuple((before - gone, after - cut) for (before, after), (gone, cut) in sides)
        if min(map(min, pads)) < 0:
            raise NoRule("cuts off more of an image in blocks than was added to it", "at most as much")
        reach = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
        if pads == tuple((side // 2, side - side // 2) for side in reach):
            return cls(tensor, (1, 1), dilation, "same", made)
        if any(any(both) for both in pads):
            tensor = call.emit.layer("ZeroPadding2D", tensor, "pad", padding=pads)
        return cls(tensor, (1, 1), dilation, "valid", made)

    def made(self, call: Call, tensor: Tensor) -> Value:
        """The operator's result, of that of the layer."""
        value = Value.of_tensor(call.activated(tensor))
        return Value(call.output().shape, value.tensor, blocks=self.blocks) if self.blocks else value


def _blocks_behind(call: Call) -> Blocks:
    """How the operator that makes one image of a convolution's results does that."""
    index = call.operator.outputs[0]
    readers = [operator for operator in call.graph.operators if index in operator.inputs]
    if len(readers) != 1 or readers[0].name != "BATCH_TO_SPACE_ND" or index in call.graph.outputs:
        raise NoRule("makes blocks of an image that are used as they are", "BATCH_TO_SPACE_ND behind it")
    tensors = [call.graph.input(readers[0], position) for position in (1, 2)]
    if any(tensor is None or not tensor.constant for tensor in tensors):
        raise NoRule("makes blocks of an image that are put together as is known at run time only", "constants")
    return blocks_of(*[tensor.data() for tensor in tensors if tensor is not None])


def blocks_of(size: np.ndarray, margins: np.ndarray) -> Blocks:
    """The blocks that two constants of the file describe."""
    if size.size != 2 or margins.size != 4 or size.min() < 1 or margins.min() < 0:
        raise NoRule(f"makes blocks of {size.ravel().tolist()}", "two sizes, of rows and columns")
    (top, bottom), (left, right) = margins.reshape(2, 2).tolist()
    return Blocks((int(size.ravel()[0]), int(size.ravel()[1])), ((top, bottom), (left, right)))


@rule("TRANSPOSE_CONV")
def transpose_conv(call: Call) -> Tensor:
    sizes = call.integers(0, "output shape")
    return _transposed(call, image(call, 2), call.constant(1, "kernel"), 3, sizes[1:3], padding_of(call))


@rule("Convolution2DTransposeBias")
def convolution_2d_transpose_bias(call: Call) -> Tensor:
    """MediaPipe's transposed convolution with a bias; its options are not in the schema, its output says what it does.

    Its stride is the ratio of the sizes; both paddings give that size where kernel and stride are equal, as in all
    published files.
    """
    tensor, kernel = image(call), call.constant(1, "kernel")
    wanted = call.output().shape[1:3]
    strides = tuple(after // before for after, before in zip(wanted, tensor.shape[1:3], strict=True))
    if strides != tuple(kernel.shape[1:3]):
        raise NoRule(f"has strides {list(strides)} and a kernel of {list(kernel.shape[1:3])}", "both equal")
    return _transposed(call, tensor, kernel, 2, wanted, "same", strides)


def _transposed(
    call: Call,
    tensor: Tensor,
    kernel: np.ndarray,
    bias: int,
    wanted: Sequence[int],
    padding: str,
    strides: Sequence[int] = (),
) -> Tensor:
    filters, height, width, _ = _kernel_shape(kernel)
    strides = strides or rows_and_columns(call, "stride_{}")
    weights = bias_of(call, bias, kernel.transpose(1, 2, 0, 3))
    check_size([filters, *wanted], False)
    made = call.weighted(
        "Conv2DTranspose", tensor, weights, filters=filters, kernel_size=(height, width), strides=strides,
        padding=padding, output_padding=_output_padding(tensor, (height, width), strides, wanted, padding),
        use_bias=len(weights) > 1,
    )  # fmt: skip
    if tuple(made.shape[1:3]) != tuple(wanted):
        raise NoRule(f"makes {list(wanted)} positions of {list(tensor.shape[1:3])}", "sizes that Keras can make")
    return call.activated(made)


def _output_padding(
    tensor: Tensor, kernel: Sequence[int], strides: Sequence[int], wanted: Sequence[int], padding: str
) -> tuple[int, ...] | None:
    """None where Keras' own size is the one that is wanted, else what makes it so."""
    rows: list[tuple[int, int, int, int]] = list(zip(tensor.shape[1:3], kernel, strides, wanted, strict=True))
    usual = [n * s if padding == "same" else n * s + max(k - s, 0) for n, k, s, _ in rows]
    if usual == [after for *_, after in rows]:
        return None
    pads = [k // 2 if padding == "same" else 0 for _, k, _, _ in rows]
    added = [after - ((n - 1) * s + k - 2 * p) for (n, k, s, after), p in zip(rows, pads, strict=True)]
    if any(not 0 <= more < s for more, (_, _, s, _) in zip(added, rows, strict=True)):
        raise NoRule(f"makes {list(wanted)} positions of {list(tensor.shape[1:3])}", "usual sizes")
    return tuple(added)


@rule("CONV_3D")
def conv_3d(call: Call) -> Tensor:
    kernel, value = call.constant(1, "kernel"), call.value(0)
    if kernel.ndim != 5 or len(value.shape) != 5 or not value.has_batch:
        raise NoRule(f"works on a tensor of shape {list(value.shape)}", "[1, depth, height, width, channels]")
    weights = bias_of(call, 2, kernel)
    made = call.weighted(
        "Conv3D", call.symbolic(value), weights, filters=kernel.shape[-1], kernel_size=kernel.shape[:3],
        strides=tuple(max(int(call.option(f"stride_{axis}", 1)), 1) for axis in "dhw"),
        dilation_rate=tuple(max(int(call.option(f"dilation_{axis}_factor", 1)), 1) for axis in "dhw"),
        padding=padding_of(call), use_bias=len(weights) > 1,
    )  # fmt: skip
    return call.activated(made)


@rule("CONV_3D_TRANSPOSE")
def conv_3d_transpose(call: Call) -> Tensor:
    kernel, value = call.constant(1, "kernel"), call.value(2)
    if kernel.ndim != 5 or len(value.shape) != 5 or not value.has_batch:
        raise NoRule(f"works on a tensor of shape {list(value.shape)}", "[1, depth, height, width, channels]")
    wanted = call.integers(0, "output shape")[1:4]
    check_size([*wanted, kernel.shape[3]], False)
    weights = bias_of(call, 3, kernel)
    made = call.weighted(
        "Conv3DTranspose", call.symbolic(value), weights, filters=kernel.shape[3], kernel_size=kernel.shape[:3],
        strides=tuple(max(int(call.option(f"stride_{axis}", 1)), 1) for axis in "dhw"), padding=padding_of(call),
        use_bias=len(weights) > 1,
    )  # fmt: skip
    if list(made.shape[1:4]) != wanted:
        raise NoRule(f"makes {wanted} positions of {list(value.shape[1:4])}", "sizes that Keras can make")
    return call.activated(made)


@rule("FULLY_CONNECTED")
def fully_connected(call: Call) -> Value:
    """A Dense layer; the operator flattens what is before its last axis unless it keeps dimensions.

    Converters leave a bias of zeros out. The layer has it all the same, so that a refit can put a constant there.
    """
    value = call.value(0)
    if call.value(1).constant is None:
        return _product_of_tensors(call)
    kernel = call.constant(1, "kernel")
    if kernel.ndim != 2:
        raise NoRule(f"has a kernel of shape {list(kernel.shape)}", "two axes")
    units, width = kernel.shape
    if np.prod(value.shape) % width:
        raise NoRule(f"multiplies {list(value.shape)} with {list(kernel.shape)}", "sizes that fit")
    if not call.option("keep_num_dims", False) or value.shape[-1] != width:
        value = call.reshaped(value, (int(np.prod(value.shape)) // width, width))
    bias = call.constant(2, "bias").ravel() if call.has(2) else np.zeros(units, np.float32)
    if value.shape[:1] == (1,) and len(value.shape) == 1:
        raise NoRule("works on a single number", "a vector")
    tensor = call.single(value) if value.shape[0] == 1 else call.symbolic(value)
    tensor = call.activated(call.weighted("Dense", tensor, [kernel.T, bias], units=units))
    shape = (*value.shape[:-1], units)
    return Value(shape, tensor) if is_symbolic(tensor) else Value.of_constant(np.asarray(tensor).reshape(shape))


def _product_of_tensors(call: Call) -> Value:
    left, right = call.value(0), call.value(1)
    if call.has(2) or len(right.shape) != 2:
        raise NoRule("has a kernel that is computed at run time", "a constant kernel")
    left = call.reshaped(left, (int(np.prod(left.shape)) // right.shape[1], right.shape[1]))
    made = call.emit.op("linalg.matmul", call.whole(left), call.whole(right), transpose_b=True)
    return call.made(call.activated(made), whole=True)


@rule("BATCH_MATMUL")
def batch_matmul(call: Call) -> Value:
    left, right = call.value(0), call.value(1)
    flip_left, flip_right = bool(call.option("adj_x", False)), bool(call.option("adj_y", False))
    kernel = right.constant
    if kernel is not None and left.constant is None and not flip_left and np.prod(kernel.shape[:-2]) == 1:
        matrix: np.ndarray = kernel.reshape(kernel.shape[-2:])
        matrix = matrix.T if flip_right else matrix
        rank = max(len(left.shape), kernel.ndim)
        left = call.reshaped(left, (*(1,) * (rank - len(left.shape)), *left.shape))
        made = call.weighted("Dense", call.symbolic(left), [matrix], units=matrix.shape[1], use_bias=False)
        return Value((*left.shape[:-1], matrix.shape[1]), made)
    rank = max(len(left.shape), len(right.shape))
    direct = len(left.shape) == len(right.shape) and left.has_batch and right.has_batch and rank > 2
    tensors = [call.symbolic(v) if direct else call.whole(v, rank) for v in (left, right)]
    made = call.emit.op("linalg.matmul", *tensors, transpose_a=flip_left, transpose_b=flip_right)
    return call.made(made, whole=not direct)
