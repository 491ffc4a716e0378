"""How a runtime cuts a graph for XNNPACK, by the rules and as the runtime itself says."""

from edgeprune.hardware.placement import judge, partition

# A program for Python: partitions.py FILE... prints, for each file, one JSON list with the tensors that leave each part
# which XNNPACK took, or the message of a runtime that refuses the file. A file may end the process of its own.
PROGRAM = """
import json, os, sys
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter
for path in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            interpreter = Interpreter(path)
            interpreter.allocate_tensors()
            details = interpreter._get_ops_details()
            parts = sorted(sorted(int(i) for i in d["outputs"]) for d in details if d["op_name"] == "DELEGATE")
        except (RuntimeError, ValueError) as error:
            parts = str(error)
        print(json.dumps(parts), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(json.dumps("it crashed"), flush=True)
"""


def boundaries_predicted(graph, book):
    """For each part that a delegate takes by its rules: the tensors that leave it."""
    supported = [judge(book, graph, op).supported is not False for op in graph.operators]
    parts = partition(graph, supported)
    readers = {}
    for operator, part in zip(graph.operators, parts, strict=True):
        for index in operator.inputs:
            readers.setdefault(index, set()).add(part)
    leaving = {}
    for operator, part, taken in zip(graph.operators, parts, supported, strict=True):
        for index in operator.outputs if taken else ():
            if index in graph.outputs or readers.get(index, set()) - {part}:
                leaving.setdefault(part, []).append(index)
    return sorted(sorted(indices) for indices in leaving.values())
