"""What a stage hands on to the next: files, and facts that are JSON.

Each topic of facts is written by the stages named at its class, and read by later stages and by the report. A new
figure is a key of its topic here first; type checkers then see every reader and writer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, Unpack, cast


class ModelFacts(TypedDict):
    """Of every stage that saves a model. Shapes are with the batch; several inputs or outputs make a list of shapes."""

    params: int
    macs: int
    input_shape: Any
    output_shape: Any


class SizesFacts(TypedDict):
    """Stage ``fix_sizes``: the input shape of the model as it came, with the batch, and what fixed its open sizes."""

    given_shape: Any
    sizes_from: str


class FrontFacts(TypedDict):
    """Stage ``load``, of a model that looks words up: the layers that stay on the host, and the names of its inputs."""

    layers: list[str]
    inputs: list[str]


class ImportedFacts(TypedDict):
    """Stage ``load``, of a .tflite: how far the model is from it, as ``from_tflite.check.Checked`` has it."""

    difference: float
    steps: float | None
    unchecked: list[str]
    states: list[str]
    input_ranges: list[list[float] | None]


class MetricFacts(TypedDict, total=False):
    """The figures on a split; ``value`` is the one that choices go by."""

    value: float
    samples: int
    split: str
    metrics: dict[str, float]


class BaselineFacts(TypedDict):
    """Stage ``baseline``: the metric of the model as it came, on validation data."""

    validation: float
    warnings: list[str]


class KernelZeros(TypedDict):
    """One pruned kernel: zeros among its weights."""

    layer: str
    size: int
    zeros: int


class KernelClusters(TypedDict):
    """One kernel of shared weights: different values among its weights."""

    layer: str
    size: int
    distinct: int


class RemovedChannels(TypedDict):
    """One group of channels, and how many of it went.

    ``gone``: all that went of the ``original`` channels, in steps before, too, by their numbers there; None where a
    step before had other groups, so that they cannot be followed.
    """

    name: str
    layers: list[str]
    channels: int
    removed: int
    original: int
    gone: list[int] | None
    frozen: str | None


class RefittedLayer(TypedDict):
    """One layer after pruning: its error relative to its targets' variance, or why it could not be refitted."""

    layer: str
    before: float | None
    after: float | None
    seconds: float
    reason: str | None


class KeptLimit(TypedDict):
    """Something limited: what the choice comes to, what is allowed, and the fall of the loss per percent more."""

    name: str
    value: float
    most: float
    price: float | None


class WidthStep(TypedDict):
    """From one width of a group to the next narrower; ``worth``: what is ``saved``, by limit, at the limits' prices."""

    channels: int
    loss: float
    saved: dict[str, float]
    worth: float | None


class WidthPoint(TypedDict):
    """The predicted loss at one width."""

    channels: int
    loss: float


class WidthReason(TypedDict):
    """Why a group got its width: the ``last`` step that was taken, the ``next`` that was not, and the losses around."""

    name: str
    channels: int
    kept: int
    loss: float
    last: WidthStep | None
    next: WidthStep | None
    curve: list[WidthPoint]


class AllocationFacts(TypedDict):
    """How good a choice of channels is: its loss, the least possible, and the limits that it keeps.

    ``multiple``: channels went in steps of this, above ``block`` channels in steps of ``block``;
    ``widths``: the most widths that a group was tried in, if not in all;
    ``blocks``: residual blocks that went as a whole.
    ``reasons``: of the groups that had a choice.
    """

    loss: float
    bound: float
    seconds: float
    limits: list[KeptLimit]
    multiple: int
    block: int | None
    widths: int | None
    blocks: list[str]
    reasons: list[WidthReason]


class FiltersFacts(TypedDict):
    """Stage ``filters``: ``validation`` has the metric after removing (``pruned``) and after ``reconstructed``.

    ``original_files``: by limit of a file, as in ``allocation``, what the file of the unpruned model comes to.
    """

    criterion: str
    groups: list[RemovedChannels]
    oracle_difference: float | None
    validation: dict[str, float]
    refitted: list[RefittedLayer]
    allocation: AllocationFacts
    original_files: dict[str, float]


class ZeroedFacts(TypedDict):
    """Stage ``zero``: the metric on validation with the zeros and after the refit, and what became of each layer."""

    validation: dict[str, float]
    refitted: list[RefittedLayer]


class RemovedBlock(TypedDict):
    """One residual block or layer that went."""

    name: str
    kind: str
    layers: list[str]
    macs: float
    score: float
    oracle_difference: float


class LayersFacts(TypedDict):
    """Stage ``layers``."""

    criterion: str
    removed: list[RemovedBlock]
    validation: float


class PenaltyFacts(TypedDict):
    """One penalty before and after training with it, without its ``weight`` in the loss."""

    name: str
    weight: float
    before: float
    after: float


class SparsifyFacts(TypedDict):
    """Stage ``sparsify``."""

    penalties: list[PenaltyFacts]
    epochs: int
    validation: float


class LotteryFacts(TypedDict):
    """Stage ``ticket``: its round, the fraction of the weights that the mask keeps, and how its training went."""

    round: int
    kept: float
    training: list[dict[str, float]]


class SparseInferenceFacts(TypedDict):
    """Stage ``prepare_sparse``: what was done to the layers that were rewritten, and those to be pruned."""

    changed: dict[str, str]
    layers: list[str]


class QatFacts(TypedDict, total=False):
    """Stage ``qat``: whether the model was trained for int8 (else the reason), and what the training preserved."""

    applied: bool
    reason: str
    preserved: list[str]


