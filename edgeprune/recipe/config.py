"""Recipe: one config per stage. TOML in, validated, every default written out.

A section that a recipe leaves out (``[weights]``, say) is a stage that does not run. Sections never name an order:
the order is the pipeline's (:mod:`edgeprune.plan`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

import pydantic

from edgeprune.recipe.granularity import NofM, parse

Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]
_PERCENT_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "string", "pattern": r"^\s*\d+(\.\d*)?\s*%\s*$"},
    ]
}
# One name, or a list of them.
_NAMES_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
SampleCount = Annotated[int, pydantic.Field(gt=0)] | Literal["auto"]
OpenFraction = Annotated[
    float,
    pydantic.Field(gt=0, lt=1),
    pydantic.BeforeValidator(lambda value: _from_percent(value)),
    pydantic.WithJsonSchema(_PERCENT_SCHEMA, mode="validation"),
]
CriterionName = Literal[
    "l1",
    "l2",
    "fpgm",
    "bn_scale",
    "taylor",
    "fisher",
    "activation",
    "apoz",
    "reconstruction",
    "reconstruct",
    "sampling",
    "random",
]
ScheduleName = Literal["constant", "one_shot", "polynomial", "cubic", "exponential", "one_cycle"]
Mode = Literal["float32", "float16", "dynamic", "int8", "int16x8", "int8-weights", "int4-weights", "mixed"]
IO = Literal["float", "int8", "uint8"]
# More than this fraction of the 1x1 weights must be zero before XNNPACK takes sparse kernels (hardware/xnnpack).
SPARSE_INFERENCE_ABOVE = 2 / 3


_SHARE = r"^\s*\d+(\.\d*)?\s*%\s*$"
# A share of a metric's value, such as "5%".
DropShare = Annotated[str, pydantic.Field(pattern=_SHARE)]
# An amount in its own unit, or "50%" of what the unpruned model takes.
Amount = Annotated[float, pydantic.Field(gt=0)] | DropShare
# What is limited of a file.
FileFigure = Literal["latency", "memory", "size"]
# On the target of the build; or a table, by the name or the TOML file of each target.
_ByTarget = Annotated[dict[str, Amount], pydantic.Field(min_length=1)]
AmountByTarget = Annotated[
    Annotated[Amount, pydantic.Tag("amount")] | Annotated[_ByTarget, pydantic.Tag("table")],
    # Told apart first, so that a wrong value is explained as what it was meant to be.
    pydantic.Discriminator(lambda value: "table" if isinstance(value, Mapping) else "amount"),
]


def _from_percent(value: Any) -> Any:
    """``"50%"`` is 0.5; everything else passes."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


class Config(pydantic.BaseModel):
    """Base of all configs: frozen, and unknown keys are errors."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def sections_in(annotation: Any) -> Iterator[type[Config]]:
    """The sections in the type of a field: itself, or among the types that it is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    for inner in get_args(annotation):
        yield from sections_in(inner)


class SoundConfig(Config):
    """``[data.sound]``: how a sound file becomes a model input, with the defaults of 16 kHz keyword spotting.

    Frames, hops, transforms and lengths are in samples at ``rate``, so that they are exact.
    """

    rate: Annotated[int, pydantic.Field(gt=0)] = 16000  # Hz; files of other rates are resampled
    seconds: Annotated[float, pydantic.Field(gt=0)] = (
        1.0  # longer files are cut at the end, shorter ones get zeros there
    )
    samples: Annotated[int, pydantic.Field(gt=0)] | None = None  # the length in samples; None: seconds * rate
    front: Literal["raw", "log-mel", "mfcc"] = "log-mel"  # what the model takes; raw: samples of -1..1
    frame: Annotated[int, pydantic.Field(gt=1)] = 480
    hop: Annotated[int, pydantic.Field(gt=0)] = 320
    fft: Annotated[int, pydantic.Field(gt=1)] | None = None  # None: the next power of two from frame
    center: bool = False  # half a frame is added at both ends
    power: Literal[1, 2] = 2  # of the spectrum's magnitude
    mels: Annotated[int, pydantic.Field(gt=0)] = 40
    low: Annotated[float, pydantic.Field(ge=0)] = 20.0  # Hz, of the lowest mel filter
    high: Annotated[float, pydantic.Field(gt=0)] = 4000.0  # Hz, of the highest mel filter
    # Whose mel filters, cosine transform and padding of center:
    # tf.signal, librosa.feature or torchaudio.transforms with their defaults.
    like: Literal["tensorflow", "librosa", "torchaudio"] = "tensorflow"
    log: Literal["ln", "db"] = "ln"  # ln(mel + floor), or 10 * log10(max(mel, floor))
    floor: Annotated[float, pydantic.Field(gt=0)] = 1e-6
    top_db: Annotated[float, pydantic.Field(gt=0)] | None = None  # db: a sample's values end this far below its highest
    coefficients: Annotated[int, pydantic.Field(gt=0)] = 10  # of mfcc: the first ones
    transpose: bool = False  # bands x frames, as librosa has them; else frames x bands

    @property
    def length(self) -> int:
        """Samples that the front end takes."""
        return self.samples or round(self.seconds * self.rate)

    def resolved(self) -> dict[str, Any]:
        """All keys with what is open filled in, for :mod:`edgeprune.data.sound.front_end`."""
        samples, fft = self.length, self.fft or 1 << (self.frame - 1).bit_length()
        return {**self.model_dump(), "samples": samples, "seconds": samples / self.rate, "fft": fft}

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> SoundConfig:
        if self.samples and "seconds" in self.model_fields_set and self.samples != round(self.seconds * self.rate):
            raise ValueError("samples and seconds say different things: leave out one of them")
        if self.length < 1:
            raise ValueError("seconds * rate is less than one sample")
        if self.front == "raw":
            return self
        if self.length < self.frame and not self.center:
            raise ValueError(f"frame = {self.frame} samples is longer than the sound, which has {self.length}")
        if self.fft and self.fft < self.frame:
            raise ValueError(f"fft = {self.fft} is shorter than frame = {self.frame}")
        if not self.low < self.high <= self.rate / 2:
            raise ValueError(
                f"low = {self.low:g} and high = {self.high:g} must be in this order, and high at most half of the "
                f"rate, {self.rate / 2:g} Hz"
            )
        if self.front == "mfcc" and self.coefficients > self.mels:
            raise ValueError(f"coefficients = {self.coefficients} is more than mels = {self.mels}")
        if self.log == "db" and self.power == 1:
            raise ValueError('log = "db" is of a power spectrum: power = 2')
        if self.like == "torchaudio" and self.center and self.length <= (self.frame + 1) // 2:
            raise ValueError(f"center mirrors {self.frame // 2} samples at both ends; the sound has {self.length}")
        return self


