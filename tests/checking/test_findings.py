"""The findings of `edgeprune check`, word for word: they are made of data, and making them otherwise changes none."""

import json
from pathlib import Path

import pytest
from tiny_files import Given, tflite_of

from edgeprune.checking.check import Subject, check
from edgeprune.hardware import placement
from edgeprune.hardware.delegates import DELEGATES, rules_of
from edgeprune.hardware.edgetpu.rules import EDGE_TPU
from edgeprune.target import load_target
from edgeprune.tflite import versions
from edgeprune.tflite.flatbuffer import read

KNOWN = Path(__file__).parent / "findings.json"
TARGETS = ("rpi4", "coral", "android-arm64")
ARTIFACTS = ("float32", "int8", "sparse")
REAL = ("mlperf_tiny_resnet8_int8_reference", "b826e3_deeplabv3_mnv2__deeplabv3_mnv2_dm05_pascal_quant")
REAL += ("nrf20_mnist__mnist4",)


def found_in(path, target):
    """Findings as JSON types, without what is the same in all of them, and what only this release of a runtime says."""
    rows = [item.to_dict() for item in check([Subject(path, read(path))], load_target(target))]
    rows = [row for row in rows if row["checker"] != "running"]
    return [{key: value for key, value in row.items() if key != "formats"} for row in rows]


@pytest.fixture(scope="module")
def odd_file(tmp_path_factory):
    """Every kind of operator that a runtime may not run, and one that strands those behind it on the CPU."""
    kinds = ("RELU", "HARD_SWISH", "RELU", "MyOp", "FlexErf", "ethos-u", "EMBEDDING_LOOKUP", "STABLEHLO_CBRT")
    tensors = [Given((1, 8, 8, 10), "int8", scale=0.1) for _ in range(len(kinds) + 1)]
    chain = [(kind, (place,), (place + 1,)) for place, kind in enumerate(kinds)]
    path = tmp_path_factory.mktemp("odd") / "odd.tflite"
    path.write_bytes(tflite_of(tensors, chain, [0], [len(kinds)]))
    return path


def compare(found, tmp_path):
    """Against the known findings; what was found is written down, to be taken over if it is what was wanted."""
    known = json.loads(KNOWN.read_text("utf-8"))
    (tmp_path / KNOWN.name).write_text(json.dumps(known | found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    assert found == {name: known.get(name) for name in found}, f"compare {KNOWN} with {tmp_path / KNOWN.name}"


@pytest.mark.parametrize("target", TARGETS)
def test_findings_in_converted_files_are_those_that_are_known(target, artifacts, odd_file, tmp_path):
    """Severity, text, remedy and place of every finding in files of this converter, and in one with odd operators."""
    paths = {**{name: artifacts[name] for name in ARTIFACTS}, "odd": odd_file}
    compare({f"{target}: {name}": found_in(path, target) for name, path in paths.items()}, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_findings_in_real_files_are_those_that_are_known(target, shared_models, tmp_path):
    """The same of files that others published."""
    paths = {path.stem: path for path in shared_models if path.stem in REAL}
    compare({f"{target}: {name}": found_in(path, target) for name, path in paths.items()}, tmp_path)


def test_findings_in_a_keras_model_are_those_that_are_known(tmp_path):
    """The same of the demo's model, whose findings name its layers."""
    pytest.importorskip("tf_keras")
    from edgeprune.checking.trial import trial_modes, trial_subject
    from edgeprune.data import demo_model

    target, model = load_target("rpi4"), demo_model()
    subjects = [trial_subject(model, target, mode, tmp_path) for mode in trial_modes(target)]
    compare({"rpi4: the demo": [item.to_dict() for item in check(subjects, target)]}, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_rewording_a_reason_changes_no_finding_but_its_words(target, odd_file, monkeypatch):
    """Severities, remedies and places do not depend on the sentences, even where all of them are the same."""

    def verdicts():
        return [
            {key: row[key] for key in ("severity", "checker", "fix", "where")} for row in found_in(odd_file, target)
        ]

    before = verdicts()
    for table in (versions._SENTENCES, placement.REASONS):
        for kind in table:
            monkeypatch.setitem(table, kind, "Other words.")
    for rule in {id(rule): rule for book in (EDGE_TPU, *DELEGATES.values()) for rule in rules_of(book)}.values():
        monkeypatch.setattr(rule.check, "__doc__", "Other words.")
    assert verdicts() == before
