"""Recipe: one config per stage. TOML in, validated, every default written out.

A section that a recipe leaves out (``[magnitude]``, say) is a stage that does not run. Sections never name an order:
the order is the pipeline's (:mod:`edgeprune.plan`).
"""

from __future__ import annotations

import difflib
import importlib.resources
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from edgeprune.errors import RecipeError

Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]
OpenFraction = Annotated[
    float, pydantic.Field(gt=0, lt=1), pydantic.BeforeValidator(lambda value: _from_percent(value))
]
CriterionName = Literal[
    "l1", "l2", "fpgm", "bn_scale", "taylor", "fisher", "activation", "apoz", "reconstruction", "sampling", "random"
]
Mode = Literal["float32", "float16", "dynamic", "int8", "int16x8", "int8-weights", "int4-weights", "mixed"]
IO = Literal["float", "int8", "uint8"]


def _from_percent(value: Any) -> Any:
    """``"50%"`` is 0.5; everything else passes."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


class Config(pydantic.BaseModel):
    """Base of all configs: frozen, and unknown keys are errors."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class DataConfig(Config):
    """``[data]``: how a sample on disk becomes a model input. ``x = (pixel * scale - mean) / std``."""

    size: tuple[int, int] | None = None  # height, width in pixels; None: from the model's input
    color: Literal["rgb", "grayscale"] | None = None  # None: from the model's input
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)  # one value, or one per channel
    std: tuple[float, ...] = (1.0,)
    validation: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.1  # of train, if the source has no validation split
    batch_size: Annotated[int, pydantic.Field(gt=0)] = 32


class TaskConfig(Config):
    """``[task]``: what the model is trained for. ``None``: as the model was compiled, else classification."""

    loss: str | None = None  # a Keras loss, or file.py:function
    metric: str | None = None  # a Keras metric, or file.py:function
    higher_is_better: bool | None = None  # None: known for Keras metrics; required for a function


class MagnitudeConfig(Config):
    """``[magnitude]``: zero the smallest weights while fine-tuning (Zhu & Gupta 2017, arXiv:1710.01878)."""

    sparsity: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.5  # fraction of each layer's kernel weights
    schedule: Literal["polynomial", "constant"] = "polynomial"
    begin: Fraction = 0.0  # fractions of the fine-tuning steps
    end: Fraction = 0.5
    include: tuple[str, ...] = ("*",)  # layer names, shell patterns
    exclude: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> MagnitudeConfig:
        if self.begin >= self.end:
            raise ValueError(f"begin ({self.begin}) must be less than end ({self.end})")
        return self


