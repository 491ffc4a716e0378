"""What report.json (schema_version 1) holds.

A required key may still be ``None`` where the type says so: it was not measured, or does not apply. Extra keys are
allowed everywhere: adding one is free, changing or removing one raises ``schema_version``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, Strict

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict()]
Count = Annotated[int, Strict(), Field(ge=0)]
Amount = Annotated[float, Strict(), Field(ge=0)]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1)]
Sha256 = Annotated[str, Strict(), Field(pattern="^[0-9a-f]{64}$")]
Shape = list[int | None]  # None: any, usually the batch
Shapes = Shape | list[Shape] | dict[str, Shape]  # of one tensor, or of several


class Entry(pydantic.BaseModel):
    """Base of all parts: read-only, extra keys are kept. Keys can be read as in report.json: ``entry["bytes"]``."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    def __getitem__(self, key: str) -> object:
        if key in type(self).model_fields:
            return getattr(self, key)
        return (self.__pydantic_extra__ or {})[key]

    def __contains__(self, key: str) -> bool:
        return key in self.model_fields_set

    def get(self, key: str, default: object = None) -> object:
        """The value of a key, or ``default`` where report.json does not have it."""
        if key not in self:
            return default
        return self[key]

    def keys(self) -> list[str]:
        """The keys that report.json has."""
        return [key for key, _ in self if key in self]


class OnHost(Entry):
    """The part of the model that looks words up: it runs on the host, before the file."""

    layers: list[Text]
    inputs: list[Text]


class Imported(Entry):
    """How a model that came as a .tflite compares with it."""

    difference: Number  # of the outputs, relative to the largest
    steps: Number | None  # with the file's rounding, in steps of its outputs' quantization
    unchecked: list[Text]
    states: list[Text]
    input_ranges: list[list[Number] | None]  # of a quantized file, what its inputs can hold


class Model(Entry):
    """The model as it came."""

    name: Text
    source: Text
    params: Count
    macs: Count | None
    input_shape: Shapes
    output_shape: Shapes
    given_shape: Shapes | None = None  # of the input in the file, where that leaves sizes open
    sizes_from: Text | None = None  # what fixed them
    on_host: OnHost | None = None
    imported: Imported | None = None


class Target(Entry):
    name: Text


class Data(Entry):
    """Where the samples came from, and how many each split has."""

    source: Text
    train: Count | None
    validation: Count | None
    test: Count | None
    table: Text | None = None  # how rows become samples


class Metric(Entry):
    """``points``: factor from a difference of the metric to points; 100 for fractions such as accuracy."""

    name: Text
    higher_is_better: Flag
    points: Amount = 1.0


class MetricValue(Entry):
    """Measured on the .tflite of the variant. Accuracy-like metrics are fractions."""

    value: Number
    samples: Count
    split: Text


class MetricFigure(Entry):
    """One metric of one output, as :class:`Metric` and :class:`MetricValue` together."""

    value: Number
    samples: Count
    split: Text
    higher_is_better: Flag
    points: Amount = 1.0


class ClassFigures(Entry):
    """One class; ``None``: undefined, as the precision of a class that is never answered."""

    index: Count
    precision: Fraction | None
    recall: Fraction | None
    f1: Fraction | None
    support: Count  # samples, or positions, whose label it is
    iou: Fraction | None = None  # intersection over union, where each position has a class


class Moments(Entry):
    """Of residuals, truth minus answer, in units of the output; ``None``: no answer was a number."""

    mean: Number | None
    std: Amount | None
    mean_abs: Amount | None


class Histogram(Entry):
    """From the 0.5 % to the 99.5 % quantile; the first and the last bin also hold what is beyond."""

    edges: list[Number]
    counts: list[Count]


class Residuals(Moments):
    not_finite: Count  # answers that are no numbers, left out
    quantiles: dict[Text, Number | None]
    histogram: Histogram


class Outcome(Entry):
    """What one output answered on the test split."""

    kind: Literal["classification", "detection", "multilabel", "regression", "segmentation", "sequence"]
    samples: Count
    confusion: list[list[Count]] | None = None  # rows: truth, columns: answers; None: too many classes, or no classes
    per_class: list[ClassFigures] | None = None
    wrong_labels: list[Count] | None = None  # samples with 0, 1, ... wrong labels
    residuals: Residuals | None = None  # over all values
    per_value: list[Moments] | None = None  # where a sample has several values


class InputFigures(Entry):
    """One input of one sample, after preprocessing."""

    shape: list[Count]
    min: Number | None
    max: Number | None
    mean: Number | None
    values: list[Number | None] | None = None  # of small inputs


