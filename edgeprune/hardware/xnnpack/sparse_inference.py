"""XNNPACK's sparse inference: the conditions under which it switches on, as a table of rules.

XNNPACK runs the 1x1 convolutions of a float model with sparse kernels, in a channel-first layout, when a whole cluster
of operators qualifies: from a 3x3 convolution that reads the image (the stem) to a global average pooling (the tail),
with nothing but 1x1 and depthwise convolutions and elementwise operators in between. If one operator does not qualify,
the whole cluster keeps its dense kernels, and nothing at run time tells. Sources: ``xnn_check_nchw_compatibility`` and
``xnn_subgraph_rewrite_for_nchw`` in XNNPACK's ``src/subgraph.c``; Elsen et al. 2020, "Fast Sparse ConvNets",
arXiv:1911.09723.

The rules look at :class:`Node`, which both a Keras model (:mod:`edgeprune.prune.sparse.keras`) and a .tflite file
(:mod:`edgeprune.hardware.xnnpack.sparse_file`) can be described with; nothing here imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Literal

# More than this fraction of the weights of all 1x1 convolutions of a cluster must be zero.
MIN_ZEROS = 2 / 3
Kind = Literal[
    "convolution", "depthwise", "padding", "elementwise", "resize", "mean", "depth_to_space", "dense", "other"
]
Role = Literal["input", "stem", "1x1", "depthwise", "elementwise", "tail", "after", "in the way"]
# Top, bottom, left, right; "same" is TensorFlow's padding of a strided convolution, which depends on the input size.
Padding = tuple[int, int, int, int] | Literal["same"]
NO_PADDING: Padding = (0, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation, with the properties that XNNPACK's conditions look at.

    Attributes:
        name: for messages.
        operator: its type in the model: ``Conv2D``, ``CONV_2D``.
        kind: its type for the rules here.
        inputs, outputs: numbers of the values that it reads and writes, without constants.
        rank: of the output.
        multiplier: of a depthwise convolution.
        channels: of the input.
        weights: number of elements of the kernel; ``zeros`` of them are zero.
        activation: fused activation, if XNNPACK cannot fuse it; else empty.
    """

    name: str
    operator: str
    kind: Kind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    rank: int = 4
    dtype: str = "float32"
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = NO_PADDING
    groups: int = 1
    multiplier: int = 1
    channels: int | None = None
    weights: int = 0
    zeros: int = 0
    activation: str = ""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What prevents sparse inference, and what to change. ``rule`` is the name of the rule that is not met."""

    rule: str
    what: str
    fix: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The role of one operation, and what there prevents sparse inference, if anything does."""

    node: Node
    role: Role
    problem: Problem | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Whether a graph qualifies.

    Attributes:
        verdicts: one per operation, in the order of the graph.
        missing: what the graph as a whole lacks.
    """

    verdicts: tuple[Verdict, ...]
    missing: tuple[Problem, ...] = ()

    @property
    def qualifies(self) -> bool:
        """Whether the structure qualifies. Enough zeros, stored sparse, are needed as well."""
        return not self.missing and all(verdict.ok for verdict in self.verdicts)

    @property
    def pointwise(self) -> list[Node]:
        """The 1x1 convolutions between stem and tail, whose weights may be pruned."""
        return [verdict.node for verdict in self.verdicts if verdict.role == "1x1"]

    @property
    def zero_share(self) -> float:
        """Fraction of zeros among the weights of the 1x1 convolutions, in [0, 1]."""
        size = sum(node.weights for node in self.pointwise)
        return sum(node.zeros for node in self.pointwise) / size if size else 0.0

    @property
    def zero_share_with_dense(self) -> float:
        """``zero_share`` with the dense layer behind the pooling, which newer releases of XNNPACK count too."""
        ends = {value for v in self.verdicts if v.role == "tail" for value in v.node.outputs}
        nodes = [v.node for v in self.verdicts if v.node.kind == "dense" and ends & set(v.node.inputs)]
        nodes += self.pointwise
        size = sum(node.weights for node in nodes)
        return sum(node.zeros for node in nodes) / size if size else 0.0


# -- conditions: each gives the reason why an operation keeps its cluster dense, or None -----------------------------

Condition = Callable[[Node], Problem | None]


def float32(node: Node) -> Problem | None:
    """Everything in the cluster computes in float32."""
    if node.dtype == "float32":
        return None
    return Problem("float32", f"computes in {node.dtype}", "convert to float32; quantized kernels are always dense")


def undilated(node: Node) -> Problem | None:
    """No convolution is dilated."""
    if node.dilation == (1, 1):
        return None
    return Problem("undilated", f"has dilation {_pair(node.dilation)}", "use dilation 1")


def ungrouped(node: Node) -> Problem | None:
    """No convolution but a depthwise one is grouped."""
    if node.groups == 1:
        return None
    return Problem("ungrouped", f"has {node.groups} groups", "use one group, or a depthwise convolution")


def unstrided(node: Node) -> Problem | None:
    """1x1 convolutions have stride 1."""
    if node.strides == (1, 1):
        return None
    fix = "move the stride into a 3x3 depthwise convolution before it"
    return Problem("unstrided", f"is a 1x1 convolution with stride {_pair(node.strides)}", fix)


def unpadded(node: Node) -> Problem | None:
    """1x1 convolutions have no padding."""
    if node.padding in (NO_PADDING, "same"):  # 'same' adds nothing to a 1x1 kernel
        return None
    return Problem("unpadded", "is a 1x1 convolution on a padded input", "remove the padding")


def symmetric(node: Node) -> Problem | None:
    """3x3 kernels are padded by exactly 1 on each side, 5x5 ones by 2; 'same' with stride 2 pads 0 and 1."""
    side = (node.kernel[0] - 1) // 2
    if node.padding == (side,) * 4:
        return None
    padding = "'same' padding with a stride" if node.padding == "same" else f"padding {node.padding}"
    fix = f"pad by {side} on each side (ZeroPadding2D({side})) and use 'valid'"
    return Problem("symmetric", f"has {padding}", f"{fix}; sparse_inference = true in a recipe does it")


def stem_kernel(node: Node) -> Problem | None:
    """The first convolution has a 3x3 kernel."""
    if node.kernel == (3, 3):
        return None
    return Problem("stem_kernel", f"is the stem, with a {_pair(node.kernel)} kernel", "use a 3x3 kernel")


def stem_strides(node: Node) -> Problem | None:
    """The first convolution has stride 2."""
    if node.strides == (2, 2):
        return None
    return Problem("stem_strides", f"is the stem, with stride {_pair(node.strides)}", "use stride 2")


def stem_channels(node: Node) -> Problem | None:
    """The first convolution reads 3 channels."""
    if node.channels == 3:
        return None
    fix = "feed it 3 channels; a grey image can be repeated (Concatenate)"
    return Problem("stem_channels", f"is the stem, on {node.channels} input channels", fix)


def depthwise_kernel(node: Node) -> Problem | None:
    """Depthwise kernels are 3x3 or 5x5."""
    if node.kernel in ((3, 3), (5, 5)):
        return None
    return Problem("depthwise_kernel", f"has a {_pair(node.kernel)} depthwise kernel", "use 3x3 or 5x5")


def depthwise_strides(node: Node) -> Problem | None:
    """Depthwise convolutions have stride 1 or 2, the same in both directions."""
    if node.strides in ((1, 1), (2, 2)):
        return None
    return Problem("depthwise_strides", f"has stride {_pair(node.strides)}", "use stride 1 or 2")


def single_multiplier(node: Node) -> Problem | None:
    """Depthwise convolutions have one filter per channel."""
    if node.multiplier == 1:
        return None
    return Problem("single_multiplier", f"has depth multiplier {node.multiplier}", "use depth_multiplier 1")


def four_dimensional(node: Node) -> Problem | None:
    """Elementwise operators work on tensors of 4 dimensions."""
    if node.rank == 4:
        return None
    return Problem(
        "four_dimensional", f"works on {node.rank} dimensions", "keep the shape [batch, height, width, channels]"
    )


def plain_activation(node: Node) -> Problem | None:
    """A convolution's own activation is a unary operator."""
    if not node.activation:
        return None
    fix = "use relu, relu6, sigmoid, tanh, elu or swish"
    return Problem("plain_activation", f"has the activation {node.activation}", fix)


