import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_files import Given, tflite_of

from edgeprune.artifact import Artifact
from edgeprune.errors import ConversionError
from edgeprune.hardware.compilers import compile_for, compiler_of
from edgeprune.hardware.edgetpu import compiler as edgetpu
from edgeprune.stages.conversion import compile_model
from edgeprune.stages.measuring import profile
from edgeprune.target import load_target

LOGS = Path(__file__).parents[3].parent / "shared" / "data" / "coral" / "compiler_logs.md"
# Made for this test in the form of compiler 16, with figures that no published log has.
MADE = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 12 ms.

Input model: made.tflite
Input size: 1.50KiB
Output model: made_edgetpu.tflite
Output size: 2.25MiB
On-chip memory used for caching model parameters: 3.00KiB
On-chip memory remaining for caching model parameters: 7.50MiB
Off-chip memory used for streaming uncached model parameters: 64.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 4
Operation log: made_edgetpu.log

Number of operations that will run on Edge TPU: 3
Number of operations that will run on CPU: 1

Operator                       Count      Status

CONV_2D                        3          Mapped to Edge TPU
LEAKY_RELU                     1          Operation not supported
Compilation child process completed within timeout period.
Compilation succeeded!
"""


@pytest.fixture(scope="module")
def sections():
    """Title of a published log → its text."""
    if not LOGS.is_file():
        pytest.skip("needs ../shared/data/coral/compiler_logs.md")
    parts = re.split(r"^### ", LOGS.read_text("utf-8").partition("## C.")[0], flags=re.MULTILINE)[1:]
    return {part.splitlines()[0]: part for part in parts if "```" in part}


def find(sections, start):
    return next(text for title, text in sections.items() if title.startswith(start))


def test_every_figure_of_a_log():
    """Versions, sizes, counts and the table are read; sizes in bytes."""
    (log,) = edgetpu.parse_log(MADE)
    assert log == edgetpu.ModelLog(
        version="16.0.384591198",
        model="made.tflite",
        succeeded=True,
        operators=(
            edgetpu.OperatorStatus("CONV_2D", 3, "Mapped to Edge TPU"),
            edgetpu.OperatorStatus("LEAKY_RELU", 1, "Operation not supported"),
        ),
        on_chip_used_bytes=3072,
        on_chip_remaining_bytes=7_864_320,
        off_chip_bytes=64,
        input_bytes=1536,
        output_bytes=2_359_296,
        subgraphs=1,
        operations=4,
        edgetpu_ops=3,
        cpu_ops=1,
    )
    assert edgetpu.placement_of(log)["fully_mapped"] is False
    assert edgetpu.placement_of(log)["cached_param_bytes"] == 3072


def test_every_published_log_is_read(sections):
    """Each log has operators or a failure; the table's counts add up to the total where both are printed."""
    assert len(sections) > 20
    for title, text in sections.items():
        for log in edgetpu.parse_log(text):
            assert log.succeeded or log.errors, title
            if log.operations is not None and log.operators and not log.truncated and "B18" not in title:
                assert sum(row.count for row in log.operators) == log.operations, title
            if log.cpu_ops is not None and log.operators and log.edgetpu_ops is not None and not log.truncated:
                mapped = sum(row.count for row in log.operators if row.mapped)
                assert mapped == log.edgetpu_ops or "B23" in title, title


def test_models_compiled_together(sections):
    """One console output of 15 models gives 15 entries, each with its own bytes."""
    logs = edgetpu.parse_log(find(sections, "test_compile/fm15/fm15_log.txt"))
    assert len(logs) == 15
    assert len({log.model for log in logs}) == 15
    assert logs[0].on_chip_available_bytes == round(7.96 * 2**20)
    assert {log.on_chip_used_bytes for log in logs} == {109_056, 26 * 1024, 18_176}


def test_a_refusal_keeps_the_compilers_words(sections):
    """A failed compilation is no success, and its errors are kept."""
    (log,) = edgetpu.parse_log(find(sections, "B12 "))
    assert not log.succeeded
    assert any("large activation tensors" in line for line in log.errors)


