"""The inputs and outputs of a .tflite as its user knows them: names, and the order of the model that it was made of.

The converter puts them into an order of its own, and a signature keeps names but sorts them, and knows nothing of the
keys of a dict of outputs. Where a model has several inputs or outputs, edgeprune brings the graph's into the model's
order, as interpreters count them, and writes what is lost of the names into the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import tflite

from edgeprune.files import JsonObject
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.graph import Signature, Subgraph, Tensor, TFLiteModel
from edgeprune.tflite.splice import with_buffer

BUFFER_NAME = "EDGEPRUNE_INTERFACE"


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        names: the user's name for it first, then others.
        signature: its name in the signature; without one, that of its tensor.
        place: position among the inputs or outputs of the graph.
        tensor: of the graph.
    """

    names: tuple[str, ...]
    signature: str
    place: int
    tensor: Tensor


@dataclass(frozen=True)
class Interface:
    """Of a file's first graph.

    Attributes:
        inputs, outputs: in the model's order if that is known, else in the signature's, else in the file's.
        ordered: whether the order of the model's outputs is known; so it is where there is only one.
        inputs_ordered: likewise, of its inputs.
        padded: whether the model leaves out padding when its metrics are taken, which the file does not.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    ordered: bool
    inputs_ordered: bool
    padded: bool


def interface(model: TFLiteModel) -> Interface:
    """Read the interface of a file."""
    graph = model.subgraphs[0]
    signature = next((one for one in model.signatures if one.subgraph == 0 and _describes(one, graph)), None)
    named = [getattr(signature, kind) if signature else _by_tensor(graph, kind) for kind in _KINDS]
    written = _written(model, named)
    ports = []
    for kind, names in zip(_KINDS, named, strict=True):
        places = {index: place for place, index in enumerate(getattr(graph, kind))}
        listed = written[kind] if written else [[name] for name in names]
        ports.append(tuple(Port(tuple(n), n[-1], places[names[n[-1]]], graph.tensors[names[n[-1]]]) for n in listed))
    inputs_ordered, ordered = (len(own) == 1 or bool(written) or signature is None for own in ports)
    return Interface(ports[0], ports[1], ordered, inputs_ordered, bool(written.get("padded")))


def other_signatures(model: TFLiteModel) -> Iterator[str]:
    """A sentence about the signatures of other graphs than the first, where there are any."""
    names: dict[bool, list[str]] = {True: [], False: []}
    for signature in model.signatures:
        names[signature.subgraph == 0].append(repr(signature.key))
    if names[False]:
        of = f", of the signature {', '.join(names[True])}" if names[True] else ""
        yield (
            f"Only the first graph is looked at{of}. {', '.join(names[False])}: not in these figures, and not "
            "checked. Convert each signature to a file of its own to see it."
        )


_KINDS = ("inputs", "outputs")
_SLOTS = (1, 2)  # of the table SubGraph: their fields


def _describes(signature: Signature, graph: Subgraph) -> bool:
    """Whether a signature names the inputs and outputs of the graph, all of them and no other tensors."""
    return all({*getattr(signature, kind).values()} == {*getattr(graph, kind)} for kind in _KINDS)


def _by_tensor(graph: Subgraph, kind: str) -> dict[str, int]:
    """The inputs or outputs by the names of their tensors; by place where one has none, or that of another."""
    names: dict[str, int] = {}
    for place, index in enumerate(getattr(graph, kind)):
        name = graph.tensors[index].name
        names[name if name and name not in names else f"{name or kind[:-1]}:{place}"] = index
    return names


def _written(model: TFLiteModel, named: Sequence[Mapping[str, int]]) -> JsonObject:
    """What :func:`with_interface` wrote; nothing if it does not fit the file, which may be made by anyone."""
    try:
        document = json.loads(model.metadata.get(BUFFER_NAME, b"{}"))
        fits = all(
            sorted(names[-1] for names in document[kind]) == sorted(known)
            and all(isinstance(name, str) for names in document[kind] for name in names)
            for kind, known in zip(_KINDS, named, strict=True)
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return {}
    return document if fits else {}


def with_interface(
    content: bytes, inputs: Sequence[str], outputs: Sequence[Sequence[str]], padded: bool = False
) -> bytes:
    """The file in the model's order, with what :func:`interface` cannot know otherwise; unchanged if that is nothing.

    Args:
        content: the .tflite.
        inputs: names in the signature, in the model's order.
        outputs: per output, in the model's order, the user's name first and that in the signature last.
        padded: see :class:`Interface`.
    """
    if len(inputs) == len(outputs) == 1 and not padded:
        return content
    document = {
        "inputs": [[name] for name in inputs],
        "outputs": [list(names) for names in outputs],
        **({"padded": True} if padded else {}),
    }
    content = _in_order(content, [inputs, [names[-1] for names in outputs]])
    return with_buffer(content, BUFFER_NAME, json.dumps(document, separators=(",", ":")).encode())


def _in_order(content: bytes, wanted: Sequence[Sequence[str]]) -> bytes:
    """The file with the inputs and outputs of its first graph in the order of these names of the signature.

    The lists of tensors are permuted where they stand. Outputs that the converter made one tensor stay as they are.
    """
    graph = tflite.Model.GetRootAs(content, 0).Subgraphs(0)
    named = interface(parse(content))
    ordered = bytearray(content)
    for kind, slot, names in zip(_KINDS, _SLOTS, wanted, strict=True):
        listed = getattr(graph, f"{kind.title()}AsNumpy")()
        place = {port.signature: port.place for port in getattr(named, kind)}
        order = [place[name] for name in names if name in place]
        if sorted(order) == list(range(len(listed))):
            start = graph._tab.Vector(graph._tab.Offset(4 + 2 * slot))
            ordered[start : start + listed.nbytes] = listed[order].tobytes()
    return bytes(ordered)
