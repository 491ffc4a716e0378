"""The description of an ``.h5`` file of Keras 2.0 to 2.3 → the same in the terms of tf_keras.

What tf_keras would read as something else, or build for a GPU only. It converts the weights itself: of cuDNN's layers
to those of LSTM and GRU, and of any older version of a layer (``preprocess_weights_for_loading``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from edgeprune.errors import ModelError
from edgeprune.files import JsonObject
from edgeprune.models.types import ConfigValue

_log = logging.getLogger(__name__)

# Class → the class that runs without cuDNN, and what cuDNN computes.
_SAME: Mapping[str, tuple[str, JsonObject]] = {
    "CuDNNLSTM": ("LSTM", {"activation": "tanh", "recurrent_activation": "sigmoid"}),
    "CuDNNGRU": ("GRU", {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}),
}
# Class → what a description means that does not say it: the default was another one.
_OLD_DEFAULTS: Mapping[str, JsonObject] = {"GRU": {"reset_after": False}}
# Options and classes that ended with Keras 1.
_KERAS1_OPTIONS = {"nb_filter", "border_mode", "dim_ordering", "output_dim", "input_dtype", "inner_init", "bias"}
_KERAS1_CLASSES = {"Merge", "Highway", "MaxoutDense", "AtrousConvolution2D", "TimeDistributedDense"}
# Layers of Keras with these options; a class of the user's may have options of the same names.
_WITH_OPTIONS = {
    *("InputLayer", "Dense", "LSTM", "GRU", "SimpleRNN", "LocallyConnected1D", "LocallyConnected2D"),
    *(f"Convolution{axes}D" for axes in (1, 2, 3)),
    *("SeparableConvolution2D", "Deconvolution2D", "MaxPooling1D", "MaxPooling2D", "AveragePooling1D"),
    *("AveragePooling2D", "Conv1D", "Conv2D"),
}


def in_new_terms(config: ConfigValue) -> ConfigValue:
    """The description with cuDNN's layers as those that run anywhere, old defaults written out, and plain numbers."""
    if isinstance(config, list):
        return [in_new_terms(item) for item in config]
    if not isinstance(config, dict):
        return config
    if config.get("type") == "ndarray" and set(config) == {"type", "value"}:
        return config["value"]
    config = {key: in_new_terms(value) for key, value in config.items()}
    name, inner = config.get("class_name"), config.get("config")
    if not isinstance(name, str) or not isinstance(inner, dict):
        return config
    if name in _SAME:
        _log.warning("The layer %r is a %s: read as %s, which needs no GPU.", inner.get("name"), name, _SAME[name][0])
    name, fixed = _SAME.get(name, (name, {}))
    return {**config, "class_name": name, "config": {**_OLD_DEFAULTS.get(name, {}), **inner, **fixed}}


def explained(error: ModelError, path: Path, version: str, config: ConfigValue) -> ModelError:
    """The error for a file that did not open: as it is, or that it is of Keras 1, if only that explains it."""
    found = _of_keras1(config)
    numbered = version.startswith(("0.", "1."))
    if found is None and not numbered:
        return error
    return ModelError(
        f"{path} was written by Keras {version if numbered else '1'}"
        + (f" ({found})" if found else "")
        + ", whose layers have other names and options than those of Keras 2.",
        expected="a model of Keras 2 or 3",
        fix="load it in Python with keras==2.2.4, which still reads such files (on TensorFlow 1 and Python 3.7), and "
        "save it again with model.save('NAME.h5').",
    )


def _of_keras1(config: ConfigValue) -> str | None:
    """What in a description only Keras 1 has."""
    import tf_keras

    if isinstance(config, list):
        return next(filter(None, map(_of_keras1, config)), None)
    if not isinstance(config, dict):
        return None
    name, inner = config.get("class_name"), config.get("config")
    if isinstance(name, str) and isinstance(inner, dict) and tf_keras.saving.get_registered_object(name) is None:
        if name in _KERAS1_CLASSES:
            return f"the layer {name}"
        if name in _WITH_OPTIONS and (option := next(iter(sorted(_KERAS1_OPTIONS & set(inner))), None)):
            return f"the layer {name} with the option {option}"
    return next(filter(None, map(_of_keras1, config.values())), None)