class FiltersConfig(Config):
    """``[filters]``: remove whole filters and neurons. Exactly one budget: ``rate``, ``max_params`` or ``max_macs``."""

    rate: OpenFraction | None = None  # of the filters, removed
    max_params: OpenFraction | None = None  # of the unpruned model's, kept
    max_macs: OpenFraction | None = None
    criterion: CriterionName = "fisher"
    allocation: Literal["uniform", "global"] = "global"
    steps: Annotated[int, pydantic.Field(ge=1)] = 1  # 1: one shot; n: prune in n steps with fine-tuning in between
    step_epochs: Annotated[int, pydantic.Field(ge=0)] = 1  # of fine-tuning after each step but the last
    samples: Annotated[int, pydantic.Field(gt=0)] = 2048  # training samples that data-driven criteria look at
    min_channels: Annotated[int, pydantic.Field(gt=0)] = 2
    round_to: Annotated[int, pydantic.Field(gt=0)] | Literal["target"] = "target"  # channels in multiples of this
    protect: tuple[str, ...] = ()  # layers that keep their filters; names, shell patterns
    rates: dict[str, Annotated[float, pydantic.Field(ge=0, lt=1)]] = {}  # layer pattern → its own rate
    compensate: bool = True  # repair biases and batch normalization right after removal
    verify: bool = True  # compare with the masked original on random inputs

    @pydantic.model_validator(mode="after")
    def _one_budget(self) -> FiltersConfig:
        given = [key for key in ("rate", "max_params", "max_macs") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of rate, max_params and max_macs, not {' and '.join(given) or 'none'}")
        return self


class FinetuneConfig(Config):
    """``[finetune]``: training after a pruning step. Uses train and validation data only."""

    epochs: Annotated[int, pydantic.Field(ge=0)] = 2
    learning_rate: Annotated[float, pydantic.Field(gt=0)] = 1e-3
    decay: Literal["cosine", "constant"] = "cosine"
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd: Nesterov momentum 0.9
    batch_size: Annotated[int, pydantic.Field(gt=0)] = 32
    patience: Annotated[int, pydantic.Field(ge=0)] | None = None  # epochs without progress before stopping; None: never


class DistillConfig(Config):
    """``[distill]``: fine-tuning also learns from the unpruned model's outputs (Hinton et al. 2015)."""

    temperature: Annotated[float, pydantic.Field(gt=0)] = 4.0
    weight: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.7  # of the teacher in the loss; the labels get the rest


class AugmentConfig(Config):
    """``[augment]``: random changes of training images. None by default: not every sample is an image."""

    flip: bool = False  # left to right
    shift: Annotated[int, pydantic.Field(ge=0)] = 0  # up to this many pixels each way


class QuantizeConfig(Config):
    """``[quantize]``: the number formats that every model is converted to."""

    modes: Annotated[tuple[Mode, ...], pydantic.Field(min_length=1)] = ("float32",)
    io: IO | None = None  # input/output of int8 files; None: what the target prefers
    equalize: bool = False  # before int8: even out the ranges of channels in neighbouring layers
    correct_bias: bool = False  # before int8: undo the mean error that quantized weights make


class CalibrationConfig(Config):
    """``[calibration]``: the representative samples for int8, drawn from training data."""

    samples: Annotated[int, pydantic.Field(gt=0)] | Literal["auto"] = 256  # auto: until the ranges stop growing
    strategy: Literal["stratified", "random", "coverage"] = "stratified"
    range: Literal["minmax", "percentile", "mse"] = "minmax"  # of activations, from what the samples show
    percentile: Annotated[float, pydantic.Field(gt=50, le=100)] = 99.99  # of values inside; range = "percentile"


class MixedConfig(Config):
    """``[mixed]``: the layers that int8 hurts most stay in float, as few as ``max_drop`` allows."""

    max_drop: Annotated[float, pydantic.Field(ge=0)] = 0.5  # points of the metric on validation, against the model
    steps: Annotated[int, pydantic.Field(ge=1)] = 5  # files tried


class ConversionConfig(Config):
    """``[convert]``: what the files may ask of the runtime."""

    select_tf_ops: bool = False  # operators of full TensorFlow, which most runtimes on boards do not have


class Recipe(Config):
    """Everything that decides what a build does, apart from the model, the data and the target."""

    name: str = "custom"
    description: str = ""
    data: DataConfig = DataConfig()
    task: TaskConfig = TaskConfig()
    filters: FiltersConfig | None = None
    magnitude: MagnitudeConfig | None = None
    finetune: FinetuneConfig = FinetuneConfig()
    distill: DistillConfig | None = None
    augment: AugmentConfig = AugmentConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    mixed: MixedConfig = MixedConfig()
    convert: ConversionConfig = ConversionConfig()

    def to_toml(self) -> str:
        """The resolved recipe, every default written out."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def builtin_names() -> list[str]:
    """Names of the recipes that come with edgeprune."""
    folder = importlib.resources.files("edgeprune.recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a built-in recipe by name, or a TOML file.

    Raises:
        RecipeError: no such recipe or file, not TOML, unknown keys or values.
    """
    return parse_recipe(_read(str(name_or_path)), source=str(name_or_path))


def parse_recipe(table: Mapping[str, Any], source: str) -> Recipe:
    """Validate a recipe given as nested tables; ``source`` names it in errors."""
    table = {"name": Path(source).stem, **_resolve_extends(table)}
    try:
        return Recipe.model_validate(table)
    except pydantic.ValidationError as error:
        raise RecipeError(
            _explain(error, source), fix="`edgeprune init` writes a recipe with every key explained."
        ) from None


def _read(name_or_path: str) -> dict[str, Any]:
    names = builtin_names()
    if name_or_path in names:
        text = importlib.resources.files("edgeprune.recipes").joinpath(f"{name_or_path}.toml").read_text("utf-8")
    elif Path(name_or_path).is_file():
        try:
            text = Path(name_or_path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"The recipe {name_or_path} cannot be read: {error}.") from None
    else:
        raise RecipeError(
            f"There is no recipe {name_or_path!r}{_did_you_mean(name_or_path, names)}",
            expected=f"a TOML file, or one of: {', '.join(names)}.",
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"The recipe {name_or_path} is not valid TOML: {error}.") from None


def _resolve_extends(table: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the recipes named by ``extends``, later ones and the table itself winning key by key."""
    bases = table.get("extends", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = _merge(
            merged, _resolve_extends({k: v for k, v in _read(base).items() if k not in ("name", "description")})
        )
    return _merge(merged, {key: value for key, value in table.items() if key != "extends"})


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


def _explain(error: pydantic.ValidationError, source: str) -> str:
    lines = [f"The recipe {source} is not valid."]
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        where = ".".join(path)
        if item["type"] == "extra_forbidden":
            keys = _keys_at(path[:-1])
            lines.append(f"  {where}: unknown key{_did_you_mean(path[-1], keys)} Known keys: {', '.join(keys)}.")
        elif item["type"] == "literal_error":
            known = [word.strip("'") for word in item["ctx"]["expected"].replace(" or ", ", ").split(", ")]
            lines.append(
                f"  {where} = {item['input']!r}: expected one of {', '.join(known)}"
                + _did_you_mean(str(item["input"]), known)
            )
        else:
            lines.append(f"  {where} = {item['input']!r}: {item['msg']}.")
    return "\n".join(lines)


def _keys_at(path: list[str]) -> list[str]:
    config: Any = Recipe
    for part in path:
        annotation = config.model_fields[part].annotation
        config = next(
            t
            for t in (annotation, *getattr(annotation, "__args__", ()))
            if isinstance(t, type) and issubclass(t, Config)
        )
    return list(config.model_fields)


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."