class MasksConfig(Config):
    """``[data.masks]``: what the numbers in masks stand for, which say the class of every pixel."""

    void: Annotated[int, pydantic.Field(ge=0)] | None = None  # the number of pixels that do not count
    # The number of each class, in the order of the model's outputs; None: numbers are those of the classes.
    values: Annotated[tuple[Annotated[int, pydantic.Field(ge=0)], ...], pydantic.Field(min_length=2)] | None = None

    @pydantic.model_validator(mode="after")
    def _distinct(self) -> MasksConfig:
        if self.values and len({*self.values, self.void}) <= len(self.values):
            raise ValueError("values names a number twice, or that of void")
        return self


class BoxesConfig(Config):
    """``[data.boxes]``: how images with boxes become inputs of a detector."""

    # One of several forms of annotations; None: any, if all that are there agree
    format: Literal["coco", "voc", "yolo"] | None = None
    resize: Literal["stretch", "letterbox"] = "stretch"  # letterbox: the sides keep their ratio, centred, filled up
    fill: Annotated[int, pydantic.Field(ge=0, le=255)] = 114  # of letterbox: the value of all channels around the image


class CategoryConfig(Config):
    """``[data.table.categories.COLUMN]``: texts as numbers, in an order of one's own."""

    encode: Literal["index", "one-hot"]
    values: Annotated[tuple[str, ...], pydantic.Field(min_length=1)]  # in the order of their numbers

    @pydantic.field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) < len(values):
            raise ValueError("names a value twice")
        return values


class TableConfig(Config):
    """``[data.table]``: which columns of a CSV or Parquet file are what. Other columns are numbers, and inputs."""

    # A column, several for an output of several numbers, or columns by the names of several outputs; []: no labels.
    target: (
        Annotated[
            tuple[str, ...],
            pydantic.BeforeValidator(lambda v: (v,) if isinstance(v, str) else v),
            pydantic.WithJsonSchema(_NAMES_SCHEMA, mode="validation"),
        ]
        | dict[str, str]
        | None
    ) = None
    group: str | None = None  # rows that share its value stay together in a split, and windows do not reach beyond them
    ignore: tuple[str, ...] = ()
    categories: dict[str, Literal["index", "one-hot"] | CategoryConfig] = {}  # by name alone: sorted, 9 before 10
    window: Annotated[int, pydantic.Field(gt=0)] | None = (
        None  # rows of a sample, consecutive in a group; None: one row
    )
    stride: Annotated[int, pydantic.Field(gt=0)] | None = None  # rows from one window to the next; None: window
    normalize: Literal["standard", "minmax", "none"] = "none"  # number columns, by their values in the training table
    image: str | None = None  # the column with file names, if the inputs are images

    @pydantic.model_validator(mode="after")
    def _together(self) -> TableConfig:
        if self.stride and not self.window:
            raise ValueError("stride is the distance of windows: it needs window")
        numeric = self.window or self.categories or self.normalize != "none"
        if self.image and numeric:
            raise ValueError(
                "image makes the inputs images: window, categories and normalize are for columns of numbers"
            )
        return self


