"""Every architecture of keras.applications, in both Keras versions: pruned two ways, exact, trainable, convertible."""

import importlib
import inspect
import itertools

import numpy as np
import pytest
from matrix import representatives

from edgeprune._tensorflow import import_tf
from edgeprune.models.count import count
from edgeprune.models.load import load_model
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.filters import prune_filters

NAMES = {
    "ConvNeXt": ("Tiny", "Small", "Base", "Large", "XLarge"),
    "DenseNet": ("121", "169", "201"),
    "EfficientNet": ("B0", "B1", "B2", "B3", "B4", "B5", "B6", "B7"),
    "EfficientNetV2": ("B0", "B1", "B2", "B3", "S", "M", "L"),
    "Inception": ("V3", "ResNetV2"),
    "MobileNet": ("", "V2", "V3Small", "V3Large"),
    "NASNet": ("Mobile", "Large"),
    "RegNetX": ("002", "004", "006", "008", "016", "032", "040", "064", "080", "120", "160", "320"),
    "RegNetY": ("002", "004", "006", "008", "016", "032", "040", "064", "080", "120", "160", "320"),
    "ResNet": ("50", "101", "152", "50V2", "101V2", "152V2"),
    "ResNetRS": ("50", "101", "152", "200", "270", "350", "420"),
    "VGG": ("16", "19"),
    "Xception": ("",),
}
SMALLEST_INPUTS = {"Inception": 75, "Xception": 71}  # the others take 32
# What else than the output cannot be pruned, by family: the stream of a ConvNeXt stage meets a LayerNormalization.
FREEZES = {"ConvNeXt": "LayerNormalization"}
BUDGETS = {"filters": {"rate": 0.3, "allocation": "uniform"}, "macs": {"max_macs": 0.5, "allocation": "global"}}
SIZE = 32
# Every family with few and narrow blocks: ``(Keras, module, constructor, arguments)``. The module's other names may
# stand in the arguments: they are called with it.
SMALL = {
    "ConvNeXt": ("keras", "convnext", "ConvNeXt", {"depths": [1, 1, 1, 2], "projection_dims": [8, 8, 16, 16]}),
    "DenseNet": ("keras", "densenet", "DenseNet", {"blocks": [2, 2, 2, 2]}),
    "EfficientNet": (
        "keras",
        "efficientnet",
        "EfficientNet",
        {"width_coefficient": 0.5, "depth_coefficient": 0.1, "default_size": SIZE, "name": "efficientnet"},
    ),
    "EfficientNetV2": (
        "tf_keras",
        "efficientnet_v2",
        "EfficientNetV2",
        {
            "width_coefficient": 0.5, "depth_coefficient": 0.1, "default_size": SIZE,
            "model_name": "efficientnetv2-b0",
        },
    ),
    "Inception": ("tf_keras", "inception_v3", "InceptionV3", {}),
    "MobileNet": ("tf_keras", "mobilenet", "MobileNet", {"alpha": 0.25}),
    "MobileNetV2": ("keras", "mobilenet_v2", "MobileNetV2", {"alpha": 0.35}),
    "MobileNetV3": ("tf_keras", "mobilenet_v3", "MobileNetV3Small", {"alpha": 0.75}),
    "NASNet": (
        "tf_keras",
        "nasnet",
        "NASNet",
        {"penultimate_filters": 96, "num_blocks": 1, "stem_block_filters": 8, "skip_reduction": False},
    ),
    "RegNetX": ("tf_keras", "regnet", "RegNet", {"depths": [1, 1, 1, 1], "widths": [16, 16, 24, 24], "group_width": 8,
        "block_type": "X", "default_size": SIZE, "model_name": "regnetx"}),
    "RegNetY": ("tf_keras", "regnet", "RegNet", {"depths": [1, 1, 1, 1], "widths": [16, 16, 24, 24], "group_width": 8,
        "block_type": "Y", "default_size": SIZE, "model_name": "regnety"}),
    "ResNet": ("keras", "resnet", "ResNet", {"preact": False, "use_bias": True,
        "stack_fn": lambda module: lambda x: module.stack_residual_blocks_v1(x, 8, 2, stride1=2, name="two")}),
    "ResNetV2": ("tf_keras", "resnet", "ResNet", {"preact": True, "use_bias": True,
        "stack_fn": lambda module: lambda x: module.stack2(x, 8, 3, name="two")}),
    "ResNetRS": ("tf_keras", "resnet_rs", "ResNetRS", {"depth": 50, "model_name": "small",
        "block_args": [{"input_filters": 16, "num_repeats": 2}, {"input_filters": 16, "num_repeats": 1}]}),
    "VGG": ("tf_keras", "vgg16", "VGG16", {"include_top": False, "pooling": "avg"}),
    "Xception": ("keras", "xception", "Xception", {}),
}  # fmt: skip
# Converting takes most of the time; these are deep at any size, or like another one to the converter.
ONLY_PRUNED = (
    "EfficientNet", "EfficientNetV2", "Inception", "MobileNetV2", "MobileNetV3", "NASNet", "RegNetX", "ResNetRS",
    "ResNetV2", "VGG", "Xception",
)  # fmt: skip