def supported(node: Node) -> Problem | None:
    """Nothing else stands between stem and tail."""
    if node.kind == "convolution":
        fix = "replace it with a depthwise and a 1x1 convolution"
        return Problem("supported", f"is a {_pair(node.kernel)} convolution behind the stem", fix)
    fix = "between stem and pooling, use 1x1 and depthwise convolutions, add, multiply and activations only"
    return Problem("supported", f"({node.operator}) has no sparse counterpart", fix)


_KERNEL: tuple[Condition, ...] = (float32, undilated, ungrouped, plain_activation)
CONDITIONS: dict[Role, tuple[Condition, ...]] = {
    "stem": (*_KERNEL, stem_channels, stem_kernel, stem_strides, symmetric),
    "1x1": (*_KERNEL, unstrided, unpadded),
    "depthwise": (*_KERNEL, single_multiplier, depthwise_kernel, depthwise_strides, symmetric),
    "elementwise": (float32, four_dimensional),
    "tail": (float32,),
    "in the way": (supported,),
    "input": (),
    "after": (),
}
NO_TAIL = Problem(
    "tail",
    "there is no global average pooling behind the convolutions",
    "end the convolutions in GlobalAveragePooling2D, not in Flatten or another pooling",
)
NO_STEM = Problem(
    "stem",
    "reads the model's input without a stem before it",
    "begin with a 3x3 convolution with stride 2 on 3 channels",
)
NO_POINTWISE = Problem(
    "pointwise", "there is no 1x1 convolution between stem and pooling", "nothing can be pruned here"
)