class DataConfig(Config):
    """``[data]``: how a sample on disk becomes a model input. ``x = (pixel * scale - mean) / std``."""

    size: tuple[int, int] | None = None  # height, width in pixels; None: from the model's input
    color: Literal["rgb", "bgr", "grayscale"] | None = None  # None: from the model's input
    classes: Annotated[tuple[str, ...], pydantic.Field(min_length=1)] | None = (
        None  # in the model's order; None: sorted
    )
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)  # one value, or one per channel
    std: tuple[float, ...] = (1.0,)
    validation: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.1  # of train, if the source has no validation split
    batch_size: Annotated[int, pydantic.Field(gt=0)] = 32
    broken: Literal["error", "skip"] = "error"  # image files that cannot be read: listed, or left out and reported
    masks: MasksConfig | None = None  # of a folder with images/ and masks/
    group: str | None = None  # regular expression over a file's path; files with the same match stay in one split
    sound: SoundConfig | None = None  # the folder has sound files

    @pydantic.field_validator("group")
    @classmethod
    def _is_expression(cls, group: str | None) -> str | None:
        try:
            re.compile(group or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return group

    boxes: BoxesConfig = BoxesConfig()
    table: TableConfig | None = None

    @pydantic.field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes and len(set(classes)) < len(classes):
            raise ValueError("names a class twice")
        return classes


# A loss or metric: its name in Keras, file.py:function, or a table with its ``class`` and the arguments of that.
Term = str | dict[str, Any]
KindName = Literal["classification", "multilabel", "regression", "segmentation", "sequence"]


class OutputTaskConfig(Config):
    """``[task.outputs.NAME]``: what one output is trained for and measured by. ``None``: as the model was compiled,
    else by its labels and how it ends, where these leave one reading."""

    kind: KindName | None = None
    loss: Term | None = None  # "none": its labels are not used
    metric: Term | tuple[Term, ...] | None = None  # the first counts most
    weight: Annotated[float, pydantic.Field(ge=0)] | None = None  # of its loss in the sum over all outputs
    higher_is_better: bool | None = None  # of the first metric; None: known for Keras metrics, required for a function
    ignore: int | None = None  # a class number that does not count, such as 255 in masks
    class_weights: dict[str, float] | tuple[float, ...] | None = None  # in training; by class name or number

    @pydantic.field_validator("loss", "metric")
    @classmethod
    def _terms_name_their_class(cls, value: Any) -> Any:
        for term in value if isinstance(value, tuple) else (value,):
            if isinstance(term, dict) and not isinstance(term.get("class"), str):
                raise ValueError('a table needs the name of its class: { class = "AUC", curve = "PR" }')
        return value


class TaskConfig(OutputTaskConfig):
    """``[task]``: what the model is trained for; of a model with several outputs it says what holds for all of them."""

    # teacher: no labels; the unpruned model's outputs are the goal. detection: what data with boxes are for
    kind: KindName | Literal["teacher", "detection"] | None = None  # type: ignore[assignment]
    primary: str | None = None  # "metric" or "output.metric", which picks and gates go by; None: the first
    outputs: dict[str, OutputTaskConfig] = {}


HeadName = Literal["ssd", "yolo-v3", "yolo-v5", "yolo-v8", "boxes", "postprocess"]


class DetectionConfig(Config):
    """``[detection]``: what a detector's outputs mean, and which of its boxes count.

    Boxes of anchors, grids and outputs are in fractions of the model's input or in its pixels, as ``unit`` says.
    """

    head: HeadName | Annotated[str, pydantic.Field(pattern=r".+:.+")]  # or file.py:function
    outputs: tuple[str, ...] | None = None  # their names in the head's order; None: told apart by their shapes
    # ssd: an .npy file [anchors, 4] in fractions; yolo-v3 and -v5: width and height in pixels, per stride
    anchors: str | tuple[tuple[tuple[float, float], ...], ...] | None = None
    anchor_form: Literal["cxcywh", "xyxy"] = "cxcywh"
    # ssd: factors of the offsets of x, y, width, height
    variances: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    strides: tuple[Annotated[int, pydantic.Field(gt=0)], ...] = (8, 16, 32)  # yolo: pixels per cell of each grid
    bins: Annotated[int, pydantic.Field(gt=0)] = 16  # yolo-v8: values per side of a box (reg_max); 1: the distance
    box: Literal["xyxy", "yxyx", "xywh", "cxcywh"] = "xyxy"  # head = "boxes": what its four numbers are
    unit: Literal["fraction", "pixel"] = "fraction"  # head = "boxes"
    objectness: bool = False  # head = "boxes" of one output: a fifth number that multiplies the scores
    # What still has to be applied to scores; None: sigmoid for grids (yolo), none for the others
    activation: Literal["none", "sigmoid", "softmax"] | None = None
    background: Annotated[int, pydantic.Field(ge=0)] | None = None  # column of the scores that is no class
    score_threshold: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.05  # boxes above it count
    iou_threshold: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.5  # of boxes that overlap more, the best stays
    per_class: bool = True  # false: one class per box, and boxes of all classes suppress each other
    max_detections: Annotated[int, pydantic.Field(gt=0)] = 100  # per image

    @pydantic.model_validator(mode="after")
    def _anchors_of_the_head(self) -> DetectionConfig:
        if self.head == "ssd" and not isinstance(self.anchors, str):
            raise ValueError('head = "ssd" needs its anchors: anchors = "anchors.npy", [anchors, 4] in fractions')
        if self.head in ("yolo-v3", "yolo-v5") and not isinstance(self.anchors, tuple):
            raise ValueError(
                f'head = "{self.head}" needs the anchors of each stride, width and height in pixels: '
                "anchors = [[[10, 13], [16, 30], [33, 23]], ...]"
            )
        if isinstance(self.anchors, tuple):
            if len(self.anchors) != len(self.strides):
                raise ValueError(f"anchors are of {len(self.anchors)} grids, and strides of {len(self.strides)}")
            if len({len(of_grid) for of_grid in self.anchors}) > 1:
                raise ValueError("anchors differ in number from grid to grid")
        return self


class WeightsConfig(Config):
    """``[weights]``: zero weights while fine-tuning (Zhu & Gupta 2017, arXiv:1710.01878, and its relatives)."""

    sparsity: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.5  # fraction of the weights of the selected layers
    # reconstruct: all at once, knowing that the others are refitted, as [reconstruct] says, and then trained
    criterion: Literal["magnitude", "taylor", "movement", "reconstruct"] = "magnitude"
    granularity: str = "weight"  # weight, block:RxC, n:m, connection
    scope: Literal["layer", "global"] = "layer"  # every layer to this sparsity, or one ranking over all
    schedule: ScheduleName = "cubic"
    power: Annotated[float, pydantic.Field(gt=0)] = 3.0  # of schedule = "polynomial"
    begin: Fraction = 0.0  # fractions of the fine-tuning steps
    end: Fraction = 0.5
    regrow: Literal["none", "gradient", "random"] = "none"
    regrow_fraction: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.3  # of what is kept; falls to 0 as a cosine
    include: tuple[str, ...] = ("*",)  # layer names, shell patterns
    exclude: tuple[str, ...] = ()
    sparse_inference: bool = False  # prune for XNNPACK's sparse kernels: the 1x1 convolutions only, stored sparse

    @pydantic.model_validator(mode="after")
    def _sparse_enough(self) -> WeightsConfig:
        if self.sparse_inference and self.sparsity <= SPARSE_INFERENCE_ABOVE:
            raise ValueError(
                f"sparse_inference needs a sparsity above two thirds, not {self.sparsity}: XNNPACK keeps dense kernels "
                "up to there; 0.8 is a good start"
            )
        return self

    @pydantic.model_validator(mode="before")
    @classmethod
    def _sparsity_of_pattern(cls, values: Any) -> Any:
        """n:m says the sparsity itself."""
        text = values.get("granularity") if isinstance(values, Mapping) else None
        pattern = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", str(text))
        if pattern and int(pattern[1]) < int(pattern[2]):
            return {"sparsity": 1 - int(pattern[1]) / int(pattern[2]), **values}
        return values

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> WeightsConfig:
        pattern = parse(self.granularity)
        one_shot = self.schedule == "one_shot"
        if self.begin >= self.end and not one_shot:
            raise ValueError(f"begin ({self.begin}) must be less than end ({self.end})")
        if self.criterion == "reconstruct" and self.regrow != "none":
            raise ValueError('criterion = "reconstruct" chooses the zeros once: regrow must be none')
        if one_shot and self.regrow != "none":
            raise ValueError("regrowth needs a schedule with several updates, not one_shot")
        if isinstance(pattern, NofM) and (self.scope == "global" or self.regrow != "none"):
            raise ValueError("n:m holds in every group, so neither scope = 'global' nor regrow goes with it")
        if isinstance(pattern, NofM) and abs(self.sparsity - pattern.sparsity) > 1e-6:
            raise ValueError(
                f"granularity {self.granularity} makes the sparsity {pattern.sparsity:g}: say that or none"
            )
        return self


class LotteryConfig(Config):
    """``[lottery]``: find the mask by training from the beginning, rewind the weights, train again under the mask
    (Frankle & Carbin 2019, arXiv:1803.03635). Which weights go, ``[weights]`` says."""

    rewind: Annotated[int, pydantic.Field(ge=0)] = 1  # weights go back to those after this epoch; 0: untrained
    epochs: Annotated[int, pydantic.Field(ge=1)] = 20  # of each training, the first `rewind` ones included
    rounds: Annotated[int, pydantic.Field(ge=1)] = 1  # > 1: iterative, equal shares of what is left
    control: bool = True  # also train other random weights under the same mask
    initial: str | None = None  # a Keras model whose weights are the initial ones; None: the model's initializers

    @pydantic.model_validator(mode="after")
    def _rewind_in_time(self) -> LotteryConfig:
        if self.rewind >= self.epochs:
            raise ValueError(f"rewind ({self.rewind}) must be less than epochs ({self.epochs})")
        return self


class FiltersConfig(Config):
    """``[filters]``: remove whole filters and neurons. Budget: ``rate``, or one or several of the maxima."""

    rate: OpenFraction | None = None  # of the filters, removed
    max_params: OpenFraction | None = None  # of the unpruned model's, kept
    max_macs: OpenFraction | None = None
    # Of the file that the recipe builds: milliseconds as estimated for the target, bytes of its arena, of the file. A
    # table, such as { rpi4 = "50%", coral = 2.5 }, limits the files for several targets, all of them at once.
    max_latency: AmountByTarget | None = None
    max_memory: AmountByTarget | None = None
    max_size: AmountByTarget | None = None
    criterion: CriterionName = "taylor"
    allocation: Literal["uniform", "global", "sensitivity"] = "global"
    steps: Annotated[int, pydantic.Field(ge=1)] = 1  # 1: one shot; n: prune in n steps with fine-tuning in between
    step_epochs: Annotated[int, pydantic.Field(ge=0)] = 1  # of fine-tuning after each step but the last
    # How much each of the steps removes; exponential: the same share of what is left.
    schedule: Literal["polynomial", "cubic", "exponential", "one_cycle"] = "exponential"
    power: Annotated[float, pydantic.Field(gt=0)] = 3.0  # of schedule = "polynomial"; 1: the same number in each step
    # Training samples that data-driven criteria look at; auto: 2,048, and up to 8,192 that make no more than 500 MB.
    samples: SampleCount = 2048
    min_channels: Annotated[int, pydantic.Field(gt=0)] = 2
    round_to: Annotated[int, pydantic.Field(gt=0)] | Literal["target"] = "target"  # channels in multiples of this
    protect: tuple[str, ...] = ()  # layers that keep their filters; names, shell patterns
    layer_rates: dict[str, Annotated[float, pydantic.Field(ge=0, lt=1)]] = {}  # layer pattern → its own rate
    blocks: bool = False  # residual blocks may go as a whole, too, where that costs less than channels
    compensate: bool = True  # repair right after removal, as [reconstruct] says
    verify: bool = True  # compare with the masked original on random inputs

    @property
    def of_file(self) -> dict[FileFigure, dict[str | None, float | str]]:
        """Limits of files, by what is limited and by target as the recipe names it; None: the target of the build."""
        given: dict[FileFigure, float | str | dict[str, float | str] | None] = {
            "latency": self.max_latency,
            "memory": self.max_memory,
            "size": self.max_size,
        }
        return {
            what: dict(amount.items()) if isinstance(amount, dict) else {None: amount}
            for what, amount in given.items()
            if amount is not None
        }

    @pydantic.model_validator(mode="after")
    def _has_budget(self) -> FiltersConfig:
        maxima = ("max_params", "max_macs", "max_latency", "max_memory", "max_size")
        given = [key for key in ("rate", *maxima) if getattr(self, key) is not None]
        if not given or (self.rate is not None and len(given) > 1):
            raise ValueError(
                f"needs rate, or one or several of {', '.join(maxima)}, not {' and '.join(given) or 'none'}"
            )
        if self.blocks and (self.allocation != "global" or self.rate is not None):
            raise ValueError("blocks = true goes with allocation = 'global' and maxima, which can be compared with it")
        return self


class ReconstructConfig(Config):
    """``[reconstruct]``: what pruning left is refitted by least squares to what the layers gave before; no labels."""

    samples: Annotated[int, pydantic.Field(gt=0)] = 2048  # training samples that are looked at
    ridge: Annotated[float, pydantic.Field(gt=0)] = 1e-4  # how strongly weights are held where they are
    # layers: what each gave. answers: what the model says in the end, too, by which choices of channels are measured
    # and channels scaled; several times slower.
    match: Literal["answers", "layers"] = "answers"


class LayersConfig(Config):
    """``[layers]``: remove whole residual blocks and layers. Exactly one budget: ``remove`` or ``max_macs``."""

    remove: Annotated[int, pydantic.Field(ge=1)] | None = None  # this many blocks
    max_macs: OpenFraction | None = None  # of the unpruned model's, kept
    criterion: Literal["similarity", "sensitivity"] = "similarity"
    samples: Annotated[int, pydantic.Field(gt=0)] = 512  # training samples that similarity looks at
    protect: tuple[str, ...] = ()  # layers that stay; names, shell patterns

    @pydantic.model_validator(mode="after")
    def _one_budget(self) -> LayersConfig:
        if (self.remove is None) == (self.max_macs is None):
            raise ValueError("needs exactly one of remove and max_macs")
        return self


class SparsifyConfig(Config):
    """``[sparsify]``: train with penalties before pruning. A weight of 0 leaves the penalty out."""

    epochs: Annotated[int, pydantic.Field(ge=1)] = 4
    weights_l1: Annotated[float, pydantic.Field(ge=0)] = 0.0  # times the sum of absolute weights
    bn_l1: Annotated[float, pydantic.Field(ge=0)] = 0.0  # times the sum of absolute scales of batch normalization
    group_lasso: Annotated[float, pydantic.Field(ge=0)] = 0.0  # times the sum of the norms of removable channels

    @pydantic.model_validator(mode="after")
    def _some_penalty(self) -> SparsifyConfig:
        if not (self.weights_l1 or self.bn_l1 or self.group_lasso):
            raise ValueError("needs at least one of weights_l1, bn_l1 and group_lasso above 0")
        return self


class ClusterConfig(Config):
    """``[cluster]``: each layer's weights share few values (Han et al. 2016, arXiv:1510.00149)."""

    n_clusters: Annotated[int, pydantic.Field(ge=2, le=255)] = 16  # different weights per layer; zero counts
    init: Literal["linear", "kmeans++"] = "linear"  # the centroids that k-means starts from
    include: tuple[str, ...] = ("*",)  # layer names, shell patterns
    exclude: tuple[str, ...] = ()
    epochs: Annotated[int, pydantic.Field(ge=0)] | None = None  # of training the shared weights; None: [finetune]'s
    learning_rate_scale: Annotated[float, pydantic.Field(gt=0)] = 0.1  # times [finetune]'s


class CodedConfig(Config):
    """``[coded]``: each tensor's weights on a grid of its own, for the fewest bytes once they are encoded for a
    microcontroller (:mod:`edgeprune.quantize.coded`). Weights are refitted, and nothing is trained afterwards."""

    # At most one of the two. None, both: max_drop = 1, or "1%" of a metric in its own unit.
    max_drop: Annotated[float, pydantic.Field(ge=0)] | DropShare | None = None  # of the metric on validation
    max_size: Amount | None = None  # bytes of the file in flash, or such as "40%" of those of the plain int8 file
    steps: Annotated[int, pydantic.Field(ge=1)] = 6  # sizes that are tried for max_drop

    @pydantic.model_validator(mode="after")
    def _one_goal(self) -> CodedConfig:
        if self.max_drop is not None and self.max_size is not None:
            raise ValueError(
                "max_drop looks for the smallest file, and max_size says how small it is: give one of them"
            )
        return self


class QatConfig(Config):
    """``[qat]``: train with the rounding of the int8 file (Jacob et al. 2017, arXiv:1712.05877)."""

    epochs: Annotated[int, pydantic.Field(ge=0)] | None = None  # None: [finetune]'s
    learning_rate_scale: Annotated[float, pydantic.Field(gt=0)] = 0.1  # times [finetune]'s


class FinetuneConfig(Config):
    """``[finetune]``: training after a pruning step. Uses train and validation data only."""

    epochs: Annotated[int, pydantic.Field(ge=0)] = 2
    learning_rate: Annotated[float, pydantic.Field(gt=0)] = 1e-3
    decay: Literal["cosine", "constant"] = "cosine"
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd: Nesterov momentum 0.9
    batch_size: Annotated[int, pydantic.Field(gt=0)] = 32
    patience: Annotated[int, pydantic.Field(ge=0)] | None = None  # epochs without progress before stopping; None: never
    weight_decay: Annotated[float, pydantic.Field(ge=0)] = 0.0  # decoupled; biases and normalization are left alone
    # mirrored: on all GPUs of the machine, which share each batch; multiworker: on those of several machines
    strategy: Literal["none", "mirrored", "multiworker"] = "none"


class DistillConfig(Config):
    """``[distill]``: fine-tuning also learns from the unpruned model's outputs (Hinton et al. 2015)."""

    temperature: Annotated[float, pydantic.Field(gt=0)] = 4.0
    weight: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.7  # of the teacher in the loss; the labels get the rest
    features: Annotated[int, pydantic.Field(ge=0)] = 0  # also learn what this many of the last layers take


class AugmentConfig(Config):
    """``[augment]``: random changes of training samples. None by default: not every sample is an image."""

    flip: bool = False  # left to right
    # up to this many pixels each way; auto: a sixteenth of image files of one class each, else none
    shift: Annotated[int, pydantic.Field(ge=0)] | Literal["auto"] = 0
    cutout: Annotated[int, pydantic.Field(ge=0)] = 0  # side of the blanked square, in pixels
    time_shift: Annotated[float, pydantic.Field(ge=0)] = 0.0  # of sound: up to this many seconds each way
    noise: Annotated[float, pydantic.Field(ge=0)] = 0.0  # of sound: white noise of up to this deviation; samples: -1..1
    time_mask: Annotated[int, pydantic.Field(ge=0)] = 0  # of spectrograms: up to this many frames blanked (SpecAugment)
    band_mask: Annotated[int, pydantic.Field(ge=0)] = 0  # of spectrograms: up to this many bands blanked (SpecAugment)
    mixup: Annotated[float, pydantic.Field(ge=0)] = 0.0  # alpha of the Beta distribution that two samples are mixed by


class QuantizeConfig(Config):
    """``[quantize]``: the number formats that every model is converted to."""

    modes: Annotated[tuple[Mode, ...], pydantic.Field(min_length=1)] = ("float32",)
    io: IO | None = None  # input/output of int8 files; None: what the target prefers
    # Of weights: by second moments, so that what each layer gives changes least; or as the converter does.
    rounding: Literal["reconstruct", "nearest"] = "reconstruct"
    equalize: bool = False  # before rounding: even out the ranges of channels in neighbouring layers


class CalibrationConfig(Config):
    """``[calibration]``: the representative samples for int8, drawn from training data."""

    samples: SampleCount = 256  # auto: until the ranges stop growing
    strategy: Literal["stratified", "random", "coverage"] = "stratified"
    # Of activations, from what the samples show; auto: of the files, the one that answers most like the model.
    range: Literal["auto", "minmax", "percentile", "mse"] = "auto"
    percentile: Annotated[float, pydantic.Field(gt=50, le=100)] = 99.99  # of values inside, where outliers are cut off

    @property
    def compared(self) -> int:
        """Samples that models and files are compared on, where ``samples`` is found out by running the model only."""
        return 256 if self.samples == "auto" else self.samples


class MixedConfig(Config):
    """``[mixed]``: the layers that int8 hurts most stay in float, as few as ``max_drop`` allows."""

    # Of the metric on validation, against the model: points of a fraction, or "1%" of the metric's value. None: half a
    # point of a fraction, 1 % of any other metric.
    max_drop: Annotated[float, pydantic.Field(ge=0)] | DropShare | None = None
    steps: Annotated[int, pydantic.Field(ge=1)] = 5  # files tried


class ConversionConfig(Config):
    """``[convert]``: what the files may ask of the runtime, and how they store zeros."""

    select_tf_ops: bool = False  # operators of full TensorFlow, which most runtimes on boards do not have
    sparse_encoding: bool = False  # float32 files of pruned weights store them sparse where that is smaller


class RegressionConfig(Config):
    """``[regression]``: how much worse than an earlier build the files may be (``--baseline REPORT.json``)."""

    # Of the metric on test: points of a fraction, or "1%" of the metric's value. None: one point of a fraction, 2 % of
    # any other metric.
    max_drop: Annotated[float, pydantic.Field(ge=0)] | DropShare | None = None
    max_size: DropShare = "1%"  # of the file
    max_latency: DropShare = "10%"  # under the same conditions
    max_memory: DropShare = "5%"  # of the arena
    max_cpu_operators: Annotated[int, pydantic.Field(ge=0)] = 0  # more that the accelerator does not take


def _filters_at(filters: FiltersConfig, rate: float) -> dict[str, Any]:
    """Removes ``rate`` of what the section limits: filters, parameters, MACs, or what files come to on each target."""
    share = f"{100 * (1 - rate):g}%"
    shares = {key: 1 - rate for key in ("max_params", "max_macs") if getattr(filters, key) is not None}
    of_file = {
        f"max_{what}": share if None in amounts else dict.fromkeys(amounts, share)
        for what, amounts in filters.of_file.items()
    }
    return {**({} if filters.rate is None else {"rate": rate}), **shares, **of_file}


# Section with a budget → what it is at a rate of ``Recipe.rates``.
RATED: dict[str, Callable[[Any, float], Mapping[str, Any]]] = {
    "filters": _filters_at,
    "weights": lambda weights, rate: {"sparsity": rate},
}


def rate_label(rate: float) -> str:
    """A rate as it stands in names of variants: "30" for 0.3, "12.5" for 0.125."""
    return f"{100 * rate:g}"


class Recipe(Config):
    """Everything that decides what a build does, apart from the model, the data and the target."""

    name: str = "custom"
    description: str = ""
    data: DataConfig = DataConfig()
    task: TaskConfig = TaskConfig()
    detection: DetectionConfig | None = None
    layers: LayersConfig | None = None
    sparsify: SparsifyConfig | None = None
    filters: FiltersConfig | None = None
    reconstruct: ReconstructConfig = ReconstructConfig()
    weights: WeightsConfig | None = None
    lottery: LotteryConfig | None = None
    cluster: ClusterConfig | None = None
    coded: CodedConfig | None = None
    qat: QatConfig | None = None
    finetune: FinetuneConfig = FinetuneConfig()
    distill: DistillConfig | None = None
    augment: AugmentConfig = AugmentConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    mixed: MixedConfig = MixedConfig()
    convert: ConversionConfig = ConversionConfig()
    regression: RegressionConfig = RegressionConfig()
    rates: tuple[OpenFraction, ...] = ()  # a pruned chain for each; (): one chain, as the sections say
    search: dict[str, Any] = {}  # what `edgeprune search` may vary; {}: what it varies by itself. Builds take no notice

    @pydantic.field_validator("rates")
    @classmethod
    def _rates_increase(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if rates and (len(rates) < 2 or any(a >= b for a, b in itertools.pairwise(rates))):
            raise ValueError("needs at least two rates, increasing, each in (0, 1)")
        if len({rate_label(rate) for rate in rates}) < len(rates):
            raise ValueError("has rates that differ by less than six digits: variants are named after them")
        return rates

    @pydantic.model_validator(mode="after")
    def _rates_have_a_budget(self) -> Recipe:
        if self.rates and not any(getattr(self, section) for section in RATED):
            sections = " or ".join(f"[{section}]" for section in RATED)
            raise ValueError(f"rates need a pruning section with a budget that they take the place of: {sections}")
        for rate in self.rates:
            self.at_rate(rate)
        return self

    def at_rate(self, rate: float) -> Recipe:
        """The recipe whose pruning sections all remove ``rate``, in (0, 1), of what they have a budget of."""
        changed = {
            name: section.model_validate({**section.model_dump(), **at(section, rate)})
            for name, at in RATED.items()
            if (section := getattr(self, name))
        }
        return self.model_copy(update={"rates": (), **changed})

    @pydantic.model_validator(mode="after")
    def _lottery_has_a_mask(self) -> Recipe:
        if self.lottery and not self.weights:
            raise ValueError("[lottery] needs [weights], which says how many and which weights go")
        if self.lottery and self.weights and self.weights.regrow != "none":
            raise ValueError("[lottery] trains under a fixed mask: [weights] regrow must be none")
        if self.lottery and self.weights and self.weights.criterion == "reconstruct":
            raise ValueError("[lottery] finds its mask by training: [weights] criterion must not be reconstruct")
        if self.lottery and self.weights and self.weights.sparse_inference:
            raise ValueError(
                "[lottery] trains the model as it was, and [weights] sparse_inference rewrites it: one of them"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _batches_stay_whole(self) -> Recipe:
        if self.distill and self.distill.features and self.finetune.strategy != "none":
            raise ValueError(
                "[distill] features compares the samples of a whole batch, and [finetune] strategy = "
                f'"{self.finetune.strategy}" divides batches among devices: leave one of them out'
            )
        return self

    @pydantic.model_validator(mode="after")
    def _weights_are_trained(self) -> Recipe:
        if self.weights and not self.lottery and not self.finetune.epochs and self.weights.criterion != "reconstruct":
            raise ValueError(
                "[weights] zeroes weights while fine-tuning: [finetune] epochs must be at least 1; without training "
                'it can with criterion = "reconstruct"'
            )
        return self

    @pydantic.model_validator(mode="after")
    def _float_for_sparse(self) -> Recipe:
        if self.weights and self.weights.sparse_inference and "float32" not in self.quantize.modes:
            raise ValueError("[weights] sparse_inference needs float32 among [quantize] modes: no other has kernels")
        return self

    @pydantic.model_validator(mode="after")
    def _trained_for_int8(self) -> Recipe:
        if self.qat and "int8" not in self.quantize.modes:
            raise ValueError("[qat] trains for int8 files: [quantize] modes must have 'int8'")
        if self.qat and "mixed" in self.quantize.modes:
            raise ValueError(
                "[qat] trains all layers for int8, and 'mixed' leaves some in float: take 'mixed' out of [quantize] "
                "modes, or leave out [qat] if no training is wanted"
            )
        if self.qat and self.weights and self.weights.sparse_inference:
            raise ValueError(
                "[weights] sparse_inference makes a float32 file, and a chain with [qat] int8 only: leave out one of "
                "them; [qat] keeps zeros without it, as in the recipe pqat"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _coded_for_int8(self) -> Recipe:
        if self.coded and "int8" not in self.quantize.modes:
            raise ValueError("[coded] is for int8 files: [quantize] modes must have 'int8'")
        if self.coded and (self.qat or self.cluster):
            section = "[qat]" if self.qat else "[cluster]"
            raise ValueError(f"[coded] and {section} both decide which integers the weights become: one of them")
        return self

    @pydantic.model_validator(mode="after")
    def _prepared_models_are_free(self) -> Recipe:
        if self.quantize.equalize and (self.qat or self.cluster or self.coded):
            section = "[qat] has trained ranges" if self.qat else "[coded] has put weights on grids"
            section = "[cluster] has made weights share values" if self.cluster else section
            raise ValueError(f"[quantize] equalize rescales weights after {section}, which undoes that: one of them")
        return self

    def to_toml(self) -> str:
        """The resolved recipe, every default written out."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))
