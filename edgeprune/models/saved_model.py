"""Operators in the graphs of a SavedModel that do more than compute.

edgeprune loads no function of a SavedModel, only its description and its variables. A file whose functions would touch
files, processes or the network is refused all the same, unless it is trusted: whoever loads it elsewhere would run
them, and it is no model as Keras writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgeprune._tensorflow import import_tf
from edgeprune.errors import ModelError
from edgeprune.models.types import ConfigValue

# (pattern of whole names of operators, what they do), of those that TensorFlow 2.21 registers.
_OPERATORS = (
    (r"ReadFile|WriteFile|MatchingFiles|.*FromTextFile.*|FileSystem.*|RecordInput|ShardedFilespec", "touches files"),
    (r"Skipgram|FixedUnigramCandidateSampler|GenerateVocabRemapping|LoadAndRemapMatrix", "touches files"),
    (r"DumpTensor|CalibrationStatisticsSaver|LMDB.*|.*Reader(V2)?|Reader.*|.*Dataset.*", "touches files"),
    (r"(Save|Restore)(V2|Slices?)?|DTensorRestoreV2|MergeV2Checkpoints|CheckpointExists", "touches files"),
    (r"Write.*Summary|Create.*Writer|SummaryWriter|.*SummaryWriter|ImportEvent", "touches files"),
    (r"(Eager)?PyFunc(Stateless)?", "runs Python code"),
    (r"_?Xla(CustomCall|HostCompute|CallModule).*|RemoteCall", "runs code beyond TensorFlow's"),
    (r"Rpc.*|DeleteRpcFutureResource|DistributedSave|Collective.*|_?Nccl.*|_?(Host)?(Send|Recv)", "uses the network"),
    (r"_?(Configure|Initialize|Shutdown|Connect).*(TPU|Host).*|ConfigureAndInitializeGlobalTPU", "uses the network"),
    (r"Debug(Identity|NanCount|NumericSummary).*", "sends tensors to an address"),
)
# Every SavedModel saves and restores its variables by operators in functions of these names. They are never called.
_SAVERS = re.compile(r"__inference__traced_(save|restore)_\d+")
_OF_SAVERS = {"SaveV2", "RestoreV2", "MergeV2Checkpoints"}


def refuse_operators(folder: Path, *, trust: bool) -> None:
    """Raise for the first operator in a SavedModel's graphs that touches files, processes or the network.

    Args:
        folder: with ``saved_model.pb``.
        trust: raise nothing.

    Raises:
        ModelError: naming the operator, and the function that holds it.
        google.protobuf.message.DecodeError, OSError: ``saved_model.pb`` is damaged.
    """
    if trust:
        return
    for function, node in _nodes(folder / "saved_model.pb"):
        if _SAVERS.fullmatch(function) and node.op in _OF_SAVERS:
            continue
        does = what_it_does(node)
        if does:
            raise ModelError(
                f"{folder}: the function {function!r} holds the operator {node.op}, which {does}.",
                expected="a SavedModel whose functions only compute",
                fix="load the model in Python and save it with model.save('NAME.keras'), which leaves functions out; "
                "or, if you trust its author, add --trust-model (in Python: trust=True). edgeprune itself runs no "
                "function of a SavedModel.",
            )


def what_it_does(node: ConfigValue) -> str | None:
    """What an operator (a ``NodeDef``) does beyond computing, in words; None: nothing."""
    if node.op == "PrintV2":
        return "touches files" if node.attr["output_stream"].s.startswith(b"file:") else None
    return next((does for pattern, does in _COMPILED if pattern.fullmatch(node.op)), None)


_COMPILED = tuple((re.compile(pattern), does) for pattern, does in _OPERATORS)


def _nodes(path: Path) -> Iterator[tuple[str, ConfigValue]]:
    """Every ``NodeDef``, with the name of the function that holds it."""
    import_tf()
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel()
    model.ParseFromString(path.read_bytes())
    for graph in model.meta_graphs:
        yield from _of("the main graph", graph.graph_def.node)
        for function in graph.graph_def.library.function:
            yield from _of(function.signature.name, function.node_def)


def _of(function: str, nodes: Iterable[ConfigValue]) -> Iterator[tuple[str, ConfigValue]]:
    return ((function, node) for node in nodes)
