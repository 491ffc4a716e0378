"""What a search may vary: the recipe's ``[search]``, or a space that suits the target; and a recipe out of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from edgeprune.errors import RecipeError
from edgeprune.recipe.config import Recipe
from edgeprune.recipe.load import load_recipe, parse_recipe
from edgeprune.recipe.space import Varies, as_field, number, parse_space, takes_integers
from edgeprune.target import Target

# The built-in space starts from this recipe, but for what it does to filters.
BASE = "filters-int8"
BUDGETS = ("rate", "max_params", "max_macs", "max_latency", "max_memory", "max_size")
# Keys that matter only where something is trained.
TRAINING = ("distill", "augment", "qat", "finetune.")
# Sections that train; those with epochs of their own only if these are not 0.
TRAINERS = ("lottery", "sparsify")
OWN_EPOCHS = ("qat", "cluster")
# Keys that matter only beside one of some sections.
BESIDE = {"reconstruct.match": ("filters", "weights")}
# The first trials have so many budgets, without training: a first front within seconds. Those between the least and the
# most are tried with all of the training next, which is what most people would build by hand; then what lies between
# those that keep the goal and those that miss it. Where parameters are limited, too, both limits fall together first.
# What else is tried with all of the training has the limit of latency alone.
FIRST = 4
# How many parameters stay, beside the other budget, which alone decides at the first of them.
PARAMS = (0.99, 0.75, 0.5, 0.35)
# Budgets in percent, from the least to the most, if the model and the target allow that much; and how many there are.
LEAST, MOST, BUDGET_STEPS = 25, 95, 14


class Asked(Protocol):
    """A trial of Optuna, as far as it is needed here."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...


