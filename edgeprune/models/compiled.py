"""What a model was compiled with, per output: read from files and models, and given to copies.

A compile information is kept as configurations (JSON), never as objects, until a task is made of it
(:mod:`edgeprune.tasks.resolve`), so that a loss which cannot be restored is known by name and can be asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from edgeprune.files import JsonObject
from edgeprune.models.safety import find_unsafe
from edgeprune.models.types import AnyModel, ConfigValue, CustomObjects

if TYPE_CHECKING:
    import tf_keras

_KEYS = ("loss", "loss_weights", "metrics", "weighted_metrics")
# Keras chooses the function behind these names by the shapes of labels and outputs.
BY_SHAPE = ("accuracy", "acc", "crossentropy", "ce")
_CHOSEN = {"accuracy", "crossentropy"}  # what ends the names of the functions that it chooses among

# What Keras compiles with: a loss or metric as a name, function or object.
Loaded = Any
What = Literal["losses", "metrics"]


@dataclasses.dataclass(frozen=True)
class CompiledOutput:
    """What one output was compiled with.

    Attributes:
        loss: a name or configuration; None: this output has no loss.
        weight: of the loss.
        metrics, weighted_metrics: names or configurations; the latter count weights of samples.
    """

    loss: ConfigValue = None
    weight: float = 1.0
    metrics: tuple[ConfigValue, ...] = ()
    weighted_metrics: tuple[ConfigValue, ...] = ()


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The outputs of a model as its user knows them, and what they were compiled with.

    Attributes:
        names: of each output: its key where the model returns a dict, then the name of its layer.
        outputs: in the order of ``names``; None: the model was not compiled.
    """

    names: tuple[tuple[str, ...], ...]
    outputs: tuple[CompiledOutput, ...] | None = None

    @staticmethod
    def of(training: Mapping[str, ConfigValue] | None, names: Sequence[tuple[str, ...]], keras: int) -> Compiled:
        """Sort a compile configuration by output.

        Args:
            training: what Keras saves: names or configurations, nested as the user gave them; or None.
            names: of each output, see above.
            keras: 2 or 3: they read flat lists differently, and Keras 2 saves metrics under the names of outputs.
        """
        known = tuple(names)
        if not training or all(training.get(key) in (None, [], {}) for key in ("loss", "metrics", "weighted_metrics")):
            return Compiled(known)
        losses = _spread(training.get("loss"), known)
        weights = _spread(training.get("loss_weights"), known)
        metrics = {key: _spread_metrics(training.get(key), known, keras) for key in ("metrics", "weighted_metrics")}
        return Compiled(
            known,
            tuple(
                CompiledOutput(
                    losses[i],
                    float(weights[i]) if isinstance(weights[i], int | float) else 1.0,
                    *(tuple(metrics[key][i]) for key in ("metrics", "weighted_metrics")),
                )
                for i in range(len(known))
            ),
        )

    @staticmethod
    def of_model(model: tf_keras.Model) -> Compiled:
        """Of a tf_keras model in memory."""
        return Compiled.of(live_config(model), output_names(model), 2)

    def to_json(self) -> JsonObject:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Compiled:
        outputs = document["outputs"]
        return Compiled(
            tuple(tuple(names) for names in document["names"]),
            None if outputs is None else tuple(_output_from_json(output) for output in outputs),
        )


def _output_from_json(output: Mapping[str, Any]) -> CompiledOutput:
    return CompiledOutput(output["loss"], output["weight"], tuple(output["metrics"]), tuple(output["weighted_metrics"]))


def output_names(model: AnyModel) -> list[tuple[str, ...]]:
    """The names of each output of a functional model: its key in a dict of outputs first, then its layer's name."""
    structure = getattr(model, "_nested_outputs", None)
    if structure is None:  # Keras 3
        structure = getattr(model, "_outputs_struct", None)
    layers = [tensor._keras_history[0].name for tensor in model.outputs]
    names = list(model.output_names) if len(model.output_names) == len(layers) else layers
    # Both Kerases order the outputs of a dict by key.
    keys = sorted(structure) if isinstance(structure, dict) and len(structure) == len(layers) else names
    return [tuple(dict.fromkeys(together)) for together in zip(keys, names, layers, strict=True)]


def _is_leaf(config: ConfigValue) -> bool:
    return not isinstance(config, list | tuple | dict) or (isinstance(config, dict) and "class_name" in config)


def _spread(config: ConfigValue, names: Sequence[tuple[str, ...]]) -> list[ConfigValue]:
    """One loss or weight per output, out of one for all, a list or a dict."""
    if isinstance(config, list | tuple):
        return [*config, *[None] * len(names)][: len(names)]
    if isinstance(config, dict) and not _is_leaf(config):
        return [next((config[name] for name in own if name in config), None) for own in names]
    return [config] * len(names)