class FlippedSample(Entry):
    """``before`` is the baseline's, ``after`` the pick's: a class; the values of a regression; else a figure of the
    sample: its mean absolute error, number of wrong labels, or share of right positions."""

    index: Count  # in the test split
    label: Count | None = None
    truth: list[Number | None] | None = None
    before: Count | Number | list[Number | None] | None
    after: Count | Number | list[Number | None] | None
    confidence_before: Fraction | None = None
    confidence_after: Fraction | None = None
    inputs: list[InputFigures] | None = None


class Flipped(Entry):
    """Samples that baseline and pick answer differently. ``broken``: right before and wrong now; ``repaired``: the
    reverse; of other kinds than one of several classes, worse and better."""

    output: Text
    kind: Text
    total: Count
    broken: Count
    repaired: Count
    samples: list[FlippedSample]  # worst first
    masks: list[Text] | None = None  # whose masks stand at the right of each picture
    boxes: list[Text] | None = None  # whose boxes are drawn, each in a picture of its own, from left to right
    spectrograms: Text | None = None  # pictures are those of sound: of which frequencies, over how long


class ValidationValue(Entry):
    value: Number
    samples: Count


class OutputParity(Entry):
    """One output; errors in its units."""

    name: Text
    max_abs_error: Number | None
    mean_abs_error: Number | None
    top1_agreement: Fraction | None


class Origin(Entry):
    """Where a file departs from its Keras model: signal over error before and behind an operator, in decibels."""

    layer: Text | None
    operator: Text
    tensor: Text
    sqnr_db: Number
    sqnr_before_db: Number


class Parity(Entry):
    """Against the Keras model that the variant was converted from; errors in units of the output."""

    max_abs_error: Number | None
    mean_abs_error: Number | None
    top1_agreement: Fraction | None
    outputs: list[OutputParity] | None = None
    origin: Origin | None = None  # if agreement is low


class Measured(Entry):
    """One latency measurement. ``kernels``: ``"xnnpack"`` or ``"builtin"``."""

    device: Text
    runtime: Text
    threads: Count
    runs: Count
    median_ms: Amount
    p95_ms: Amount | None
    kernels: Text | None = None


class Estimated(Entry):
    """A latency predicted for the target, with the range it should lie in."""

    median_ms: Amount
    low_ms: Amount
    high_ms: Amount
    threads: Count
    model_version: Text | Count


class Instructions(Entry):
    """Of one inference, counted on an emulated board; never a time."""

    device: Text
    runtime: Text
    count: Count


class Latency(Entry):
    estimated: Estimated | None
    measured: list[Measured]


class Memory(Entry):
    arena_bytes: Count | None
    timeline_bytes: list[Count] | None = None  # of the arena, in use while each operator runs


class Placement(Entry):
    accelerator_ops: Count
    cpu_ops: Count
    fully_mapped: Flag


class Compiled(Entry):
    """The file that the target's compiler made of a variant; ``performance`` is the compiler's own estimate."""

    file: Text
    sha256: Sha256
    bytes: Count
    compiler: Text
    version: Text
    performance: dict[Text, Number | Count] | None


class Kernel(Entry):
    """The weights of one layer, as stored in the .tflite; ``sparsity`` is the fraction of zeros."""

    name: Text
    sparsity: Fraction
    weights: Count | None = None
    stored_bytes: Count | None = None  # in the file, indices of a sparse encoding included
    encoding: Literal["dense", "sparse"] | None = None
    expected_kernels: Literal["dense", "sparse"] | None = None  # of XNNPACK on ARM; None: nothing is stored sparse


class SparsePath(Entry):
    """Whether XNNPACK is expected to run sparse kernels on an ARM processor, and if not, why."""

    expected: Flag
    reasons: list[Text]
    zero_share: Fraction


class Operator(Entry):
    """One operator of the main subgraph; ``estimated_ms`` on the target. Later keys are None in older reports.

    ``reads``: indices of the operators whose outputs it reads. ``on_accelerator``: None without one, or if not known.
    """

    index: Count
    name: Text
    output_name: Text
    macs: Count
    estimated_ms: Amount | None
    output_shape: Shape | None = None
    dtype: Text | None = None
    weight_bytes: Count | None = None
    weight_sparsity: Fraction | None = None
    reads: list[Count] | None = None
    on_accelerator: Flag | None = None


