import random

import pytest

from edgeprune.hardware.placement import STRANDED, RuleBook, judge, partition, place, rule, status_table, summarize
from edgeprune.tflite.graph import Operator, Subgraph, Tensor


def tensor(index, constant=False):
    return Tensor(index, f"t{index}", (1, 4), (1, 4), "int8", None, None, False, constant, memoryview(b""))


def graph(edges, names=None):
    """Operator i reads the tensors in edges[i] and writes tensor i + 1; tensor 0 is the input."""
    operators = tuple(
        Operator(i, (names or ["GOOD"] * len(edges))[i], False, 1, tuple(inputs), (i + 1,), {})
        for i, inputs in enumerate(edges)
    )
    return Subgraph("", tuple(tensor(i) for i in range(len(edges) + 1)), operators, (0,), (len(edges),))


@rule("refused")
def refuses_odd(graph, operator):
    """Odd operators are refused.

    Source: this test.
    """
    return operator.index % 2 == 1


@rule("perhaps")
def unsure(graph, operator):
    """Nobody knows."""
    return None


BOOK = RuleBook(
    "chip", {"GOOD": (), "ODD": (refuses_odd,), "UNSURE": (unsure,)}, (), "taken", "unknown", "second", True
)


def runtime_partition(graph, supported):
    """What tensorflow/lite/graph_info.cc does, by its loop: sweep until nothing joins, then the next part."""
    parts = [None] * len(supported)
    produced = {t for op in graph.operators for t in op.outputs}
    ready, number = set(), 0
    while None in parts:
        kind, joined = None, True
        while joined:
            joined = False
            for position, op in enumerate(graph.operators):
                if parts[position] is not None or not {t for t in op.inputs if t in produced} <= ready:
                    continue
                kind = supported[position] if kind is None else kind
                if supported[position] == kind:
                    parts[position], joined = number, True
                    ready.update(op.outputs)
        number += 1
    return parts


@pytest.mark.parametrize("seed", range(200))
def test_the_partition_is_the_runtimes(seed):
    """On random graphs, one pass gives the parts that the runtime's sweeps give."""
    generator = random.Random(seed)
    size = generator.randrange(1, 25)
    edges = [[generator.randrange(i + 1) for _ in range(generator.randrange(1, 4))] for i in range(size)]
    supported = [generator.random() < 0.6 for _ in range(size)]
    assert partition(graph(edges), supported) == runtime_partition(graph(edges), supported)


def test_only_the_first_part_is_kept():
    """What comes after an unsupported operator is left with the words for a second part; a parallel branch is not."""
    # 0 good → 1 odd (refused) → 3 good; 2 good reads 0 only.
    made = graph([[0], [1], [1], [2]], ["GOOD", "ODD", "GOOD", "GOOD"])
    placed, parts = place(BOOK, made)
    assert [op.on_accelerator for op in placed] == [True, False, True, False]
    assert [op.status for op in placed] == ["taken", "refused", "taken", "second"]
    assert [op.rule for op in placed] == [None, "refuses_odd", None, STRANDED]
    assert parts == 1
    assert status_table(placed) == [("GOOD", 2, "taken"), ("ODD", 1, "refused"), ("GOOD", 1, "second")]


def test_a_prefix_may_stay_on_the_cpu():
    """Unsupported operators at the beginning do not keep the rest from the accelerator."""
    placed, _ = place(BOOK, graph([[0], [1], [2]], ["WHAT", "GOOD", "GOOD"]))
    assert [op.on_accelerator for op in placed] == [False, True, True]


def test_reasons_are_the_docstrings():
    """A refusal carries the rule's first paragraph, without its source."""
    made = graph([[0], [1]], ["GOOD", "ODD"])
    verdict = judge(BOOK, made, made.operators[1])
    assert (verdict.reason, verdict.rule) == ("Odd operators are refused.", "refuses_odd")


def test_doubt_is_shown_and_never_full():
    """An operator that the rules cannot tell counts among the accelerator's, and the file as not fully mapped."""
    placed, parts = place(BOOK, graph([[0], [1]], ["GOOD", "UNSURE"]))
    found = summarize(BOOK, placed, parts)
    assert (found.accelerator_ops, found.cpu_ops, found.uncertain_ops, found.fully_mapped) == (2, 0, 1, False)
    assert [row["name"] for row in found.to_dict()["not_mapped"]] == ["UNSURE"]


def test_a_long_chain_is_placed_in_linear_time():
    """Ten thousand alternating operators take well under a second."""
    import time

    size = 10_000
    made = graph([[i] for i in range(size)], ["GOOD", "ODD"] * (size // 2))
    started = time.monotonic()
    placed, _ = place(BOOK, made)
    assert sum(op.on_accelerator for op in placed) == 1
    assert time.monotonic() - started < 2
