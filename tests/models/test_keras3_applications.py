"""keras.applications of Keras 3, translated; one small member of each kind by default, all of them in the long run."""

import gc

import numpy as np
import pytest

from edgeprune.models import load_model
from edgeprune.models.export import export_keras3

# The smallest input that a family takes, where it is not 32.
SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71, "NASNetMobile": 224, "NASNetLarge": 331}
# constructors that the long run would only repeat at many times the size
HUGE = {"EfficientNetV2L", "ConvNeXtXLarge", "NASNetLarge"}
NAMES = [
    "ConvNeXtBase",
    "ConvNeXtLarge",
    "ConvNeXtSmall",
    "ConvNeXtTiny",
    "ConvNeXtXLarge",
    "DenseNet121",
    "DenseNet169",
    "DenseNet201",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2L",
    "EfficientNetV2M",
    "EfficientNetV2S",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Large",
    "MobileNetV3Small",
    "NASNetLarge",
    "NASNetMobile",
    "ResNet101",
    "ResNet101V2",
    "ResNet152",
    "ResNet152V2",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "VGG19",
    "Xception",
]


def _trained(model):
    """Number of parameters that are trained; the statistics of Normalization become constants."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.slow  # layers of applications are below, all others in test_keras3_layers.py
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("MobileNet", {"alpha": 0.25}), ("MobileNetV3Small", {"minimalistic": True}), ("MobileNetV3Small", {})],
)
def test_a_small_application(name, arguments, keras3, calibrated, tmp_path):
    """Translated, all layer names kept but those of merged activations; exported to Keras 3 again."""
    model = getattr(keras3.applications, name)(weights=None, classes=10, input_shape=(32, 32, 3), **arguments)
    loaded = load_model(calibrated(model))
    assert {layer.name for layer in model.layers} <= {layer.name for layer in loaded.layers}
    assert _trained(loaded) == _trained(model)
    export_keras3(loaded, tmp_path / "back.keras")


def test_convnext_and_inception_resnet_in_small(keras3, keras, calibrated, tmp_path):
    """The layers that applications define for themselves translate, save, load and export."""
    from keras.src.applications.convnext import ConvNeXt
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    base = ConvNeXt(
        [1, 1, 1, 2], [4, 8, 8, 8], 0.2, 1e-6, 32, "tiny", weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    inputs = keras3.Input((32, 32, 3))
    features = base(inputs)
    scaled = CustomScaleLayer(0.3, name="scaled")([features, keras3.layers.Conv2D(8, 1)(features)])
    model = calibrated(keras3.Model(inputs, scaled))
    loaded = load_model(model)
    kinds = {type(layer).__name__ for layer in loaded.layers}
    assert {"LayerScale", "StochasticDepth", "CustomScaleLayer"} <= kinds
    assert not kinds & {"Sequential", "Functional"}
    loaded.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    assert np.array_equal(load_model(tmp_path / "model.keras")(image), loaded(image))
    export_keras3(loaded, tmp_path / "back.keras")


def test_the_list_of_applications_is_complete(keras3):
    """A constructor that a new Keras brings must be added to the long run."""
    found = {name for name in dir(keras3.applications) if name[0].isupper()}
    assert found == set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in HUGE])
def test_every_application(name, keras3, keras, calibrated):
    """Every constructor of keras.applications translates; the loader itself compares the outputs."""
    size = SIZES.get(name, 32)
    model = getattr(keras3.applications, name)(weights=None, classes=10, input_shape=(size, size, 3))
    loaded = load_model(calibrated(model))
    assert _trained(loaded) == _trained(model)
    del model, loaded
    keras3.backend.clear_session()
    keras.backend.clear_session()
    gc.collect()