class Trial(Entry):
    """One file that was tried for mixed precision; ``met``: its drop is within the limit."""

    float_operators: Count
    drop_points: Number
    bytes: Count
    met: Flag
    chosen: Flag = False


class Mixed(Entry):
    """Which layers stay in float, and the files tried on the way; ``float_layers`` has one name per operator."""

    float_layers: list[Text]
    trials: list[Trial]


class CodedTrial(Entry):
    """One size of encoded weights that was tried; ``met``: it is within the limit."""

    bytes: Count
    loss: Number
    drop_points: Number
    met: Flag


class CodedTensor(Entry):
    """The grid of a layer's weights: its largest integer, and its dead zone in steps."""

    layer: Text
    weights: Count
    levels: Count
    dead: Number


class Coded(Entry):
    """What the weights were rounded to for the fewest bytes when they are encoded; the last trial was chosen."""

    trials: list[CodedTrial]
    tensors: list[CodedTensor]


class Pair(Entry):
    producer: Text
    consumer: Text


class Rounded(Entry):
    """Weights rounded by moments: error of the outputs relative to the model's own, and with rounding to nearest."""

    layers: Count
    nearest: Number
    moments: Number
    used: Flag


class Prepared(Entry):
    """What was changed in the weights before they became integers; ``None``: the recipe does not ask for it."""

    equalized: list[Pair] | None = None
    rounded: Rounded | None = None


class ActivationRanges(Entry):
    """How activation ranges were taken from samples; by method, the error of the outputs relative to the model's."""

    method: Text
    differences: dict[Text, Number]


class Micro(Entry):
    """The file for a microcontroller: its bytes in flash, its arena, and those of the same file not encoded.

    ``recorded_by``: the interpreter that took this arena; None: estimated from the file. ``codes``: by weight tensor.
    ``methods``: of MicroMutableOpResolver, that register its operators.
    """

    file: Text
    sha256: Sha256
    flash_bytes: Count
    ram_bytes: Count
    activation_bytes: Count
    persistent_bytes: Count
    scratch_bytes: Count
    recorded_by: Text | None
    plain_bytes: Count
    plain_ram_bytes: Count
    codes: dict[Text, Text]
    methods: list[Text]
    evaluated_by: Text  # what ran the file whose metric and parity the variant has


class Variant(Entry):
    """One .tflite. ``drop_points``: how much worse than the baseline, in points; negative: better."""

    name: Text
    file: Text
    sha256: Sha256
    bytes: Count
    gzip_bytes: Count | None
    zstd_bytes: Count | None = None
    metadata_bytes: Count | None = None  # of bytes: TFLite metadata and label file
    params: Count | None
    nonzero_params: Count | None
    macs: Count | None
    weight_sparsity: Fraction | None
    metric: MetricValue | None
    parity: Parity | None
    latency: Latency
    memory: Memory
    placement: Placement | None
    compiled: Compiled | None = None
    micro: Micro | None = None
    warnings: list[Text]
    drop_points: Number | None
    validation: ValidationValue | None
    baseline: Flag
    kernels: list[Kernel] | None = None
    series: Text | None = None  # method and format, where the recipe explored several rates of it
    rate: Fraction | None = None  # of what the recipe limits, removed
    control_of: Text | None = None  # the variant that it is only there to be compared with; never a pick
    sparse_path: SparsePath | None = None  # None: nothing is stored sparse
    operators: list[Operator] | None = None
    mixed: Mixed | None = None
    prepared: Prepared | None = None
    activation_ranges: ActivationRanges | None = None
    coded: Coded | None = None
    instructions: Instructions | None = None  # None: built without --device emulator
    metrics: dict[Text, MetricFigure] | None = None  # all metrics of all outputs
    outcomes: dict[Text, Outcome] | None = None  # by output; of the baseline and the pick only
    min_runtime: Text | None = None  # the oldest TensorFlow Lite release that has every operator in the file
    targets: dict[Text, OnTarget] | None = None  # by name of target, of a build for several


class Picks(Entry):
    """Names of variants; ``None`` where none qualifies."""

    quality: Text | None
    balanced: Text | None
    compact: Text | None


class TaskOutput(Entry):
    """What one output is trained for and measured by. ``loss`` is None where it has no labels that count; ``origin``:
    where kind and loss come from."""

    name: Text
    kind: Text | None
    loss: Text | None
    weight: Number
    metrics: list[Text]
    origin: Text


class MaxDropRule(Entry):
    """What a metric may lose against the baseline: ``points`` of a fraction, else ``part`` of the baseline's value."""

    points: Number | None
    part: Number | None


