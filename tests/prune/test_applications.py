"""Every architecture of keras.applications, in both Keras versions: pruned two ways, exact, trainable, convertible."""

import importlib
import inspect
import itertools

import numpy as np
import pytest

from edgeprune._tensorflow import import_tf
from edgeprune.models.count import count
from edgeprune.models.load import load_model
from edgeprune.prune import surgery
from edgeprune.prune.filters import prune_filters
from edgeprune.prune.graph import analyse

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
# In the default suite; all others are the long matrix. Each case builds its network four times.
QUICK = (("tf_keras", "MobileNet", "macs"), ("keras", "ConvNeXtTiny", "filters"), ("tf_keras", "VGG16", "macs"))


def _cases():
    for family, members in NAMES.items():
        for name in (family + member for member in members):
            for version, kind in itertools.product(("tf_keras", "keras"), BUDGETS):
                if version == "keras" and family in ("RegNetX", "RegNetY", "ResNetRS"):
                    continue  # of Keras 2 only
                marks = () if (version, name, kind) in QUICK else pytest.mark.slow
                yield pytest.param(version, family, name, kind, marks=marks, id=f"{version}-{name}-{kind}")


def _build(version, family, name, classes=10):
    import_tf()
    make = getattr(importlib.import_module(f"{version}.applications"), name)
    size = SMALLEST_INPUTS.get(family, 32)
    known = inspect.signature(make).parameters
    linear = {"classifier_activation": None} if {"classifier_activation", "kwargs"} & known.keys() else {}
    return load_model(make(weights=None, input_shape=(size, size, 3), classes=classes, **linear))


@pytest.mark.parametrize(("version", "family", "name", "kind"), list(_cases()))
def test_application(version, family, name, kind, randomize, train_step, tflite_outputs):
    """30 % of the filters, and half of the MACs: the oracle holds, a training step works, the .tflite agrees."""
    import tf_keras

    tf_keras.backend.clear_session()
    model = randomize(_build(version, family, name))
    frozen = {group.frozen for group in analyse(model).groups if group.frozen} - {"output of the model"}
    assert all(FREEZES.get(family, "no reason") in reason for reason in frozen)
    found = prune_filters(model, **BUDGETS[kind])
    before, after = count(model), count(found.model)
    assert after.params < 0.85 * before.params
    if kind == "macs":
        assert abs(after.macs / before.macs - 0.5) <= 0.02
    inputs = surgery.random_inputs(found.model, 1, samples=1)
    expected = found.model(inputs, training=False).numpy()
    (output,) = tflite_outputs(found.model, inputs)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    train_step(found.model)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["tf_keras", "keras"])
def test_all_constructors_are_listed(version):
    """The matrix has every constructor that the installed Keras has."""
    import_tf()
    module = importlib.import_module(f"{version}.applications")
    there = {name for name in dir(module) if inspect.isfunction(getattr(module, name))}
    assert there <= {family + member for family, members in NAMES.items() for member in members}