class RangeFacts(TypedDict):
    """How activation ranges were taken, and by method how far the outputs are from the model's."""

    method: str
    differences: dict[str, float]


class CalibrationFacts(TypedDict):
    """Stages that calibrate: which training samples, as positions in the split."""

    samples: int
    indices: list[int]
    warnings: list[str]
    ranges: NotRequired[RangeFacts]  # where the recipe leaves the choice to the files' answers


class SparseEncodingFacts(TypedDict):
    """Whether weights are stored sparse, and the sizes of both files."""

    used: bool
    dense_bytes: int
    sparse_bytes: int


class _ConversionFacts(TypedDict):
    warnings: list[str]
    select_operators: list[str]
    metadata_bytes: int


class ConversionFacts(_ConversionFacts, total=False):
    """Stages that convert: operators of full TensorFlow in the file, bytes of its metadata."""

    sparse_encoding: SparseEncodingFacts


class TrialFacts(TypedDict):
    """One file that mixed precision tried."""

    float_operators: int
    drop_points: float
    bytes: int
    met: bool
    chosen: bool


class MixedFacts(TypedDict):
    """Stage ``mix_and_convert``."""

    float_layers: list[str]
    trials: list[TrialFacts]
    warnings: list[str]


class RoundedFacts(TypedDict):
    """Weights rounded by moments: how many layers, the error of the outputs with them and rounded to nearest, and
    whether they were used."""

    layers: int
    nearest: float
    moments: float
    used: bool


class CodedTrial(TypedDict):
    """One size that stage ``code_weights`` tried: bytes of the encoded weights, the larger drop of those on
    validation and on training samples."""

    bytes: int
    loss: float
    drop_points: float
    met: bool


class CodedTensor(TypedDict):
    """The grid of a layer's weights: its largest integer, and its dead zone in steps."""

    layer: str
    weights: int
    levels: int
    dead: float


class CodedFacts(TypedDict):
    """Stage ``code_weights``: ``trials``, the last of which was chosen, and its grids."""

    trials: list[CodedTrial]
    tensors: list[CodedTensor]
    warnings: list[str]


class PreparedFacts(TypedDict, total=False):
    """Stage ``round_weights``: pairs of layers that were evened out, and how weights were rounded."""

    equalized: list[dict[str, str]]
    rounded: RoundedFacts
    warnings: list[str]


class CompiledFacts(TypedDict):
    """Stage ``compile_model``: what the vendor's compiler said."""

    compiler: str
    version: str
    placement: dict[str, Any]
    performance: dict[str, Any] | None
    warnings: list[str]


class MicroFacts(TypedDict):
    """Stage ``encode_weights``: what the file for a microcontroller takes (:class:`edgeprune.runtime.micro.Footprint`).

    ``plain_…``: without encoded weights. ``codes``: by encoded weight tensor. ``methods``: that register operators.
    """

    flash_bytes: int
    ram_bytes: int
    activation_bytes: int
    persistent_bytes: int
    scratch_bytes: int
    recorded_by: str | None
    plain_bytes: int
    plain_ram_bytes: int
    codes: dict[str, str]
    methods: list[str]


class EvaluationFacts(TypedDict):
    """Stages ``evaluate``, ``evaluate_micro``: the file's figures, ``parity`` with its Keras model, what ran it."""

    validation: MetricFacts
    test: MetricFacts
    parity: dict[str, Any]
    runtime: str


class OnDeviceFacts(TypedDict, total=False):
    """Stage ``measure_on_device``: entries of ``latency.measured``, or an exact count of instructions."""

    measured: list[dict[str, Any]]
    instructions: dict[str, Any]
    warnings: list[str]


class Facts(TypedDict, total=False):
    """All topics; a stage adds its own. ``profile`` is :meth:`edgeprune.profiling.profile.Profile.to_dict`."""

    model: ModelFacts
    compiled_with: dict[str, Any]  # :class:`edgeprune.models.compiled.Compiled`, of the model as it came
    original: ModelFacts  # of the model before anything was removed
    front: FrontFacts  # where a part of the model stays on the host
    imported: ImportedFacts  # where the model came as a .tflite
    sizes: SizesFacts  # where the model left sizes of its inputs open
    baseline: BaselineFacts
    training: list[dict[str, float]]  # one entry per epoch of the last training
    zeros: list[KernelZeros]
    clusters: list[KernelClusters]
    filters: FiltersFacts
    zeroed: ZeroedFacts
    layers: LayersFacts
    sparsify: SparsifyFacts
    lottery: LotteryFacts
    sparse_inference: SparseInferenceFacts
    qat: QatFacts
    calibration: CalibrationFacts
    conversion: ConversionFacts
    mixed: MixedFacts
    prepared: PreparedFacts
    coded: CodedFacts
    compiled: CompiledFacts
    micro: MicroFacts
    profile: dict[str, Any]
    evaluation: EvaluationFacts
    validated: MetricFacts  # stage ``validate``: the file's figures on validation
    latency: list[dict[str, Any]]  # on this machine
    on_device: OnDeviceFacts
    warnings: list[str]


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What a stage hands on: files on disk by role (``model``, ``tflite``, …) and JSON facts by topic."""

    files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    facts: Facts = dataclasses.field(default_factory=Facts)

    def with_(self, files: Mapping[str, Path] | None = None, **facts: Unpack[Facts]) -> Artifact:
        """A new artifact with some files and topics added or replaced."""
        return Artifact({**self.files, **(files or {})}, cast(Facts, {**self.facts, **facts}))
