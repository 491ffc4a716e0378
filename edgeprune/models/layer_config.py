"""A layer of one Keras → the same layer of the other: what the two directions have in common.

A configuration key that the other Keras does not know is left out only if it has no effect, or has the value that
switches its effect off (``None`` does); else it is an error that names it. Initializers are left out, because weights
are copied.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.models.types import Config, ConfigValue, Operation, Variable

if TYPE_CHECKING:
    import keras

AnyVariable: TypeAlias = "Variable | keras.Variable"
# Weights that both make in the same order under different names. Weights without a name are called "variable".
_SAME_WEIGHT_NAMES = [{"kernel", "depthwise_kernel"}, {"vector_u", "sn_u"}]


@dataclasses.dataclass(frozen=True)
class Direction:
    """The tables of one direction.

    Attributes:
        target: the name of the other Keras, for messages.
        find: class name → class of the other Keras, or ``None``.
        source_layers: module with the layer classes of this Keras, whose defaults the other Keras shares.
        spaces: modules of the other Keras with regularizers and constraints.
        renamed: class name → key → key.
        without_effect: keys that do not change what a layer computes.
        off: keys of effects that the other Keras does not have, with the values that switch them off.
        undeclared: class name → arguments that it takes without declaring them.
        activation: ``(name, layer) -> what the other Keras takes``; raises a ModelError for those it does not have.
        unknown_class: ``(layer, class name) -> error``.
    """

    target: str
    find: Callable[[str], type | None]
    source_layers: ModuleType
    spaces: Sequence[ModuleType]
    renamed: Mapping[str, Mapping[str, str]]
    without_effect: frozenset[str]
    off: Mapping[str, object]
    undeclared: Mapping[str, set[str]]
    activation: Callable[[str, str], str | Callable[..., object]]
    unknown_class: Callable[[str, str], ModelError]


def construct(direction: Direction, class_name: str, source: type | None, config: Config) -> Operation:
    """Make a layer of the other Keras from a configuration; layers in it are made the same way.

    Args:
        source: the class that the configuration is of, if it is known.
        config: with the entries ``name`` and ``dtype``, the latter a name.

    Raises:
        ModelError: the class, a key or a value has no counterpart.
    """
    target = direction.find(class_name)
    if target is None:
        raise direction.unknown_class(config["name"], class_name)
    known = _parameters(target, direction)
    off = ({} if source is None else _defaults(source)) | dict(direction.off)
    renamed = direction.renamed.get(class_name, {})
    kept: Config = {}
    for key, value in config.items():
        new_key = renamed.get(key, key)
        if key.endswith("_initializer") or key in direction.without_effect - known:
            continue
        if new_key in known:
            kept[new_key] = _value(direction, value, key, config["name"])
        elif value is not None and not (key in off and off[key] == value):
            raise ModelError(
                f"The layer {config['name']!r} ({class_name}) has {key}={value!r}, which {direction.target} does not "
                "know.",
                expected=f"arguments that {direction.target} has too",
                fix=f"build the layer without {key}, or with one that both Kerases have; or write {class_name} for "
                f"{direction.target} as well, under @{direction.target}.saving.register_keras_serializable("
                f'name="{class_name}"), in the Python file for --custom-objects FILE.py --trust-model.',
            )
    with refused_by(direction.target, config["name"], class_name):
        return target(**kept)


@contextlib.contextmanager
def refused_by(target: str, name: str, class_name: str) -> Iterator[None]:
    """Whatever a Keras raises when it makes or calls a layer becomes one error that names the layer."""
    try:
        yield
    except EdgepruneError:
        raise
    # A layer's code may refuse its arguments in any way; nothing goes on without the layer.
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(
            f"{target} refuses the layer {name!r} ({class_name}): {said}",
            expected="a layer that means the same in both Kerases",
            fix="compose it from other layers.",
        ) from error


def read_config(layer: Operation) -> Config:
    """The configuration of a layer of either Keras."""
    # A user's class may have a get_config that fails in any way.
    try:
        return dict(layer.get_config())
    except Exception as error:
        raise ModelError(
            f"The layer {layer.name!r} ({type(layer).__name__}) has a get_config() that fails: {error}",
            expected="a layer that can be saved",
            fix="give its class a get_config() that returns the arguments of its constructor.",
        ) from error


def function_name(value: ConfigValue) -> str | None:
    """The name of a function in a configuration; ``None`` if the value is something else."""
    if isinstance(value, dict):
        value = value.get("config") if value.get("class_name") == "function" else None
    return value if isinstance(value, str) else None


def _value(direction: Direction, value: ConfigValue, key: str, layer: str) -> ConfigValue:
    """A configuration value: nested layers, regularizers and constraints become objects of the other Keras."""
    if isinstance(value, list | tuple):
        return type(value)([_value(direction, item, key, layer) for item in value])
    if "activation" in key and (name := function_name(value)) is not None:
        return direction.activation(name, layer)
    if not (isinstance(value, dict) and "class_name" in value):
        return value
    class_name, config = value["class_name"], value["config"]
    if class_name in ("__numpy__", "__tensor__"):
        return np.asarray(config["value"], config["dtype"])
    for space in direction.spaces:
        if key.endswith(space.__name__.rpartition(".")[2].removesuffix("s")) and hasattr(space, class_name):
            return getattr(space, class_name)(**config)
    own = direction.find(class_name) if key.endswith(("regularizer", "constraint")) else None
    if own is not None:
        return own(**config)
    if isinstance(config, dict) and "name" in config:
        policy = config.get("dtype")
        dtype = policy["config"]["name"] if isinstance(policy, dict) else policy
        source = getattr(direction.source_layers, class_name, None)
        return construct(direction, class_name, source, {**config, "dtype": dtype})
    raise ModelError(
        f"The layer {layer!r} has {key}={class_name}, which {direction.target} does not have.",
        expected=f"regularizers, constraints and layers of {direction.target}",
        fix=f"build the layer without {key}, or with one that both Kerases have; or write {class_name} for "
        f"{direction.target} as well, under @{direction.target}.saving.register_keras_serializable("
        f'name="{class_name}"), in the Python file for --custom-objects FILE.py --trust-model.',
    )


def _parameters(target: type, direction: Direction) -> set[str]:
    """The keys that a class accepts: arguments of its constructor, and of those that its ``**kwargs`` go on to."""
    known: set[str] = set()
    for base in target.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
            known |= set(parameters) | direction.undeclared.get(base.__name__, set())
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                break
    return known - {"self", "args", "kwargs"}


def _defaults(source: type) -> dict[str, object]:
    """Default values of a class's arguments: a Keras that lacks an argument does what its default says."""
    parameters = inspect.signature(source.__init__).parameters.values()  # type: ignore[misc]
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def matching_weights(old: Operation, new: Operation) -> list[np.ndarray]:
    """The weights of a layer, in the order of the built layer of the other Keras that stands for it.

    Raises:
        ModelError: they do not correspond one to one.
    """
    sources, targets = list(old.weights), list(new.weights)
    if not _correspond(sources, targets):
        by_name = {_leaf(source): source for source in sources}
        sources = [by_name[_leaf(target)] for target in targets if _leaf(target) in by_name]
        if len(by_name) != len(old.weights) or not _correspond(sources, targets):
            raise ModelError(
                f"The weights of the layer {old.name!r} ({type(old).__name__}) do not correspond to those of the same "
                f"layer in the other Keras: {_described(old.weights)} and {_described(targets)}.",
                expected="the same weights, by name and shape",
                fix="replace it by another layer of keras.layers.",
            )
    return [np.asarray(source) for source in sources]


def _correspond(sources: Sequence[AnyVariable], targets: Sequence[AnyVariable]) -> bool:
    return len(sources) == len(targets) and all(
        tuple(source.shape) == tuple(target.shape) and _same_name(_leaf(source), _leaf(target))
        for source, target in zip(sources, targets, strict=True)
    )


def _same_name(one: str, other: str) -> bool:
    unnamed = any(name.rstrip("_0123456789") == "variable" for name in (one, other))
    return one == other or unnamed or {one, other} in _SAME_WEIGHT_NAMES


def _leaf(variable: AnyVariable) -> str:
    return getattr(variable, "path", variable.name).split("/")[-1].split(":")[0]


def _described(weights: Sequence[AnyVariable]) -> str:
    return ", ".join(f"{_leaf(weight)} {tuple(weight.shape)}" for weight in weights)
