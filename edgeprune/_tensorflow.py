"""Importing TensorFlow quietly, and with Keras 2 behind ``tf.keras``."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
from types import ModuleType

from edgeprune.chatter import without_lines
from edgeprune.errors import MissingError

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_SILENT = "3"
_QUIET = {_LOG_LEVEL: _SILENT, "GRPC_VERBOSITY": "ERROR"}
# TensorFlow leaves oneDNN's kernels off on x86 processors without AVX-512 VNNI; training convolutions on an AVX2
# processor took 0.56 of the time with them (measure: benchmarks/onednn.py).
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# In the environment of a run that goes on after a crash: oneDNN's kernels stay off, whatever else is said.
WITHOUT_ONEDNN = "EDGEPRUNE_WITHOUT_ONEDNN"
# What layers are made with that do not say it themselves, as in files of old versions of Keras: what edgeprune's own
# layers, and kernels on CPUs, take. ~/.keras/keras.json or a program can name others.
DEFAULTS = {"floatx": "float32", "image_data_format": "channels_last"}
_log = logging.getLogger(__name__)
# What the native libraries say while they load, before they have read the log level: absl's preamble, anything below
# an error, and the errors about graphics libraries that were registered twice or are not there.
_CHATTER = re.compile(
    r"WARNING: All log messages before absl::InitializeLog"
    r"|(\S+ \S+: )?[IW](\d{4})? "
    r"|(\S+ \S+: )?E(\d{4})? .*(cu[A-Z]\w+|cuda|TensorRT)"
    r"|To enable the following instructions"
)


def import_tf() -> ModuleType:
    """Import TensorFlow without its log on standard error; call it before the first ``import tf_keras``.

    With a lower log level in the environment (``TF_CPP_MIN_LOG_LEVEL``), nothing is hidden. ``tf.keras`` becomes
    Keras 2 (``TF_USE_LEGACY_KERAS``), which is what tensorflow_model_optimization sets for itself when it is imported;
    set here, it does not depend on who comes first. ``import keras`` stays Keras 3.

    Returns:
        the module ``tensorflow``.

    Raises:
        MissingError: edgeprune was installed without the extra ``build``.
    """
    try:
        return _imported()
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise MissingError(
            "This needs TensorFlow, which is not installed.",
            expected="edgeprune with what builds need; looking at a .tflite file needs less.",
            fix="pip install 'edgeprune[build]'",
        ) from None


def _imported() -> ModuleType:
    for name, value in {"TF_USE_LEGACY_KERAS": "1", ONEDNN: "1"}.items():
        os.environ.setdefault(name, value)
    if WITHOUT_ONEDNN in os.environ:
        os.environ[ONEDNN] = "0"
    if "tensorflow" in sys.modules or os.environ.get(_LOG_LEVEL, _SILENT) != _SILENT:
        return importlib.import_module("tensorflow")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with without_lines(_CHATTER):
        tensorflow = importlib.import_module("tensorflow")
    importlib.import_module("absl.logging").set_verbosity("error")
    tensorflow.get_logger().setLevel("ERROR")
    return tensorflow


def keras3_if_loaded() -> ModuleType | None:
    """Keras 3, where something in this process has imported it; else nothing here can be an object of it.

    Importing it takes seconds, with what it brings, and most models are Keras 2.
    """
    keras = sys.modules.get("keras")
    return keras if hasattr(keras, "Model") else None


def use_usual_defaults(config: ModuleType) -> None:
    """Set a Keras to single precision and channels last, for the rest of the process; said if it was set to others.

    Args:
        config: ``tf_keras.backend`` or ``keras.config``.
    """
    for name, value in DEFAULTS.items():
        other = getattr(config, name)()
        if other != value:
            package = config.__name__.partition(".")[0]
            _log.warning("%s has %s=%r, by keras.json or by the program: set to %r.", package, name, other, value)
            getattr(config, f"set_{name}")(value)