def _spread_metrics(config: ConfigValue, names: Sequence[tuple[str, ...]], keras: int) -> list[list[ConfigValue]]:
    """The metrics of each output."""
    if config is None:
        return [[] for _ in names]
    per_output: list[ConfigValue]
    if isinstance(config, list | tuple):
        nested = any(isinstance(item, list | tuple) or not _is_leaf(item) for item in config)
        by_position = len(names) > 1 and (nested or None in config or (keras == 3 and len(config) == len(names)))
        if len(names) == 1 and nested:
            per_output = [[leaf for item in config for leaf in (item if isinstance(item, list | tuple) else [item])]]
        else:
            per_output = _spread(config, names) if by_position else [list(config)] * len(names)
    else:
        per_output = _spread(config, names)
    listed = [item if isinstance(item, list | tuple) else [item] for item in per_output]
    return [
        [
            _named_class(leaf) if keras == 3 else _renamed(leaf, own if len(names) > 1 else ())
            for leaf in items
            if leaf is not None
        ]
        for own, items in zip(names, listed, strict=True)
    ]


def _named_class(config: ConfigValue) -> ConfigValue:
    """A metric that its class names, "AUC": Keras 3 reports it under that name, Keras 2 under the class's own."""
    import keras

    if isinstance(config, str) and inspect.isclass(getattr(keras.metrics, config, None)):
        return {"class_name": config, "config": {"name": config}}
    return _renamed(config, ())


