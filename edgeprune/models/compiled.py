"""The loss and metrics that a model was compiled with, read from files and given to copies."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.files import JsonObject
from edgeprune.models.safety import find_unsafe
from edgeprune.models.types import ConfigValue

if TYPE_CHECKING:
    import tf_keras

_KEYS = ("loss", "loss_weights", "metrics", "weighted_metrics")
# Keras picks the variant of these by the loss and the shape of the labels.
_BY_LOSS = {"accuracy", "acc", "crossentropy", "ce"}
_ACCURACIES = {"binary_accuracy", "categorical_accuracy", "sparse_categorical_accuracy"}

# What Keras compiles with: losses or metrics as names, functions or objects; nested as the model's outputs are.
Loaded = Any
Load = Callable[[ConfigValue], Loaded]

_log = logging.getLogger(__name__)


def compile_info(source: str | Path | tf_keras.Model) -> JsonObject | None:
    """Loss and metrics of a model file or model, as Keras configurations; ``None`` when it was not compiled.

    Returns:
        ``{"loss": ..., "loss_weights": ..., "metrics": ..., "weighted_metrics": ...}``, each a JSON value or ``None``:
        a name, a configuration with ``class_name``, or a list or dictionary of those, one per output.

    Raises:
        ModelError: the file is not a model that edgeprune reads.
    """
    if isinstance(source, (str, Path)):
        from edgeprune.models.formats import read_model_file

        config = read_model_file(Path(source)).training
    else:
        config = source.get_compile_config()
    return {key: config.get(key) for key in _KEYS} if config else None


def compile_as(model: tf_keras.Model, training: JsonObject | None) -> None:
    """Compile ``model`` with the loss and metrics that its file states, as far as they can be loaded.

    The optimizer is not restored (a plain SGD takes its place): fine-tuning brings its own. A loss or metric made of
    code, or of a class that is not registered, is left out with a warning in the log; without its loss, the model stays
    uncompiled. The names "accuracy" and "crossentropy" stay names: older formats store the variant that Keras guessed
    before it had seen labels, and that guess can be the wrong one.
    """
    import tf_keras

    if not training or training.get("loss") is None:
        return
    loss = _resolve(training["loss"], tf_keras.losses.get, "loss")
    if _count(loss) < _count(training["loss"]):
        return
    metrics = {key: _resolve(training.get(key), _metric, "metric") for key in ("metrics", "weighted_metrics")}
    model.compile(optimizer="sgd", loss=loss, loss_weights=training.get("loss_weights"), **metrics)


def _metric(config: ConfigValue) -> Loaded:
    import tf_keras

    inner = config.get("config") if isinstance(config, dict) else None
    if isinstance(inner, dict) and inner.get("name") in _BY_LOSS and inner.get("fn") in _ACCURACIES:
        return inner["name"]
    return tf_keras.metrics.get(config)


def _resolve(config: ConfigValue, load: Load, what: str) -> Loaded:
    """Load the leaves (names and configurations) of a nested structure; leaves that cannot be loaded drop out."""
    if isinstance(config, (list, tuple)):
        items = [(item, _resolve(item, load, what)) for item in config]
        # None stands for an output without a loss or metric, and keeps the others in their places.
        return [loaded for item, loaded in items if loaded is not None or item is None]
    if isinstance(config, dict) and "class_name" not in config:
        return {key: _resolve(value, load, what) for key, value in config.items()}
    if config is None:
        return None
    return _load_leaf(config, load, what)


def _load_leaf(config: ConfigValue, load: Load, what: str) -> Loaded:
    try:
        if (unsafe := next(find_unsafe(config), None)) is not None:
            raise ValueError(f"it needs {unsafe.name}, which tf_keras does not have")
        for function in _functions(config):
            # For a function that Keras does not find, it returns the name, and fails only when the name is called.
            if function not in _BY_LOSS and isinstance(load(function), str):
                raise ValueError(f"tf_keras does not have {function!r}")
        return config if isinstance(config, str) else load(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
    message = "The model's %s %s cannot be loaded and is left out: %s. Set [task] %s in the recipe."
    _log.warning(message, what, _name(config), reason, what)
    return None


def _name(config: ConfigValue) -> str:
    inner = config.get("config") if isinstance(config, dict) else config
    return str((inner.get("name") or config["class_name"]) if isinstance(inner, dict) else inner)[:100]


def _functions(config: ConfigValue) -> list[str]:
    """Names of functions in a leaf: the leaf itself, or what its class wraps."""
    if isinstance(config, str):
        return [config]
    inner = config.get("config")
    function = inner.get("fn") if isinstance(inner, dict) else None
    return [function] if isinstance(function, str) else []


def _count(config: Loaded) -> int:
    """Number of losses or metrics in a nested structure; outputs without one do not count."""
    if isinstance(config, (list, tuple)):
        return sum(_count(item) for item in config)
    if isinstance(config, dict) and "class_name" not in config:
        return sum(_count(item) for item in config.values())
    return config is not None


def compile_like(new: tf_keras.Model, model: tf_keras.Model) -> None:
    """Compile ``new`` with loss and metrics of ``model`` and a new optimizer of its settings, if that was compiled."""
    if not getattr(model, "_is_compiled", False):
        return
    arguments = model._get_compile_args(user_metrics=True)
    renamed = dict(zip(model.output_names, new.output_names, strict=True))
    for key in ("loss", "loss_weights", "metrics", "weighted_metrics"):
        arguments[key] = rename_outputs(arguments.get(key), renamed)
    optimizer = arguments["optimizer"]
    arguments["optimizer"] = type(optimizer).from_config(optimizer.get_config())
    new.compile(**arguments)


def rename_outputs(by_output: Loaded, renamed: dict[str, str]) -> Loaded:
    """Losses or metrics keyed by output, under the new names of the outputs."""
    if isinstance(by_output, dict) and "class_name" not in by_output:
        return {renamed.get(name, name): value for name, value in by_output.items()}
    return by_output
