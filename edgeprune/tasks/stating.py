"""A resolved task as a recipe states it, so that files without their Keras models are measured by the same figures."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.models.compiled import Loaded
from edgeprune.models.types import ConfigValue
from edgeprune.recipe.config import OutputTaskConfig, TaskConfig, Term
from edgeprune.tasks.metrics import carried, is_kerases

if TYPE_CHECKING:
    from edgeprune.tasks.task import Task

# Of an argument that a saved configuration has as None: what a recipe, which knows no None, says instead. The others
# are None where they are not given.
_NONE = {"reduction": "none"}


def stated(task: Task, config: TaskConfig) -> TaskConfig:
    """``[task]`` of a recipe that resolves to ``task`` where the model's compile information is not known.

    Losses and metrics stand there with all their arguments. Functions of the user's stand there by file and name; one
    that can be imported from nowhere, as it was defined in a running program, is left out.

    Args:
        task: as it was resolved.
        config: the recipe's ``[task]`` that it was resolved from.
    """
    if config.kind == "teacher":
        return config
    if task.training is not task:
        return config.model_copy(update={"kind": "detection"})
    sections = {output.name: output.stated or OutputTaskConfig() for output in task.outputs}
    if len(sections) == 1:
        (section,) = sections.values()
        return TaskConfig(**dict(section), primary=config.primary)
    return TaskConfig(primary=task.name, outputs=sections)


def term_of(config: ConfigValue, loaded: Loaded) -> Term | None:
    """A loss or metric of a model's compile information, as a recipe names it.

    Args:
        config: the name or configuration.
        loaded: what was restored of it.

    Returns:
        A name, ``file.py:function``, or a table with ``class`` and arguments. None: the user's, and to be found in no
        file.
    """
    if not isinstance(config, Mapping) or config.get("class_name") == "function":
        if isinstance(loaded, str) or is_kerases(loaded):
            return str(config["config"] if isinstance(config, Mapping) else config)
        return _place(loaded) if inspect.isfunction(loaded) else _of_object(loaded)
    inner = config.get("config")
    arguments = _arguments(inner) if isinstance(inner, Mapping) else {}
    function = carried(loaded)
    if function is not None and isinstance(inner, Mapping) and "fn" in inner:
        arguments["fn"] = term_of(inner["fn"], function)
        return None if arguments["fn"] is None else {"class": config["class_name"], **arguments}
    name = config["class_name"] if is_kerases(loaded) else _place(type(loaded))
    return None if name is None else {"class": name, **arguments}


def named_term(term: Term | None, name: str, weighted: bool) -> Term | None:
    """A metric's term under its name, which says whether the weights of samples count."""
    if term is None or (isinstance(term, str) and term.rpartition(":")[2] == name and not weighted):
        return term
    table = {"class": term} if isinstance(term, str) else dict(term)
    return {**table, "name": name, **({"weighted": True} if weighted else {})}


def _of_object(thing: Any) -> Term | None:
    """The table of an object of a class of the user's, if its configuration has all arguments."""
    config = thing.get_config() if hasattr(thing, "get_config") else {}
    taken = inspect.signature(type(thing)).parameters.values()
    named = {one.name for one in taken if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    place = _place(type(thing))
    return None if place is None or not named <= {*config, "name", "dtype"} else {"class": place, **_arguments(config)}


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: _NONE.get(key) if value is None else value for key, value in config.items() if key != "dtype"}
    return {key: _without_none(value) for key, value in given.items() if value is not None}


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list | tuple) else value


def _place(thing: Any) -> str | None:
    """Where a function or class of the user's can be imported from, as recipes name it."""
    module = sys.modules.get(thing.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None or module.__name__ == "__main__" or not hasattr(module, thing.__name__):
        return None
    if not module.__name__.startswith("edgeprune_user_"):
        return f"{module.__name__}:{thing.__name__}"
    near = Path(file).resolve().is_relative_to(Path.cwd().resolve())
    return f"{os.path.relpath(file) if near else file}:{thing.__name__}"
