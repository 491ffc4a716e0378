import dataclasses

import numpy as np
import pytest
from matrix import representatives
from tiny_files import Given, tflite_of

from edgeprune.checking import check as module
from edgeprune.checking.check import CHECKERS, Finding, Subject, check
from edgeprune.target import load_target, with_runtime
from edgeprune.tflite.flatbuffer import read


@pytest.fixture(scope="module")
def unfriendly():
    """A Keras model with what Coral does not take: hard-swish and leaky ReLU, odd channels; never trained."""
    tf_keras = pytest.importorskip("tf_keras")
    import tensorflow as tf

    from edgeprune.models.load import load_model

    layers = tf_keras.layers
    image = layers.Input((16, 16, 3))
    x = layers.Conv2D(10, 3, padding="same", name="odd_channels")(image)
    x = layers.Activation(tf.nn.leaky_relu, name="leaky")(x)
    x = layers.Conv2D(16, 3, padding="same", name="after")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return load_model(tf_keras.Model(image, layers.Dense(4, activation="softmax", name="classes")(x)))


@pytest.fixture(scope="module")
def coral_findings(unfriendly, tmp_path_factory):
    from edgeprune.checking.trial import trial_subject

    target = load_target("coral")
    return check([trial_subject(unfriendly, target, "int8", tmp_path_factory.mktemp("check"))], target)


def by_checker(findings, name):
    return [item for item in findings if item.checker == name]


def test_what_coral_leaves_is_named_by_keras_layer(coral_findings):
    """An operator that the Edge TPU has not is a warning that names the layer, with what to use instead."""
    found = next(item for item in by_checker(coral_findings, "accelerator") if "LEAKY_RELU" in item.what)
    assert found.severity == "warning"
    assert "Operation not supported" in found.what
    assert "ReLU" in found.fix
    assert found.where == ("leaky",)


def test_what_comes_after_is_one_finding(coral_findings):
    """Operators stranded behind an unsupported one are reported together, by their layers."""
    found = next(item for item in coral_findings if "come after" in item.what)
    assert {"after", "classes"} <= set(found.where)


def test_odd_channels_are_a_note(coral_findings):
    """Hidden channels that do not fill the target's width are noted with the nearest counts; classes are not."""
    (found,) = by_checker(coral_findings, "channels")
    assert found.where == ("odd_channels",)
    assert "16 channels" in found.fix


def test_severities_come_worst_first(coral_findings):
    """Findings are sorted: errors, warnings, notes."""
    order = [module.SEVERITIES.index(item.severity) for item in coral_findings]
    assert order == sorted(order)


def test_a_friendly_model_has_no_findings(tmp_path, artifacts):
    """Nothing is found where nothing is wrong but the channels of tiny layers."""
    subject = Subject(artifacts["int8-io"], read(artifacts["int8-io"]))
    assert {item.checker for item in check([subject], load_target("coral"))} <= {"channels"}


def test_a_float_file_does_not_run_on_the_edge_tpu(artifacts):
    """A float file is an error for Coral that says to quantize."""
    found = check([Subject(artifacts["float32"], read(artifacts["float32"]))], load_target("coral"))
    assert found[0].severity == "error"
    assert "int8" in found[0].fix


def test_formats_are_merged(tmp_path, artifacts):
    """What holds in two number formats stands once, and names both."""
    subjects = [Subject(artifacts[name], read(artifacts[name]), None, name) for name in ("float32", "int8")]
    found = check(subjects, load_target("rpi4"))
    assert len({(item.checker, item.what, item.where) for item in found}) == len(found)
    channels = [item for item in found if item.checker == "channels"]
    assert all(set(item.formats) <= {"float32", "int8"} for item in channels)


def test_float_products_in_pairs_are_a_warning(tmp_path):
    """60 channels of a float 1x1 convolution, not 63 or 64, and only under a runtime that computes them in pairs."""
    import tf_keras

    from edgeprune.checking.trial import trial_subject

    x = image = tf_keras.Input((8, 8, 3))
    for channels in (60, 63, 64):
        x = tf_keras.layers.Conv2D(channels, 1, name=f"wide{channels}")(x)
    model = tf_keras.Model(image, tf_keras.layers.GlobalAveragePooling2D()(x))
    recent = load_target("rpi4")
    found = by_checker(check([trial_subject(model, recent, "float32", tmp_path)], recent), "pairs of channels")
    assert [(item.severity, item.where) for item in found] == [("warning", ("wide60",))]
    assert "1.43 times the work of 64" in found[0].what
    old = with_runtime(recent, "tflite-runtime 2.14.0")
    assert not by_checker(check([trial_subject(model, old, "float32", tmp_path)], old), "pairs of channels")


def test_recurrent_layers_that_int8_makes_slower_are_a_warning(tmp_path):
    """A small fused LSTM is found in int8, with how many times as long it takes, and not in float32."""
    import tf_keras

    from edgeprune.checking.trial import trial_subject

    x = tf_keras.Input((10, 6))
    model = tf_keras.Model(x, tf_keras.layers.Dense(2)(tf_keras.layers.LSTM(16, name="memory")(x)))
    target = load_target("rpi4")
    subjects = [trial_subject(model, target, dtype, tmp_path) for dtype in ("int8", "float32")]
    integer, single = (by_checker(check([subject], target), "recurrent layers") for subject in subjects)
    assert [item.severity for item in integer] == ["warning"]
    assert "LSTM: int8 is estimated to take 1." in integer[0].what
    assert single == []