# -- the cluster -----------------------------------------------------------------------------------------------------


def analyse(nodes: Sequence[Node], outputs: Collection[int] = ()) -> Analysis:
    """The role of each operation in sparse inference, and what prevents it.

    Args:
        nodes: the operations, in an order in which they can run.
        outputs: numbers of the values that the model returns.
    """
    graph = _Graph(fold_padding(nodes), outputs)
    roles = graph.roles()
    verdicts = []
    for node, role in zip(graph.nodes, roles, strict=True):
        problem = next(filter(None, (condition(node) for condition in CONDITIONS[role])), None)
        verdicts.append(Verdict(node, role, problem or graph.misplaced(node, role, roles)))
    missing = [problem for problem, role in ((NO_TAIL, "tail"), (NO_POINTWISE, "1x1")) if role not in roles]
    return Analysis(tuple(verdicts), tuple(missing))


def fold_padding(nodes: Sequence[Node]) -> list[Node]:
    """Fold padding into the convolution behind it, as XNNPACK does when nothing else reads the padded tensor."""
    makers = {value: node for node in nodes for value in node.outputs}
    readers = _readers(nodes)
    folded: dict[int, Node] = {}
    dropped: set[int] = set()
    for node in nodes:
        before = makers.get(node.inputs[0]) if node.inputs else None
        if before is None or before.kind != "padding" or not _heavy(node) or len(readers[node.inputs[0]]) > 1:
            continue
        if node.padding == "same" or before.padding == "same":
            continue
        top, bottom, left, right = (a + b for a, b in zip(node.padding, before.padding, strict=True))
        folded[id(node)] = dataclasses.replace(node, inputs=before.inputs, padding=(top, bottom, left, right))
        dropped.add(id(before))
    return [folded.get(id(node), node) for node in nodes if id(node) not in dropped]


