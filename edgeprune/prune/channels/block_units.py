"""Residual blocks as units of the channel graph, so that one choice decides on channels and blocks.

A block is a group of one unit. Everything that is counted of the block's layers is counted for each position of that
unit, too: without it, their parameters and multiply-accumulates are zero, whatever their channels are.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.blocks import Block, bypass, find_blocks
from edgeprune.prune.channels.graph import Graph, Group, Term


def with_blocks(graph: Graph) -> Graph:
    """The graph of the same model in which residual blocks may go, too: groups of one unit, behind those of channels.

    Of blocks that share layers, the smallest may go. A block stays where a layer of it is called elsewhere, too, or
    where no group of channels lies inside: nothing says then what it is worth.

    Args:
        graph: what :func:`edgeprune.prune.channels.analyse.analyse` found; it is not changed.
    """
    found = copy.copy(graph)
    found.__dict__.pop("totals", None)
    found.units = copy.deepcopy(graph.units)
    owner: dict[str, np.ndarray] = {}
    for block in sorted(find_blocks(graph.model), key=lambda block: len(block.layers)):
        is_free = block.kind == "residual" and not owner.keys() & set(block.layers)
        if is_free and _may_go(graph, block):
            unit = found.units.new(1)
            owner |= dict.fromkeys(block.layers, unit)
            found.groups = (*found.groups, Group(block.name, unit, (), {}, block.layers))
    found.macs, found.params = _in_blocks(graph.macs, owner), _in_blocks(graph.params, owner)
    return found


def inside(graph: Graph, block: Sequence[str]) -> list[Group]:
    """The groups of channels that only these layers make."""
    return [group for group in graph.groups if group.layers and set(block).issuperset(group.layers)]


def gone_blocks(graph: Graph, keep: np.ndarray) -> list[Block]:
    """The blocks that go; ``keep`` is bool [units]."""
    names = {group.name for group in graph.groups if group.block and not keep[group.units[0]]}
    return [block for block in find_blocks(graph.model) if block.name in names and block.kind == "residual"]


def without_blocks(graph: Graph, keep: np.ndarray) -> tuple[Graph, np.ndarray]:
    """The graph of the model without the blocks that go, and which of its units stay: bool [units]. Both as given,
    where none goes."""
    gone = gone_blocks(graph, keep)
    if not gone:
        return graph, keep
    shorter = analyse(bypass(graph.model, gone))
    vectors = {(name, layer): vector for name, layer, vector in graph.producers}
    kept = np.ones(len(shorter.units), bool)
    for name, layer, vector in shorter.producers:
        kept[vector] = keep[vectors[name, layer]]
    return shorter, kept


def _may_go(graph: Graph, block: Block) -> bool:
    uses = [graph.view.uses(graph.model.get_layer(name)) for name in block.layers]
    return all(len(calls) == 1 for calls in uses) and bool(inside(graph, block.layers))


def _in_blocks(terms: Iterable[Term], owner: Mapping[str, np.ndarray]) -> list[Term]:
    return [
        dataclasses.replace(term, vectors=(*term.vectors, owner[term.layer])) if term.layer in owner else term
        for term in terms
    ]