@dataclasses.dataclass(frozen=True)
class Circumstances:
    """What the built-in space depends on.

    Attributes:
        blocks: the model has residual blocks that can go as a whole.
        filters: it has filters that can go.
        weight_only: the package for formats of weights alone is installed.
        size: the bytes of the file or its flash are an objective: where removing channels makes a file faster is not
            where it makes it small.
        download: the size after compression is an objective, the only one that single zeros make smaller.
        epochs: of the recipe's training.
        least_latency: the least share of the latency that removing filters can leave; None: latency is no limit to
            set, for nothing is known about it, or filters make too little of it.
    """

    target: Target
    blocks: bool
    filters: bool
    weight_only: bool
    size: bool
    download: bool
    epochs: int
    least_latency: float | None

    @property
    def budgets(self) -> tuple[int, int]:
        """The least share of the latency that is asked for, in percent, and the step between two shares."""
        least = max(LEAST, math.ceil(100 * (self.least_latency or 0)))
        step = max(1, (MOST - least) // BUDGET_STEPS)
        return MOST - (MOST - least) // step * step, step

    @property
    def by_latency(self) -> bool:
        return self.filters and self.least_latency is not None and 100 * self.least_latency <= MOST - 1


def formats(given: Circumstances) -> list[str]:
    """The number formats worth trying. Accelerators, those with a compiler, and microcontrollers take int8 only."""
    if given.target.accelerator or given.target.compiler or given.target.micro:
        return ["int8"]
    return ["int8", "float16", *(["int8-weights"] if given.weight_only else [])]


_ZEROS = [{"sparsity": sparsity, "criterion": "reconstruct", "scope": "global"} for sparsity in (0.3, 0.5, 0.7, 0.8)]
# Of the plain int8 file in flash.
_CODED = [{"max_size": f"{percent}%"} for percent in (85, 70, 55, 45)]
# The built-in space: key, what it may be, and when it is tried. Sections stand before their keys, and the epochs first.
BUILT_IN: tuple[tuple[str, Callable[[Circumstances], dict[str, Any]], Callable[[Circumstances], bool]], ...] = (
    ("finetune.epochs", lambda g: {"choices": [0, g.epochs]}, lambda g: g.epochs > 0),
    ("quantize.modes", lambda g: {"choices": formats(g)}, lambda g: len(formats(g)) > 1),
    ("filters", lambda g: {"choices": [True, False]}, lambda g: g.filters),
    (
        "filters.max_latency",
        lambda g: {"low": f"{g.budgets[0]}%", "high": f"{MOST}%", "step": f"{g.budgets[1]}%"},
        lambda g: g.by_latency,
    ),
    (
        "filters.max_macs",
        lambda g: {"low": LEAST / 100, "high": MOST / 100, "step": 0.05},
        lambda g: g.filters and not g.by_latency,
    ),
    ("filters.max_params", lambda g: {"choices": [*PARAMS]}, lambda g: g.filters and g.size),
    ("filters.criterion", lambda g: {"choices": ["reconstruct", "taylor"]}, lambda g: g.filters),
    ("filters.blocks", lambda g: {"choices": [False, True]}, lambda g: g.filters and g.blocks),
    ("weights", lambda g: {"choices": [False, *_ZEROS]}, lambda g: g.download or g.target.micro is not None),
    ("coded", lambda g: {"choices": [False, *_CODED]}, lambda g: g.target.micro is not None),
    ("reconstruct.match", lambda g: {"choices": ["layers", "answers"]}, lambda g: g.filters),
    ("distill", lambda g: {"choices": [True, False]}, lambda g: g.epochs > 0),
)


@dataclasses.dataclass(frozen=True)
class Space:
    """A recipe, and which of its keys may vary.

    Attributes:
        base: the recipe as a table, without ``[search]``.
        varies: by dotted key, in the order in which they are asked for.
        first: values that the first trials are given, by key.
        then: those of the trials after them.
        thorough: the values of trials with all of the training, but for their budgets.
    """

    base: dict[str, Any]
    varies: dict[str, Varies]
    first: tuple[dict[str, Any], ...] = ()
    then: tuple[dict[str, Any], ...] = ()
    thorough: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {key: varies.model_dump(mode="json", exclude_defaults=True) for key, varies in self.varies.items()}

    @property
    def is_finite(self) -> bool:
        """Whether every key is one of a number of values."""
        return all(varies.choices or varies.step or takes_integers(key) for key, varies in self.varies.items())

    def recipe(self, trial: Asked, name: str) -> Recipe:
        """The recipe of a trial, whose values Optuna suggests.

        Raises:
            RecipeError: the values do not go together.
        """
        table: dict[str, Any] = json.loads(json.dumps(self.base))
        for key, varies in self.varies.items():
            if self._matters(key, table):
                _put(table, key.split("."), as_field(key, suggest(trial, key, varies)))
        return parse_recipe({**table, "name": name}, name)

    def _matters(self, key: str, table: Mapping[str, Any]) -> bool:
        section = key.partition(".")[0]
        # Sections that are varied as a whole, and are out.
        if section in self.varies and section != key and section not in table:
            return False
        if key in BESIDE and not any(name in table for name in BESIDE[key]):
            return False
        return key == "finetune.epochs" or not key.startswith(TRAINING) or self._is_trained(section, table)

    def _is_trained(self, section: str, table: Mapping[str, Any]) -> bool:
        """Whether anything is trained by a recipe, as far as it is known, or by a section that is about to be."""
        if table.get("finetune", {}).get("epochs") or any(name in table for name in TRAINERS):
            return True
        own = section in OWN_EPOCHS and sets_epochs(section, self.varies)
        return own or any(table.get(name, {}).get("epochs") for name in OWN_EPOCHS)

    def without_effect(self) -> dict[str, str]:
        """Keys that matter in no recipe of the space → why."""
        found = {}
        for key in self.varies:
            if key in BESIDE and not any(self._may_have(name) for name in BESIDE[key]):
                names = " or ".join(f"[{name}]" for name in BESIDE[key])
                found[key] = f"it matters beside {names} only, and the recipe has neither"
            elif key != "finetune.epochs" and key.startswith(TRAINING) and not self._may_train():
                found[key] = "it matters where something is trained, and [finetune] epochs is 0"
        return found

    def _may_have(self, section: str) -> bool:
        return section in self.base or any(key.partition(".")[0] == section for key in self.varies)

    def _may_train(self) -> bool:
        if self._is_trained("", self.base) or any(map(self._may_have, TRAINERS)):
            return True
        return any(sets_epochs(section, self.varies) for section in ("finetune", *OWN_EPOCHS))


def sets_epochs(section: str, varies: Mapping[str, Varies]) -> bool:
    """Whether some value that a section may have trains."""
    epochs, whole = varies.get(f"{section}.epochs"), varies.get(section)
    tables = whole.choices or () if whole else ()
    of_tables = any(isinstance(choice, Mapping) and choice.get("epochs") for choice in tables)
    return of_tables or (epochs is not None and any(epochs.ends))


def _order(key: str) -> tuple[int, int]:
    """Keys that decide whether others matter stand before them: epochs, what is done, the training of that."""
    asked_late = key in BESIDE or key.startswith(TRAINING)
    place = 0 if key == "finetune.epochs" else 2 if key.partition(".")[0] in OWN_EPOCHS else 3 if asked_late else 1
    return place, key.count(".")


def suggest(trial: Asked, key: str, varies: Varies) -> Any:
    """The value of a key in a trial."""
    if varies.choices is not None:
        labels = {_label(choice): choice for choice in varies.choices}
        return labels[trial.suggest_categorical(key, tuple(labels))]
    assert varies.low is not None
    assert varies.high is not None
    low, high = number(varies.low), number(varies.high)
    if takes_integers(key):
        whole = 1 if varies.step is None else int(number(varies.step))
        return trial.suggest_int(key, int(low), int(high), step=whole, log=varies.log)
    step = None if varies.step is None else number(varies.step)
    value = trial.suggest_float(key, low, high, step=step, log=varies.log)
    # 0.3 + 3 × 0.1 is 0.6 as 0.6 is: trials with equal values are the same.
    return f"{value:g}%" if isinstance(varies.low, str) else float(f"{value:.12g}")


def _label(choice: Any) -> Any:
    """A choice as Optuna stores it: scalars as they are, tables and lists as JSON."""
    return choice if isinstance(choice, bool | int | float | str) else json.dumps(choice)


def _put(table: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a key; of a section, ``False`` takes it out, ``True`` leaves it as it is, a table changes it."""
    for part in path[:-1]:
        table = table.setdefault(part, {})
    last = path[-1]
    if value is False and (last not in table or isinstance(table[last], Mapping)) and len(path) == 1:
        table.pop(last, None)
    elif value is True and len(path) == 1:
        table.setdefault(last, {})
    elif isinstance(value, Mapping) and isinstance(table.get(last), Mapping):
        table[last] = {**table[last], **value}
    else:
        table[last] = value


def space_of(recipe: Recipe | None, given: Circumstances) -> Space:
    """The space of a search: what the recipe says may vary, else the built-in one around it.

    Args:
        recipe: None: the built-in one.

    Raises:
        RecipeError: ``[search]`` does not fit the recipe, or nothing can be varied.
    """
    recipe = recipe or base_recipe()
    base = recipe.model_dump(mode="json", exclude_none=True)
    stated = base.pop("search", {})
    base.pop("rates", None)
    if stated:
        try:
            varies = parse_space(stated)
        except ValueError as error:
            raise RecipeError(f"The recipe {recipe.name} is not valid.\n  search.{error}.") from None
        if any(f"filters.{budget}" in varies for budget in BUDGETS):
            _without_budget(base)
        space = Space(base, {key: varies[key] for key in sorted(varies, key=_order)})
        for key, why in space.without_effect().items():
            raise RecipeError(
                f"[search] of the recipe {recipe.name} varies {key}, and that changes nothing: {why}.",
                fix="leave the key out of [search], or add what it needs to the recipe.",
            )
        return space
    _without_budget(base)
    chosen = {key: Varies.model_validate(make(given)) for key, make, when in BUILT_IN if when(given)}
    if not chosen:
        raise RecipeError(
            "Nothing of the recipe can be varied: the model has no filters that can go, and nothing is trained.",
            fix="say in [search] of a recipe what may vary.",
        )
    return Space(base, chosen, *_planned(chosen))


def _without_budget(base: dict[str, Any]) -> None:
    """Take out how much of the filters goes: a budget that is searched stands in its place, not beside it."""
    if "filters" in base:
        base["filters"] = {key: value for key, value in base["filters"].items() if key not in BUDGETS}


def base_recipe() -> Recipe:
    """What the built-in space starts from: trained and converted as the recipe for filters, of which none go yet."""
    return load_recipe(BASE).model_copy(update={"name": "search", "description": "", "filters": None})


def _planned(
    varies: Mapping[str, Varies],
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...], dict[str, Any]]:
    """``first``, ``then`` and ``thorough`` of a space: several budgets, and none, without training; those in the middle
    with it."""
    usual: dict[str, Any] = {"finetune.epochs": 0, "filters": True, "filters.criterion": "reconstruct"}
    usual |= {"quantize.modes": "int8", "filters.blocks": False, "weights": False, "reconstruct.match": "layers"}
    fixed = {key: value for key, value in usual.items() if key in varies}
    unpruned: dict[str, Any] = {"filters": False} if "filters" in varies else {}
    key = budget_of(varies)
    alone = [] if key is None else [{key: value} for value in _spread(varies[key])]
    both = alone
    if "filters.max_params" in varies:
        both = [{**budget, "filters.max_params": params} for budget, params in zip(alone, PARAMS, strict=False)]
        alone = [{**budget, "filters.max_params": PARAMS[0]} for budget in alone]
    quick = tuple({**fixed, **values} for values in (unpruned, *both))
    if "finetune.epochs" not in varies:
        return quick, (), {}
    most = {"finetune.epochs": varies["finetune.epochs"].ends[-1], "reconstruct.match": "answers", "distill": True}
    thorough = fixed | {key: value for key, value in most.items() if key in varies}
    trained, then = (tuple({**thorough, **budget} for budget in budgets[1:-1]) for budgets in (both, alone))
    return (*quick, *trained), tuple(values for values in then if values not in trained), thorough


def budget_of(varies: Mapping[str, Varies]) -> str | None:
    """The key that decides how much of the filters goes in the built-in space."""
    return next((key for key in ("filters.max_latency", "filters.max_macs") if key in varies), None)


def between(varies: Varies, tight: float | None, wide: float | None) -> float | None:
    """The value in the middle of two values of a range with steps; None: there is none between.

    Args:
        tight, wide: None: the end of the range.
    """
    low, high, step = _range(varies)
    tight, wide = low if tight is None else tight, high if wide is None else wide
    steps = round((wide - tight) / step)
    return float(f"{tight + step * ((steps + 1) // 2):.12g}") if steps > 1 else None


def _spread(varies: Varies) -> list[float]:
    """Values spread evenly over a range, from the most to the least."""
    low, high, step = _range(varies)
    steps = round((high - low) / step)
    return list(dict.fromkeys(low + step * round(steps * part / (FIRST - 1)) for part in reversed(range(FIRST))))


def _range(varies: Varies) -> tuple[float, float, float]:
    """The ends of a range, and its step."""
    assert varies.low is not None
    assert varies.high is not None
    assert varies.step is not None
    return number(varies.low), number(varies.high), number(varies.step)