class Gate(Entry):
    """``value`` is the pick's; ``None``: it could not be measured, and then ``passed`` is false.

    ``source``: of a latency, whether it was measured on the target, estimated for it, or measured elsewhere.
    """

    name: Text
    limit: Number
    value: Number | None
    passed: Flag
    source: Text | None = None


class EarlierBuild(Entry):
    """The build that this one was compared with; ``source``: where its report was read."""

    source: Text
    created: Text
    edgeprune_version: Text
    pick: Text


class RegressionRow(Entry):
    """A figure of a variant, then and now; ``limit``: the worst value that passes.

    ``figure``: ``"metric"``, ``"bytes"``, ``"latency_ms"``, ``"arena_bytes"`` or ``"cpu_ops"``. ``before_variant``
    differs where another variant was the pick.
    """

    variant: Text
    before_variant: Text
    figure: Text
    before: Number
    after: Number
    limit: Number
    passed: Flag
    source: Text | None = None


class Regression(Entry):
    """What became of the figures of an earlier build; ``notes``: what could not be compared."""

    baseline: EarlierBuild
    tolerances: dict[Text, Number | Text | None]
    rows: list[RegressionRow]
    notes: list[Text]

    @property
    def worse(self) -> list[RegressionRow]:
        """What got worse by more than it may."""
        return [row for row in self.rows if not row.passed]


class MissingVariant(Entry):
    """A variant that could not be made, or does not run: why, and what to do."""

    name: Text
    what: Text
    fix: Text | None


class OnTarget(Entry):
    """A variant on one of several targets: what depends on the board. ``latency.unknown``: why there is no estimate."""

    latency: Expected
    memory: Memory
    placement: Placement | None
    compiled: Compiled | None = None
    micro: Micro | None = None
    warnings: list[Text]


class Expected(Entry):
    estimated: Estimated | None
    unknown: Text | None = None


class Judged(Entry):
    """One of several targets: the variants that a build for it alone makes, and its picks and gates."""

    name: Text
    title: Text
    variants: list[Text]
    picks: Picks
    pick: Text
    gates: list[Gate]


class StageRun(Entry):
    name: Text
    seconds: Amount
    reused: Flag


class Epoch(Entry):
    """One epoch; losses and metrics may be NaN when a training diverged."""

    epoch: Count
    loss: Number | None
    val_loss: Number | None
    metric: Number | None
    val_metric: Number | None
    learning_rate: Number | None


class Training(Entry):
    name: Text
    epochs: list[Epoch]


class RemovedBlock(Entry):
    """``score``: by the criterion; ``oracle_difference``: from the model with the block bypassed."""

    name: Text
    kind: Text
    layers: list[Text]
    macs: Count
    score: Number
    oracle_difference: Number


class LayerRemoval(Entry):
    criterion: Text
    removed: list[RemovedBlock]


class Penalty(Entry):
    """``before`` and ``after`` training, without the ``weight`` that it had in the loss."""

    name: Text
    weight: Number
    before: Number
    after: Number


class Sparsifying(Entry):
    penalties: list[Penalty]
    epochs: Count


class Lottery(Entry):
    """How a mask was found: the rounds that it took, and the fraction of the weights that it keeps."""

    round: Count
    kept: Number


class KeptLimit(Entry):
    """Something limited: what the choice comes to, what is allowed, and the fall of the loss per percent more."""

    name: Text
    value: Number
    most: Number
    price: Number | None


class WidthStep(Entry):
    """From one width of a group to the next narrower; ``worth``: what is ``saved``, by limit, at the limits' prices."""

    channels: Count
    loss: Number
    saved: dict[Text, Number]
    worth: Number | None


class WidthPoint(Entry):
    """The predicted loss at one width."""

    channels: Count
    loss: Number


class WidthReason(Entry):
    """Why a group got its width: the ``last`` step that was taken, the ``next`` that was not, and the losses around."""

    name: Text
    channels: Count
    kept: Count
    loss: Number
    last: WidthStep | None
    next: WidthStep | None
    curve: list[WidthPoint]


class Allocation(Entry):
    """How good a choice of channels is, under the model of loss and costs: no other has a loss below ``bound``.

    ``blocks``: residual blocks that went as a whole.
    """

    loss: Number
    bound: Number
    seconds: Number
    limits: list[KeptLimit]
    multiple: Count
    block: Count | None = None
    widths: Count | None
    blocks: list[Text] = []
    reasons: list[WidthReason] = []  # of the groups that had a choice