def same_padding(kernel: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]) -> Padding:
    """TensorFlow's 'same' padding as numbers, which XNNPACK converts it to with stride 1 only."""
    if strides != (1, 1):
        return "same"
    height, width = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
    return height // 2, height - height // 2, width // 2, width - width // 2


class _Graph:
    """A graph of nodes, with the maker and the readers of each value."""

    def __init__(self, nodes: Sequence[Node], outputs: Collection[int]):
        self.nodes, self.outputs = list(nodes), set(outputs)
        self.maker = {value: number for number, node in enumerate(self.nodes) for value in node.outputs}
        self.readers = _readers(self.nodes)
        self.behind: list[bool] = []  # whether each node has a convolution among its ancestors
        for number in range(len(self.nodes)):
            self.behind.append(any(_heavy(self.nodes[n]) or self.behind[n] for n in self._parents(number)))

    def roles(self) -> list[Role]:
        """The role of each node. The nodes between a stem and a tail are the cluster, which has to qualify."""
        numbers = range(len(self.nodes))
        tails = {n for n in numbers if self.nodes[n].kind in ("mean", "depth_to_space") and self.behind[n]}
        ends = tails or {n for n in numbers if _heavy(self.nodes[n])}
        inside = {number for end in ends for number in self._between(end)}
        return [self._role(number, inside) for number in numbers]

    def _role(self, number: int, inside: set[int]) -> Role:
        node = self.nodes[number]
        if number not in inside:
            # Operators before the stem or behind the last tail keep dense kernels, and do not prevent sparse ones.
            return "after" if self.behind[number] or _heavy(node) else "input"
        if node.kind == "convolution":
            return "1x1" if node.kernel == (1, 1) else "in the way" if self.behind[number] else "stem"
        return _ROLES.get(node.kind, "in the way")

    def misplaced(self, node: Node, role: Role, roles: Sequence[Role]) -> Problem | None:
        """The problem of a node that reads the model's input without a stem, or is itself read outside the cluster."""
        if role in ("input", "after", "in the way"):
            return None
        if role != "stem" and any(v not in self.maker or roles[self.maker[v]] == "input" for v in node.inputs):
            return NO_STEM
        if role == "tail" or "tail" not in roles:
            return None
        outside = [self.nodes[n] for v in node.outputs for n in self.readers[v] if roles[n] == "after"]
        if not outside and not self.outputs & set(node.outputs):
            return None
        reader = f"read by {outside[0].name} ({outside[0].operator})" if outside else "an output of the model"
        fix = "use its result only in layers that lead to the global average pooling"
        return Problem("closed", f"is also {reader}, outside the part between stem and pooling", fix)

    def _between(self, end: int) -> set[int]:
        """The node and its ancestors, back to the first convolutions."""
        between: set[int] = set()
        stack = [end]
        while stack:
            number = stack.pop()
            if number not in between and (self.behind[number] or _heavy(self.nodes[number])):
                between.add(number)
                stack += self._parents(number)
        return between

    def _parents(self, number: int) -> list[int]:
        return [self.maker[value] for value in self.nodes[number].inputs if value in self.maker]


_ROLES: dict[str, Role] = {
    "depthwise": "depthwise",
    "elementwise": "elementwise",
    "resize": "elementwise",
    "mean": "tail",
    "depth_to_space": "tail",
}


def _readers(nodes: Sequence[Node]) -> dict[int, list[int]]:
    readers: dict[int, list[int]] = {value: [] for node in nodes for value in (*node.inputs, *node.outputs)}
    for number, node in enumerate(nodes):
        for value in node.inputs:
            readers[value].append(number)
    return readers


def _heavy(node: Node) -> bool:
    return node.kind in ("convolution", "depthwise")


def _pair(pair: tuple[int, int]) -> str:
    return "x".join(map(str, pair))