def test_an_operator_newer_than_the_runtime_is_an_error(artifacts):
    """A file whose operators the board's runtime does not have will not run there."""
    old = with_runtime(load_target("rpi4"), "tflite-runtime 1.9.0")
    found = check([Subject(artifacts["int8"], read(artifacts["int8"]))], old)
    assert any(item.severity == "error" and "Didn't find op" in item.what for item in by_checker(found, "runtime"))


def test_unknown_sizes(artifacts):
    """An unknown batch is a warning where compilers want it fixed, an unknown width an error."""
    subject = Subject(artifacts["int8-io"], read(artifacts["int8-io"]))

    def with_signature(signature):
        graph = subject.graph
        tensors = list(graph.tensors)
        index = graph.inputs[0]
        tensors[index] = dataclasses.replace(tensors[index], signature=signature)
        graph = dataclasses.replace(graph, tensors=tuple(tensors))
        changed = dataclasses.replace(subject.file, subgraphs=(graph, *subject.file.subgraphs[1:]))
        return by_checker(check([dataclasses.replace(subject, file=changed)], load_target("coral")), "sizes")

    assert [item.severity for item in with_signature((-1, 16, 16, 3))] == ["warning"]
    assert [item.severity for item in with_signature((1, -1, 16, 3))] == ["error"]
    assert with_signature((1, 16, 16, 3)) == []


def found_in(folder, target, shape, *nodes, constants=()):
    """Findings on a chain of operators over int8 tensors of one shape, each (name, number of its constant or None)."""
    tensors = [Given(shape, "int8", scale=0.1) for _ in range(len(nodes) + 1)]
    tensors += [Given(value.shape, "int8", value, 0.1) for value in constants]
    chain = [
        (name, (i,) if constant is None else (i, len(nodes) + 1 + constant), (i + 1,))
        for i, (name, constant) in enumerate(nodes)
    ]
    path = folder / "tiny.tflite"
    path.write_bytes(tflite_of(tensors, chain, [0], [len(nodes)]))
    return check([Subject(path, read(path))], load_target(target))


def test_hard_swish_has_a_substitute(tmp_path):
    """HARD_SWISH is not taken by the Edge TPU, and the finding says to use ReLU6."""
    found = found_in(tmp_path, "coral", (1, 8, 8, 16), ("RELU", None), ("HARD_SWISH", None))
    (item,) = [item for item in found if "HARD_SWISH" in item.what]
    assert item.severity == "warning"
    assert "ReLU6" in item.fix


@pytest.mark.parametrize(("size", "severities"), [(16_000, set()), (16_300, {"note"}), (17_000, {"warning", "error"})])
def test_softmax_over_many(tmp_path, size, severities):
    """Softmax over 16,000 is fine, over a few more a note, and over more than compiled anywhere it stays on the CPU."""
    found = found_in(tmp_path, "coral", (1, size), ("SOFTMAX", None))
    found = [item for item in found if item.checker not in ("channels", "running")]  # its scale is no real one's
    assert {item.severity for item in found} == severities
    assert all(item.fix for item in found)


def test_constants_of_additions_are_streamed_whatever_is_pruned(tmp_path):
    """Constants that the chip never keeps are a note on the layer, and do not count as parameters that do not fit."""
    constant = np.arange(16, dtype=np.int8)
    found = found_in(tmp_path, "coral", (1, 8, 8, 16), ("MUL", 0), constants=[constant])
    (item,) = [item for item in found if "never keeps" in item.what]
    assert (item.severity, item.where) == ("note", ("0 MUL",))
    assert not any("prune filters" in (item.fix or "") for item in found)


@pytest.mark.parametrize(
    ("name", "words"), [("MyOp", "registered"), ("FlexErf", "replace"), ("ethos-u", "compiled from")]
)
def test_custom_operators_have_a_remedy(tmp_path, name, words):
    """Every kind of custom operator that will not run is an error that says what to do."""
    (item,) = by_checker(found_in(tmp_path, "rpi4", (1, 8), (name, None)), "runtime")
    assert item.severity == "error"
    assert words in item.fix


def test_a_build_artifact_passes_for_its_target(tmp_path):
    """What edgetpu_compiler wrote has nothing to complain about on Coral."""
    assert found_in(tmp_path, "coral", (1, 8), ("edgetpu-custom-op", None)) == []


@pytest.mark.parametrize("target", representatives(["rpi4", "coral", "android"], "rpi4", "coral"))
def test_real_files_are_checked(shared_models, target):
    """Files of several converters, years and formats are checked whole; what is wrong comes with what to change."""
    for path in shared_models:
        for item in check([Subject(path, read(path))], load_target(target)):
            assert item.what
            assert item.fix or item.severity != "error", (path.name, item.what)


def test_a_new_checker_is_an_entry(artifacts, monkeypatch):
    """Another checker joins by an entry in the table, and only where it applies."""
    entry = ("mine", lambda target: target.name == "rpi4", lambda subject, target: [Finding("note", "seen")])
    monkeypatch.setattr(module, "CHECKERS", [*CHECKERS, entry])
    subjects = [Subject(artifacts["float32"], read(artifacts["float32"]))]
    assert by_checker(check(subjects, load_target("rpi4")), "mine")
    assert not by_checker(check(subjects, load_target("coral")), "mine")
