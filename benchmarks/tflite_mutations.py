"""Mutations of the tables of .tflite files, through the objects of their schema; for ``mutated_models.py``."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

# Numbers of indices, sizes, types and options; the largest are those of 8, 16, 32 and 64 bits.
NUMBERS = (0, 1, 2, 3, 4, 5, 7, 16, -1, -2, 127, 255, 1000, 65_535, 1 << 20, (1 << 31) - 1, -(1 << 31), (1 << 63) - 1)
REALS = (0.0, 1.0, -1.0, 1e-30, 1e30, -1e30, float("nan"), float("inf"))
TRIES = 30


def _of_tables(change: Callable[[object, random.Random], None]) -> Callable[[Path, random.Random], None]:
    """A mutation of a model's objects, as one of its file; changes that the schema cannot write are drawn again."""

    def mutate(path: Path, draw: random.Random) -> None:
        from edgeprune.tflite.objects import packed, unpacked

        content = path.read_bytes()
        for _ in range(TRIES):
            model = unpacked(content)
            try:
                change(model, draw)
                path.write_bytes(packed(model))
                return
            except Exception:  # what has no place for the number, or was not there to be changed
                continue
        raise ValueError(f"nothing of it was written in {TRIES} tries")

    mutate.__name__ = change.__name__
    return mutate


def _tables(value: object) -> Iterator[object]:
    """Every table of a model, from the root on."""
    inner = vars(value).values() if hasattr(value, "__dict__") else value if isinstance(value, list) else ()
    if hasattr(value, "__dict__"):
        yield value
    for one in inner:
        yield from _tables(one)


def _changed(value: object, draw: random.Random, others: list) -> object:
    """Another value of the same kind."""
    if isinstance(value, bool | np.bool_):
        return not value
    if isinstance(value, int | np.integer):
        return draw.choice([*NUMBERS, int(value) + 1, int(value) - 1, int(value) * 2, *map(int, others)])
    if isinstance(value, float | np.floating):
        return draw.choice([*REALS, -value, value * 1e6])
    if isinstance(value, bytes):
        return draw.choice([b"", b"\0", b"\xff\xfe", b"x" * 5000, value + b"/x:0", b"a;b;c", draw.randbytes(9)])
    if isinstance(value, list | np.ndarray):
        return _changed_list(list(value), draw)
    return draw.choice([None, *others])


def _changed_list(values: list, draw: random.Random) -> list:
    """Shorter, longer, in another order, or with another element."""
    at = draw.randrange(len(values)) if values else 0
    kind = draw.choice(["number", "number", "number", "cut", "double", "swap", "remove", "empty", "more"])
    if not values or kind == "empty":
        return [0] if not values else []
    if kind == "number" and not hasattr(values[at], "__dict__"):
        values[at] = _changed(values[at], draw, values[:5] if isinstance(values[0], int | np.integer) else [])
    elif kind == "cut":
        del values[at:]
    elif kind == "double":
        values.insert(draw.randrange(len(values)), values[at])
    elif kind == "swap":
        other = draw.randrange(len(values))
        values[at], values[other] = values[other], values[at]
    elif kind == "remove":
        del values[at]
    elif kind == "more":
        values += values[:1] * draw.choice([1, 7, 1000])
    return values


def _change_field(rows: list, draw: random.Random, names: tuple[str, ...] = ()) -> None:
    """Another value for a field of one of these tables; of the fields of these names, if any are given."""
    table = draw.choice(rows)
    name = draw.choice(names or sorted(vars(table)))
    same = [getattr(row, name, None) for row in rows if type(row) is type(table)]
    others = [one for one in same[:200] if isinstance(one, type(getattr(table, name))) and one is not None]
    scalars = others if others and not isinstance(others[0], list | np.ndarray | bytes) else []
    setattr(table, name, _changed(getattr(table, name), draw, draw.sample(scalars, min(len(scalars), 5))))


def any_field(model, draw: random.Random) -> None:
    """Any field of any table, each kind of table as often as others."""
    for _ in range(draw.choice([1, 1, 2, 4])):
        rows = list(_tables(model))
        kind = draw.choice(sorted({type(row).__name__ for row in rows}))
        _change_field([row for row in rows if type(row).__name__ == kind], draw)


