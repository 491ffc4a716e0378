"""Import .tflite files, verify them, export them again, and compare: how much of published files survives the way?

python benchmarks/tflite_in.py FOLDER_OR_FILES... [--target rpi4] [--out benchmarks/results/tflite_in.md]

Each file becomes a Keras model, which is compared with what the interpreter computes on random inputs; the model is
converted to float32, or, for a quantized file, to int8 with the file's own ranges; and the new file is compared with
the old: operators, latency estimate, inputs and outputs. The new file is then imported and verified, too.

Bars: float outputs within 1e-4 of the largest, the same operators but for those named, estimates within 2 %; of
quantized files every operator within one step of its quantization on the same inputs.
"""

import argparse
import collections
import logging
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# What the converter writes in another form: stored weights unpacked at load time, and numbers that only change format.
IGNORED = ("DEQUANTIZE", "QUANTIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--target", default="rpi4", help="whose latency estimates are compared")
    parser.add_argument("--out", type=Path, help="where the table goes, beside the screen")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    from edgeprune._tensorflow import import_tf

    import_tf()
    given = [sorted(path.glob("*.tflite")) if path.is_dir() else [path] for path in options.files]
    files = [file for listed in given for file in listed]
    head = "| file | operators | largest difference | operator, steps | whole, steps | exported | estimate | ports |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    print("\n".join(lines))
    for file in files:
        lines.append(_row(file, options.target))
        print(lines[-1], flush=True)
    if options.out:
        command = f"`python benchmarks/tflite_in.py FOLDER --target {options.target}`"
        options.out.write_text(f"{command}\n\n" + "\n".join(lines) + "\n")
    sys.exit(any("**" in line for line in lines))


def _row(file: Path, target: str) -> str:
    from edgeprune.errors import EdgepruneError
    from edgeprune.models.from_tflite import import_tflite
    from edgeprune.models.from_tflite.check import check

    try:
        imported = import_tflite(file)
        checked = check(imported, file)
    except EdgepruneError as error:
        return f"| {file.name} | **refused: {error.what[:200]}** | | | | | | |"
    count = sum(len(graph.operators) for graph in imported.file.subgraphs)
    steps = ["–", "–"] if checked.steps is None else [f"{checked.operator_steps:.1f}", f"{checked.steps:.0f}"]
    cells = [file.name, str(count), f"{checked.difference:.1e}", *steps]
    with tempfile.TemporaryDirectory() as folder:
        try:
            cells += _exported(imported, file, Path(folder) / file.name, target)
        except EdgepruneError as error:
            cells += [f"**{error.what[:200]}**", "", ""]
    if checked.unchecked:
        cells[2] += f", up to {checked.unchecked[0]}"
    return f"| {' | '.join(cells)} |"


def _exported(imported, file: Path, out: Path, target: str) -> list[str]:
    from edgeprune.convert.converter import convert
    from edgeprune.models.from_tflite import import_tflite
    from edgeprune.models.from_tflite.check import check
    from edgeprune.profiling.profile import profile
    from edgeprune.quantize.plan import QuantizationPlan
    from edgeprune.tflite.flatbuffer import parse
    from edgeprune.tflite.interface import with_interface

    quantized = imported.rounded is not None
    plan = QuantizationPlan("float32", "float", False)
    if quantized:
        plan = QuantizationPlan("int8", "int8", True, ranges_in_model=True)
    content = convert(imported.rounded if quantized else imported.model, plan)
    names = [[*(name for name in own if name != own[-1]), own[-1]] for own in imported.outputs]
    content = with_interface(content, imported.model.input_names, names)
    out.write_bytes(content)
    made = parse(content)
    again = check(import_tflite(out), out)
    before, after = _operators(imported.file), _operators(made)
    changed = {name: after[name] - before[name] for name in sorted({*before, *after}) if after[name] != before[name]}
    words = ", ".join(f"{number:+d} {name}" for name, number in changed.items()) or "the same"
    words += f"; again {again.difference:.0e}" if again.steps is None else f"; again {again.operator_steps:.1f} steps"
    ms = [sum(_estimate(profile(path, target))) for path in (file, out)]
    return [words, f"{ms[0]:.2f} → {ms[1]:.2f} ms ({ms[1] / ms[0] - 1:+.1%})", _ports(imported.file, made)]


def _operators(file) -> collections.Counter:
    return collections.Counter(
        operator.name for operator in file.subgraphs[0].operators if operator.name not in IGNORED
    )


def _estimate(facts) -> list[float]:
    return [row.estimated_ms for row in facts.operators if row.estimated_ms is not None and row.name not in IGNORED]


def _ports(old, new) -> str:
    """Whether both have the same inputs and outputs, by shape and in the graph's order; types of quantized files may
    differ."""
    graphs = [file.subgraphs[0] for file in (old, new)]
    sides = [
        [[graph.tensors[index].shape for index in getattr(graph, side)] for side in ("inputs", "outputs")]
        for graph in graphs
    ]
    if sides[0] == sides[1]:
        return "the same"
    more = [len(b) - len(a) for a, b in zip(*sides, strict=True)]
    return f"{more[0]:+d} inputs, {more[1]:+d} outputs" if any(more) else f"{sides[0]} → {sides[1]}"


if __name__ == "__main__":
    main()