# Squeeze and excitation, groups, residuals. The other families are built of the same ones, of branches, which random
# graphs have, and of a LayerNormalization on the stream, as the vision transformer of test_families.py is.
ALWAYS = ("EfficientNet",)


def _cases():
    for family, members in NAMES.items():
        for name in (family + member for member in members):
            for version, kind in itertools.product(("tf_keras", "keras"), BUDGETS):
                if version == "keras" and family in ("RegNetX", "RegNetY", "ResNetRS"):
                    continue  # of Keras 2 only
                yield pytest.param(version, family, name, kind, id=f"{version}-{name}-{kind}")


def _build(version, family, name, classes=10):
    import_tf()
    make = getattr(importlib.import_module(f"{version}.applications"), name)
    size = SMALLEST_INPUTS.get(family, 32)
    known = inspect.signature(make).parameters
    linear = {"classifier_activation": None} if {"classifier_activation", "kwargs"} & known.keys() else {}
    return load_model(make(weights=None, input_shape=(size, size, 3), classes=classes, **linear))


@pytest.mark.parametrize("family", representatives(SMALL, *ALWAYS))
def test_every_family_in_small(family, randomize, train_step, tflite_outputs):
    """Half of the MACs (ConvNeXt, much of which is frozen: 30 %) removed: exact, nothing frozen without need."""
    import tf_keras

    tf_keras.backend.clear_session()
    version, place, name, given = SMALL[family]
    module = importlib.import_module(f"{version}.src.applications.{place}")
    arguments = {key: value(module) if callable(value) else value for key, value in given.items()}
    size = SMALLEST_INPUTS.get(family, SIZE)
    if "include_top" not in arguments:
        arguments |= {"classes": 10, "classifier_activation": None}
    made = getattr(module, name)(weights=None, input_shape=(size, size, 3), **arguments)
    model = randomize(load_model(made))
    _refuse_other_freezes(model, family)
    limit = 0.7 if family == "ConvNeXt" else 0.5
    found = prune_filters(model, max_macs=limit)
    assert found.difference < 1e-4
    assert abs(count(found.model).macs / count(model).macs - limit) <= 0.02
    if family not in ONLY_PRUNED:
        _convert_and_train(found.model, train_step, tflite_outputs)


def _refuse_other_freezes(model, family):
    frozen = {group.frozen for group in analyse(model).groups if group.frozen} - {"output of the model"}
    assert all(FREEZES.get(family, "no reason") in reason for reason in frozen)


def _convert_and_train(model, train_step, tflite_outputs):
    inputs = surgery.random_inputs(model, 1, samples=1)
    expected = model(inputs, training=False).numpy()
    (output,) = tflite_outputs(model, inputs)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    train_step(model)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "family", "name", "kind"), list(_cases()))
def test_application(version, family, name, kind, randomize, train_step, tflite_outputs):
    """30 % of the filters, and half of the MACs: the oracle holds, a training step works, the .tflite agrees."""
    import tf_keras

    tf_keras.backend.clear_session()
    model = randomize(_build(version, family, name))
    _refuse_other_freezes(model, family)
    found = prune_filters(model, **BUDGETS[kind])
    before, after = count(model), count(found.model)
    if kind == "filters":
        assert after.params < 0.85 * before.params
    else:  # where a DenseNet computes most, at its beginning, it has few of its parameters
        assert abs(after.macs / before.macs - 0.5) <= 0.02
        assert after.params < before.params
    _convert_and_train(found.model, train_step, tflite_outputs)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["tf_keras", "keras"])
def test_all_constructors_are_listed(version):
    """The matrix has every constructor that the installed Keras has."""
    import_tf()
    module = importlib.import_module(f"{version}.applications")
    there = {name for name in dir(module) if inspect.isfunction(getattr(module, name))}
    assert there <= {family + member for family, members in NAMES.items() for member in members}