class GoneChannels(Entry):
    """A group of channels that can only go together; ``gone``: those that went, by their numbers in the original model.

    ``gone`` is None where they cannot be followed through several steps; ``frozen``: why none of them can go.
    """

    name: Text
    layers: list[Text]
    original: Count
    gone: list[Count] | None
    frozen: Text | None


class Pruning(Entry):
    """What was done to one pruned model beside removing filters and weights; ``name``: of its last step."""

    name: Text
    layers: LayerRemoval | None = None
    sparsify: Sparsifying | None = None
    lottery: Lottery | None = None
    criterion: Text | None = None  # by which the channels of a group were ranked
    channels: list[GoneChannels] = []
    allocation: Allocation | None = None


class Report(Entry):
    """A whole report.json. Fractions are in [0, 1]; every other figure has its unit in its name.

    ``report.variants[0].bytes`` and ``report["variants"][0]["bytes"]`` are the same; type checkers know the first.
    """

    schema_version: Literal[1]
    created: Text
    edgeprune_version: Text
    command: Text | None  # None: built from Python
    seed: Annotated[int, Strict()]
    deterministic: Flag
    recipe: Text
    model: Model
    target: Target
    data: Data
    metric: Metric
    task: list[TaskOutput] = []  # per output
    variants: Annotated[list[Variant], Field(min_length=1)]
    missing: list[MissingVariant] = []
    max_drop: MaxDropRule | None = None  # the rule that picks and gates go by; None: an older report
    picks: Picks
    pick: Text
    gates: list[Gate]
    targets: list[Judged] = []  # of a build for several; the first is ``target``, whose picks and gates are above
    regression: Regression | None = None  # None: built without --baseline
    stages: list[StageRun]
    training: list[Training]
    pruning: list[Pruning] = []
    class_names: list[Text] | None = None  # in the order of the labels; None: not known
    flipped: Flipped | None = None  # None: the pick is the baseline, or their samples cannot be compared
    warnings: list[Text]
    environment: dict[Text, Text | None]  # versions, runtime, platform, cpu

    @pydantic.field_validator("created")
    @classmethod
    def _iso_8601(cls, value: str) -> str:
        datetime.fromisoformat(value.replace("Z", "+00:00"))  # Python 3.10 does not know the Z
        return value

    @pydantic.model_validator(mode="after")
    def _names_agree(self) -> Report:
        names = [variant.name for variant in self.variants]
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise ValueError(f"variants: the name {twice[0]!r} occurs more than once")
        chosen = {"pick": self.pick, **{f"picks.{key}": value for key, value in self.picks}}
        for key, name in chosen.items():
            if name is not None and name not in names:
                raise ValueError(f"{key}: {name!r} is not the name of a variant ({', '.join(names)})")
        if sum(variant.baseline for variant in self.variants) > 1:
            raise ValueError("variants: more than one is marked as the baseline")
        return self

    def _repr_html_(self) -> str:
        """What a notebook shows: the pick and why, the variants, and quality against cost."""
        from edgeprune.report.views import render_cell

        return render_cell(self)

    @property
    def gates_passed(self) -> bool:
        """Whether the picks keep every gate, those of all targets."""
        return all(gate.passed for gates in (self.gates, *(one.gates for one in self.targets)) for gate in gates)

    @property
    def picked(self) -> Variant:
        """The variant that NAME.tflite is."""
        return next(variant for variant in self.variants if variant.name == self.pick)

    @property
    def passed(self) -> bool:
        """Whether every gate is kept, and nothing got worse than in an earlier build by more than it may."""
        return self.gates_passed and not (self.regression and self.regression.worse)

    @property
    def baseline(self) -> Variant | None:
        """The unpruned float32 variant, if there is one."""
        return next((variant for variant in self.variants if variant.baseline), None)


def parse(report: Mapping[str, Any] | Report) -> Report:
    """The report as typed objects; what is typed already passes.

    Raises:
        ValueError: it does not follow the schema; the message names each key at fault.
    """
    try:
        return Report.model_validate(report)
    except pydantic.ValidationError as error:
        faults = "\n".join(f"  {_where(fault['loc'])}{fault['msg']}" for fault in error.errors(include_url=False))
    raise ValueError(f"This is not a report.json of schema_version 1:\n{faults}")


def validate(report: Mapping[str, Any] | Report) -> None:
    """Check a report.json document against schema_version 1: keys, types, and that names refer to variants.

    Raises:
        ValueError: it does not follow the schema; the message names each key at fault.
    """
    parse(report)


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) + ": " if location else ""