def _renamed(config: ConfigValue, outputs: Sequence[str]) -> ConfigValue:
    """A metric under the user's name for it: tf_keras puts the output's name before it, and saves it like that.

    Formats older than ``.keras`` also save the function that Keras chose for "accuracy" and "crossentropy", before it
    had seen labels.
    """
    inner = config.get("config") if isinstance(config, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return config
    name = inner["name"]
    for output in outputs:
        name = name.removeprefix(f"{output}_") or name
    function = inner.get("fn")
    if name in BY_SHAPE and isinstance(function, str) and function.rpartition("_")[2] in _CHOSEN:
        return name
    return {**config, "config": {**inner, "name": name}}


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
        config = live_config(source)
    return {key: config.get(key) for key in _KEYS} if config else None


class Unknown(Exception):
    """A loss or metric that cannot be restored.

    Attributes:
        name: what the model calls it.
        reason: why not, in words.
    """

    def __init__(self, name: str, reason: str):
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")


def restore(config: ConfigValue, what: What, objects: CustomObjects | None = None) -> Loaded:
    """Make the loss or metric of a configuration, with all its arguments.

    Args:
        config: a name, or a configuration with ``class_name``.
        what: in which of Keras' modules it stands.
        objects: the user's own functions and classes by name.

    Returns:
        A function, or an object of tf_keras; of Keras 3 where tf_keras has no such class, or does not know one of its
        arguments. A name of ``BY_SHAPE`` stays a name.

    Raises:
        Unknown: neither Keras nor ``objects`` have it, or its arguments do not fit.
    """
    function = _function_name(config)
    own = {*(objects or {}), *_registered()}
    strange = (found for found in find_unsafe(config) if found.name not in own)
    unsafe = next((found for found in strange if found.name not in _of_keras3_alone(what)), None)
    if unsafe is not None and function is None:
        raise Unknown(name_of(config), f"it needs {unsafe.name}, which tf_keras does not have")
    if function is None:
        return _restored_object(config, what, objects or {})
    if what == "metrics" and isinstance(config, str) and function.lower() in BY_SHAPE:
        return function.lower()
    found = (objects or {}).get(function) or _found(function, what)
    if found is None:
        raise Unknown(function, f"neither Keras has a function or class {function!r}")
    if inspect.isclass(found):
        try:
            return found()
        except TypeError as error:
            raise Unknown(function, _line(error)) from None
    return found


def _of_keras3_alone(what: What) -> set[str]:
    """The names of the losses or metrics that tf_keras does not have."""
    import keras
    import tf_keras

    return set(vars(getattr(keras, what))) - set(vars(getattr(tf_keras, what))) - {"get", "serialize", "deserialize"}


def _registered() -> CustomObjects:
    """What the program has registered with tf_keras, by name, with and without its package."""
    import tf_keras

    registered = tf_keras.saving.get_custom_objects()
    return {**registered, **{name.rpartition(">")[2]: value for name, value in registered.items()}}


def name_of(config: ConfigValue) -> str:
    """The name of a loss or metric, for people."""
    inner = config.get("config") if isinstance(config, dict) else config
    return str((inner.get("name") or config["class_name"]) if isinstance(inner, dict) else inner)[:100]


def _function_name(config: ConfigValue) -> str | None:
    """The name, where a configuration is no more than a name."""
    if isinstance(config, str):
        return config
    if isinstance(config, dict) and config.get("class_name") == "function" and isinstance(config.get("config"), str):
        return config["config"]
    return None


def _found(name: str, what: What) -> Loaded:
    """A function or class by its name in either Keras or among what is registered; None: there is none."""
    if (own := _registered().get(name)) is not None:
        return own
    if name in ("get", "serialize", "deserialize"):  # of the modules, but no losses
        return None
    for keras in _kerases():
        if not name.startswith("_") and callable(found := getattr(getattr(keras, what), name, None)):
            return found
    for keras in _kerases():  # aliases such as "MSE" or "huber_loss"
        try:
            found = getattr(keras, what).get(name)
        except (ValueError, TypeError):
            continue
        if found is not None and not isinstance(found, str):
            return found
    return None


def _kerases(*, first: Literal[2, 3] = 2) -> Iterator[ModuleType]:
    """Both of them, one by one: Keras 3 takes seconds to import, and most names are in Keras 2."""
    for name in ("tf_keras", "keras") if first == 2 else ("keras", "tf_keras"):
        yield importlib.import_module(name)


def _restored_object(config: ConfigValue, what: What, objects: CustomObjects) -> Loaded:
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise Unknown(str(config)[:100], "it is no configuration of Keras")
    name, inner = config["class_name"], config.get("config")
    arguments = {k: v for k, v in inner.items() if k != "fn"} if isinstance(inner, dict) else {}
    if isinstance(inner, dict) and "fn" in inner and name in _WRAPPERS:
        return _wrapped(name, restore(inner["fn"], what, objects), arguments, inner, what)
    registered = _registered()
    own = objects.get(name) or registered.get(config.get("registered_name") or name) or registered.get(name)
    # A loss object may stand for a metric; no metric has a reduction.
    places = "losses" if "reduction" in arguments else what
    # Keras 3 counts intersections in integers, weights included.
    kerases = _kerases(first=3 if str(arguments.get("dtype")).startswith("int") else 2)
    candidates = [own] if own else (getattr(getattr(keras, places), name, None) for keras in kerases)
    reason = f"neither Keras has a class {name!r}"
    for found in (candidate for candidate in candidates if inspect.isclass(candidate)):
        # Losses of tf_keras have no type of their own.
        dropped = {"dtype"} if places == "losses" and found.__module__.startswith("tf_keras") else set()
        try:
            return found.from_config(  # type: ignore[attr-defined]
                {key: value for key, value in arguments.items() if key not in dropped}
            )
        # A class of the user's may fail in any way.
        except Exception as error:
            reason = _line(error)
    raise Unknown(name_of(config), reason)


# Classes of Keras around a function; others that are made of one only mention it.
_WRAPPERS = ("LossFunctionWrapper", "MeanMetricWrapper")


def _wrapped(name: str, function: Loaded, arguments: JsonObject, inner: JsonObject, what: What) -> Loaded:
    """A function that a class of Keras carries, with the arguments that it is called with."""
    import tf_keras

    known = {"name", "dtype", "reduction"}
    extra = {key: value for key, value in arguments.items() if key not in known}
    if what == "metrics":
        return tf_keras.metrics.MeanMetricWrapper(function, name=arguments.get("name"), **extra)
    from tf_keras.src.losses import LossFunctionWrapper

    return LossFunctionWrapper(function, arguments.get("reduction") or "auto", arguments.get("name"), **extra)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def live_objects(model: AnyModel) -> CustomObjects:
    """The user's functions, objects and classes that a model in memory was compiled with, by the names under which
    :func:`live_config` has them."""
    return _live(model)[1]


def live_config(model: AnyModel) -> JsonObject | None:
    """What a model in memory was compiled with, as Keras would save it; None: it is not compiled.

    Two functions of one name, which Keras would save alike, have two names here, and so has a function with the name of
    one of Keras'. Classes, which Keras 3 cannot save, become objects.
    """
    return _live(model)[0]


def _live(model: AnyModel) -> tuple[JsonObject | None, CustomObjects]:
    given = getattr(getattr(model, "_compile_config", None), "config", None)
    if given is None:
        return model.get_compile_config() or None, {}
    objects: dict[str, Any] = {}
    return {key: _live_leaves(given.get(key), key, objects, _serializer(model)) for key in _KEYS}, objects


def _serializer(model: AnyModel) -> Callable[[Any], ConfigValue]:
    import tf_keras

    if isinstance(model, tf_keras.Model):
        return tf_keras.saving.serialize_keras_object
    import keras

    return keras.saving.serialize_keras_object


def _live_leaves(item: Any, key: str, objects: dict[str, Any], serialize: Callable[[Any], ConfigValue]) -> ConfigValue:
    if isinstance(item, Mapping):
        return {name: _live_leaves(value, key, objects, serialize) for name, value in item.items()}
    if isinstance(item, list | tuple):
        return [_live_leaves(value, key, objects, serialize) for value in item]
    if not callable(item):
        return item
    if of_keras(item):
        carried = getattr(item, "fn", None) or getattr(item, "_fn", None)
        if inspect.isfunction(carried) and not of_keras(carried):
            objects.setdefault(carried.__name__, carried)
        made = item() if inspect.isclass(item) else item
        return _with_arguments(serialize(made), made)
    if hasattr(item, "update_state"):  # a metric counts, so that each use needs a fresh one
        objects[type(item).__name__] = type(item)
        return serialize(item)
    name = getattr(item, "__name__", None) or type(item).__name__
    unique, number = name, 1
    while objects.get(unique, item) is not item or _found(unique, "losses" if key == "loss" else "metrics") is not None:
        number += 1
        unique = f"{name}_{number}"
    objects[unique] = item
    return {"class_name": "function", "config": unique}


def _with_arguments(config: ConfigValue, made: Any) -> ConfigValue:
    """The configuration with what Keras 3 leaves out of it, such as the delta of its Huber loss."""
    inner = config.get("config") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(inner, dict):
        return config
    taken = inspect.signature(type(made)).parameters
    missing = {
        key: value
        for key, value in (getattr(made, "_fn_kwargs", None) or {}).items()
        if key in taken and key not in inner and isinstance(value, bool | int | float | str)
    }
    return {**config, "config": {**inner, **missing}}


def of_keras(thing: Any) -> bool:
    """Whether one of the Kerases defines a function, class or object; what it carries does not count."""
    named = thing if hasattr(thing, "__name__") else type(thing)
    return str(named.__module__).split(".")[0] in ("keras", "tf_keras")


def compile_as(
    model: tf_keras.Model, compiled: Compiled, objects: CustomObjects | None = None
) -> list[tuple[str, Unknown]]:
    """Compile ``model`` with the losses and metrics that its file states, as far as they can be restored.

    The optimizer is not restored (a plain SGD takes its place): fine-tuning brings its own. A metric that cannot be
    restored is left out; without one of its losses, the model stays uncompiled.

    Returns:
        What was left out: "loss" or "metric", and why.
    """
    left_out: list[tuple[str, Unknown]] = []
    if compiled.outputs is None or all(output.loss is None for output in compiled.outputs):
        return left_out
    try:
        losses = [_for_keras2(output.loss, "losses", objects) for output in compiled.outputs]
    except Unknown as error:
        return [("loss", error)]
    metrics: dict[str, list[list[Loaded]]] = {"metrics": [], "weighted_metrics": []}
    for output in compiled.outputs:
        for key, made in metrics.items():
            made.append([])
            for config in getattr(output, key):
                try:
                    made[-1].append(_for_keras2(config, "metrics", objects))
                except Unknown as error:
                    left_out.append(("metric", error))
    weights = None if len(losses) == 1 else [output.weight for output in compiled.outputs]

    def structured(per_output: list[Any] | None) -> Any:
        """In the structure of the model's outputs."""
        if per_output is None or len(losses) == 1:
            return per_output and per_output[0]
        keys = sorted(model._nested_outputs) if isinstance(model._nested_outputs, dict) else None
        return dict(zip(keys, per_output, strict=True)) if keys else per_output

    model.compile(
        optimizer="sgd",
        loss=structured(losses),
        loss_weights=structured(weights),
        **{key: structured(made) if any(made) else None for key, made in metrics.items()},
    )
    return left_out


def _for_keras2(config: ConfigValue, what: What, objects: CustomObjects | None) -> Loaded:
    """What tf_keras can compile with; names stay names."""
    if config is None:
        return None
    loaded = restore(config, what, objects)
    if type(loaded).__module__.split(".")[0] == "keras":
        raise Unknown(name_of(config), "only Keras 3 has it")
    return config if isinstance(config, str) else loaded


def compile_like(new: tf_keras.Model, model: tf_keras.Model) -> None:
    """Compile ``new`` with loss and metrics of ``model`` and a new optimizer of its settings, if that was compiled."""
    if not getattr(model, "_is_compiled", False):
        return
    arguments = model._get_compile_args(user_metrics=True)
    renamed = dict(zip(model.output_names, new.output_names, strict=True))
    for key in _KEYS:
        arguments[key] = rename_outputs(arguments.get(key), renamed)
    optimizer = arguments["optimizer"]
    arguments["optimizer"] = type(optimizer).from_config(optimizer.get_config())
    new.compile(**arguments)


def rename_outputs(by_output: Loaded, renamed: dict[str, str]) -> Loaded:
    """Losses or metrics keyed by output, under the new names of the outputs."""
    if isinstance(by_output, dict) and "class_name" not in by_output:
        return {renamed.get(name, name): value for name, value in by_output.items()}
    return by_output