def options(model, draw: random.Random) -> None:
    """The options of an operator: a field, those of another operator, or none."""
    rows = [operator for graph in model.subgraphs for operator in graph.operators]
    operator, other = draw.choice([row for row in rows if row.builtinOptions is not None]), draw.choice(rows)
    if draw.random() < 0.8:
        _change_field([operator.builtinOptions], draw)
    else:
        operator.builtinOptionsType, operator.builtinOptions = draw.choice(
            [(other.builtinOptionsType, other.builtinOptions), (0, None)]
        )


def codes(model, draw: random.Random) -> None:
    """An operator becomes another one, known or not, with what it has."""
    code = draw.choice(model.operatorCodes)
    if draw.random() < 0.5:
        draw.choice(draw.choice(model.subgraphs).operators).opcodeIndex = draw.randrange(len(model.operatorCodes))
    else:
        code.builtinCode = draw.randrange(210)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = draw.choice([code.version, 1, 2, 9])


def tensors(model, draw: random.Random) -> None:
    """Shapes, types and buffers of tensors."""
    rows = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    for _ in range(draw.choice([1, 1, 2, 3])):
        _change_field(rows, draw, ("shape", "shape", "shape", "type", "buffer", "shapeSignature", "isVariable", "name"))


def scales(model, draw: random.Random) -> None:
    """Quantization parameters: zeros, not numbers, of other lengths and along other axes; or where none were."""
    rows = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    quantized = [row for row in rows if row.quantization is not None and row.quantization.scale is not None]
    if not quantized or draw.random() < 0.2:
        from edgeprune.tflite.objects import schema

        parameters = schema().QuantizationParametersT()
        parameters.scale, parameters.zeroPoint = [draw.choice([0.1, *REALS])], [draw.choice([0, 3, -128, 1 << 40])]
        draw.choice(rows).quantization = parameters
        return
    one = draw.choice(quantized).quantization
    _change_field([one], draw, ("scale", "scale", "zeroPoint", "zeroPoint", "quantizedDimension", "min", "max"))


def buffers(model, draw: random.Random) -> None:
    """Constants: cut, longer, gone, or of other numbers."""
    buffer = draw.choice([one for one in model.buffers if one.data is not None and len(one.data)])
    data = bytes(bytearray(buffer.data))
    at = draw.randrange(len(data))
    number = draw.choice(NUMBERS[:-1]).to_bytes(8, "little", signed=True)[:4]
    place = at // 4 * 4
    buffer.data = list(
        draw.choice([
            data[:at], data + data[:at], b"", bytes(len(data)), b"\xff" * len(data), draw.randbytes(len(data)),
            *[data[:place] + number + data[place + 4 :]] * 6,
        ])
    )  # fmt: skip


def wires(model, draw: random.Random) -> None:
    """Which tensors operators and graphs read and write."""
    graph = draw.choice(model.subgraphs)
    for _ in range(draw.choice([1, 1, 2])):
        table = draw.choice([graph, *draw.choices(graph.operators, k=4)])
        name = draw.choice(("inputs", "outputs"))
        values = [int(value) for value in getattr(table, name)]
        if draw.random() < 0.6:
            values[draw.randrange(len(values))] = draw.randrange(-1, len(graph.tensors))
        else:
            values = _changed_list(values, draw)
        setattr(table, name, values)


def cycles(model, draw: random.Random) -> None:
    """An operator that reads what it, or one after it, makes; a graph that calls itself, or one that calls it."""
    calls = [
        (row, name) for row in _tables(model.subgraphs) for name in vars(row) if "subgraph" in name.lower()
    ]  # fmt: skip
    if calls and draw.random() < 0.5:
        setattr(*draw.choice(calls), draw.randrange(-1, len(model.subgraphs) + 1))
        return
    operators = draw.choice(model.subgraphs).operators
    at = draw.randrange(len(operators))
    later = draw.choice(operators[at:])
    inputs = [int(value) for value in operators[at].inputs]
    inputs[draw.randrange(len(inputs))] = int(draw.choice(list(later.outputs)))
    operators[at].inputs = inputs


def order(model, draw: random.Random) -> None:
    """Operators, tensors, graphs, buffers or signatures: fewer, twice, or in another order."""
    owner = draw.choice([model, *model.subgraphs])
    names = [name for name, value in vars(owner).items() if isinstance(value, list) and value]
    name = draw.choice([*names, *["operators"] * 2 * ("operators" in names)])
    setattr(owner, name, _changed_list(list(getattr(owner, name)), draw))


TABLES = tuple(
    map(_of_tables, (any_field, options, options, codes, tensors, tensors, scales, buffers, wires, cycles, order))
)