def test_logs_without_a_summary(sections):
    """A .log file has the table alone: operators are counted from it."""
    (log,) = edgetpu.parse_log(find(sections, "convert/mnist4_edgetpu.log"))
    assert (log.mapped_ops, log.unmapped_ops) == (8, 2)


# -- the runner, with a program in the compiler's place that prints such a log ----------------------------------------


@pytest.fixture
def fake_compiler(tmp_path, monkeypatch):
    """A program on PATH that behaves like the compiler on the outside; the real one cannot be shipped."""

    def install(log, writes=True, code=0):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "log.txt").write_text(log)
        script = folder / "edgetpu_compiler"
        script.write_text(
            "#!/bin/sh\n"
            'if [ "$1" = --version ]; then echo "Edge TPU Compiler version 16.0.384591198"; exit 0; fi\n'
            'while [ $# -gt 1 ]; do [ "$1" = --out_dir ] && out=$2; shift; done\n'
            + ('cp "$1" "$out/$(basename "$1" .tflite)_edgetpu.tflite"\n' if writes else "")
            + f'cat "{folder / "log.txt"}"\nexit {code}\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return install


def test_a_build_keeps_the_artifact_and_the_word(fake_compiler, sections, tmp_path):
    """The stages of a build for Coral run the compiler that is on PATH: its file is kept, and the placement in the
    profile is that of a published log, with an estimate that follows it."""
    log = next(text for text in sections.values() if edgetpu.parse_log(text)[0].succeeded)
    fake_compiler(log)
    model = tmp_path / "model.tflite"
    tensors = [Given((1, 8, 8, 16), "int8", scale=0.1) for _ in range(3)]
    model.write_bytes(tflite_of(tensors, [("RELU", (0,), (1,)), ("LEAKY_RELU", (1,), (2,))], [0], [2]))
    context = SimpleNamespace(
        target=load_target("coral"), folder=tmp_path, progress=SimpleNamespace(note=lambda text: None)
    )
    artifact = profile.run(compile_model.run(Artifact({"tflite": model}), None, context), None, context)
    assert artifact.files["compiled"].name == "model_edgetpu.tflite"
    found, (expected, *_) = artifact.facts["profile"], edgetpu.parse_log(log)
    assert found["placement"]["source"].startswith("edgetpu_compiler")
    assert found["placement"]["accelerator_ops"] == expected.mapped_ops
    assert found["latency"]["estimated"]["kernels"] == "edgetpu"


def test_the_compilers_word_and_artifact(fake_compiler, tmp_path):
    """Where the compiler is on PATH it runs, its artifact is kept, and the placement is its word."""
    fake_compiler(MADE)
    model = tmp_path / "made.tflite"
    model.write_bytes(b"content")
    made = compile_for(load_target("coral"), model, tmp_path)
    assert made.file == tmp_path / "made_edgetpu.tflite"
    assert made.file.read_bytes() == b"content"
    assert made.placement["accelerator_ops"] == 3
    assert made.placement["source"] == "edgetpu_compiler 16.0.384591198"


@pytest.mark.parametrize(
    ("log", "writes", "code", "words"),
    [
        ("Compilation failed: Compilation failed due to large activation tensors in model.\n", False, 0, "activation"),
        ("Internal compiler error. Aborting! \n", False, 1, "Internal compiler error"),
        ("", False, 0, "it wrote no file"),
    ],
)
def test_a_refusal_is_an_error_with_its_words(fake_compiler, tmp_path, log, writes, code, words):
    """A compiler that fails or writes nothing ends in an error that quotes it."""
    fake_compiler("Edge TPU Compiler version 16.0.384591198\n" + log, writes, code)
    model = tmp_path / "made.tflite"
    model.write_bytes(b"content")
    with pytest.raises(ConversionError, match=words):
        compile_for(load_target("coral"), model, tmp_path)


def test_without_the_compiler_nothing_compiles(tmp_path, monkeypatch):
    """Coral can do without its compiler: nothing is compiled, and nothing fails."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler_of(load_target("coral")) is None
    assert compile_for(load_target("coral"), tmp_path / "x.tflite", tmp_path) is None
