"""The JSON documents that commands print with ``--json``, beside report.json; ``PRINTED`` says which is whose.

As in report.json, ``None`` means that something was not measured or does not apply, extra keys may come, fractions are
in [0, 1], and every other figure has its unit in its name.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from edgeprune.report.schema import (
    Amount,
    Count,
    Entry,
    Estimated,
    Flag,
    Fraction,
    Kernel,
    Measured,
    Memory,
    Metric,
    Number,
    Operator,
    Sha256,
    SparsePath,
    StageRun,
    Text,
)

Figure = Number | Count | Text | None


class Judged(Entry):
    """What a document about a model and its data begins with."""

    schema_version: Literal[1]
    created: Text
    edgeprune_version: Text
    model: dict[Text, Any]
    data: dict[Text, Any]
    metric: Metric


class Guess(Estimated):
    kernels: Text
    origin: Text  # fitted, derived, or the compiler's
    range_note: Text | None  # why the range is wide


class Guesses(Entry):
    """``estimated`` is for the kernels that the target runs; ``unknown``: why there is none."""

    estimated: Guess | None
    others: list[Guess]
    unknown: Text | None


class Plan(Memory):
    """What the interpreter allocates; ``dynamic``: sizes are known at run time only, and these are a lower limit."""

    persistent_bytes: Count
    peak_bytes: Count
    peak_operator: Text | None
    dynamic: Flag


class Unmapped(Entry):
    """An operator that the accelerator does not take; ``certain``: it is known, and not only likely."""

    index: Count
    name: Text
    on_accelerator: Flag
    certain: Flag
    status: Text
    reason: Text
    fix: Text | None


class Placed(Entry):
    """What a processor takes of a file; ``source``: predicted, or the compiler that said so."""

    processor: Text
    source: Text
    accelerator_ops: Count
    cpu_ops: Count
    uncertain_ops: Count
    fully_mapped: Flag
    partitions: Count
    cached_param_bytes: Count | None
    streamed_param_bytes: Count | None
    not_mapped: list[Unmapped]


class OnMicro(Entry):
    """On a microcontroller, estimated from the file."""

    flash_bytes: Count
    ram_bytes: Count
    activation_bytes: Count
    persistent_bytes: Count
    scratch_bytes: Count


class Profile(Entry):
    """``edgeprune profile FILE --target NAME``."""

    file: Text
    target: Text | None
    sha256: Sha256
    bytes: Count
    gzip_bytes: Count  # of a quick level
    zstd_bytes: Count | None
    params: Count
    nonzero_params: Count
    weight_sparsity: Fraction | None
    macs: Count
    weight_bytes: Count  # of the kernels, as stored
    subgraphs: Count
    graph: Text  # name of the main subgraph
    metadata: list[Text]  # names
    latency: Guesses
    memory: Plan
    micro: OnMicro | None
    sparse_path: SparsePath | None  # None: nothing in the file is stored sparse
    placement: Placed | None  # None: the target has no accelerator
    delegates: list[Placed]
    performance: dict[Text, Any] | None  # what the target's compiler estimates
    min_runtime: Text | None  # of TensorFlow Lite
    min_litert: Text | None
    operators: list[Operator]
    kernels: list[Kernel]
    warnings: list[Text]


class Lost(Entry):
    """A target for which nothing can be said, such as one whose compiler is not installed."""

    target: Text
    what: Text
    fix: Text | None


class Profiles(Entry):
    """``edgeprune profile FILE`` with several targets."""

    file: Text
    targets: list[Profile]
    missing: list[Lost]


class Finding(Entry):
    """``where``: layers, or operators as 'index NAME'; empty for the whole model. ``formats``: where it was found."""

    severity: Literal["error", "warning", "note"]  # will not run; runs badly; could run faster
    what: Text
    fix: Text | None
    where: list[Text]
    checker: Text
    formats: list[Text]


class Check(Entry):
    """``edgeprune check MODEL --target NAME``."""

    model: Text
    target: Text
    findings: list[Finding]


class Change(Entry):
    a: Figure
    b: Figure
    change: Number | Count | None  # b - a of numbers


class KindSide(Entry):
    """All operators of one kind in a file."""

    dtypes: list[Text]
    count: Count
    macs: Count
    weight_bytes: Count
    output_bytes: Count


class KindRow(Entry):
    operator: Text
    a: KindSide | None
    b: KindSide | None


class OperatorSide(Entry):
    index: Count
    dtype: Text | None
    macs: Count
    weight_bytes: Count
    written_bytes: Count
    estimated_ms: Amount | None
    output_shape: list[int]


class OperatorPair(Entry):
    operator: Text
    a: OperatorSide
    b: OperatorSide


class MetricPair(Entry):
    values: list[Number]  # of a and b
    higher_is_better: Flag
    points: Amount


class Agreement(Entry):
    agreement: Number
    max_abs_difference: Number


class Answers(Entry):
    """Of both files on the same samples; ``primary``: the metric that counts most, None without labels."""

    accuracy: list[Number] | None
    samples: Count
    agreement: Number
    metrics: dict[Text, MetricPair]
    primary: Text | None
    outputs: dict[Text, Agreement]
    warnings: list[Text]


class Comparison(Entry):
    """``edgeprune compare A B``."""

    a: Text
    b: Text
    target: Text | None
    figures: dict[Text, Change]
    operators: list[KindRow]
    aligned: list[OperatorPair] | None  # None: the operators of the files do not correspond
    accuracy: Answers | None  # None: without --data


class Layer(Entry):
    name: Text
    params: Count
    macs: Count


class Member(Entry):
    layer: Text
    weight: Text | None
    axis: int
    role: Text


class Group(Entry):
    """Filters that can only go together. ``frozen``: none of them can; ``reasons``: why, and how many for each."""

    name: Text
    size: Count
    prunable: Count
    frozen: Flag | Text | None
    reasons: dict[Text, Count]
    layers: list[Text]
    members: list[Member]
    saves_params_per_channel: Number | Count
    saves_macs_per_channel: Number | Count


class BudgetLeft(Entry):
    """What a budget of latency leaves, in shares of the unpruned model; ``lost``: of the weights' norms."""

    asked: Fraction
    latency_ms: Amount
    latency: Amount
    macs: Amount
    params: Amount
    lost: Number
    gap: Number


class ChannelCosts(Entry):
    """``groups``: milliseconds that a channel saves; ``multiple``: channels that go at once."""

    target: Text
    mode: Text
    latency_ms: Amount
    multiple: Count
    groups: dict[Text, Number]
    budgets: list[BudgetLeft]


class Inspection(Entry):
    """``edgeprune inspect MODEL``."""

    name: Text
    input_shape: Any
    note: Text | None
    params: Count
    macs: Count
    uncounted: list[Text]  # layers whose MACs no rule knows; they count 0
    layers: list[Layer]
    groups: list[Group]
    on_target: ChannelCosts | None = None  # with --target


class Curve(Entry):
    """One rate of one group, removed without training."""

    rate: Fraction
    removed: Count
    metric: Number | None
    drop_points: Number | None
    loss: Number | None


class SensitiveGroup(Entry):
    name: Text
    channels: Count
    layers: list[Text]
    frozen: Flag | Text | None
    saves_macs_per_channel: Number | Count
    saves_params_per_channel: Number | Count
    tolerated_rate: Fraction | None  # the largest whose drop is at most allowed_drop
    recommended_rate: Fraction | None
    points: list[Curve]


class Sensitivity(Judged):
    """``edgeprune sensitivity MODEL``: sensitivity.json."""

    criterion: Text
    seed: int
    rates: list[Fraction]
    allowed_drop: Number
    baseline: dict[Text, Number | None]
    budget: dict[Text, Any]
    reachable: Flag
    recommendation: Text
    groups: list[SensitiveGroup]


class TrialFigures(Entry):
    """On validation data; latency is estimated on the target."""

    value: Number
    drop: Number | None = None
    latency_ms: Amount | None
    bytes: Count
    gzip_bytes: Count
    params: Count
    nonzero_params: Count
    macs: Count
    weight_sparsity: Fraction | None


class OnTest(Entry):
    value: Number
    drop: Number


class OnFront(TrialFigures):
    """A file that no other beats in every objective; ``test``: None where the search was ended before."""

    trial: Count
    rung: Text
    test: OnTest | None


class Rung(Entry):
    figures: TrialFigures
    stages: list[StageRun]
    seconds: Amount
    rss_bytes: Count


class SearchTrial(Entry):
    """``rungs``: what each step of the ladder that it climbed made; ``reason``: why it was stopped or failed."""

    number: Count
    state: Literal["running", "complete", "stopped", "failed", "repeated"]
    reason: Text
    params: dict[Text, Any]
    recipe: dict[Text, Any] | None
    rungs: dict[Text, Rung]


class Best(Entry):
    trial: Count
    rung: Text
    folder: Text | None  # below the folder of the search


class SearchTarget(Entry):
    """``met``: whether a file keeps every limit; ``best`` is that file, else the one that misses them least."""

    name: Text
    objectives: list[Text]
    limits: dict[Text, Number | Count]
    reference: TrialFigures  # of the unpruned float32 file
    met: Flag
    message: Text
    best: Best | None
    front: list[OnFront]
    importances: dict[Text, Number] | None
    space: dict[Text, Any]
    trials: list[SearchTrial]


class Search(Judged):
    """``edgeprune search MODEL``: search.json."""

    seconds: Amount
    targets: list[SearchTarget]


class Device(Entry):
    address: Text
    name: Text | None = None  # None: the device went away before it was asked
    machine: Text | None = None
    system: Text | None = None


class BenchResult(Entry):
    """One file. A tool that counts has ``instructions`` in the place of times; more keys are the tool's own."""

    file: Text
    sha256: Sha256
    bytes: Count
    target: Text | None
    created: Text
    device: Text
    runtime: Text | None
    threads: Count
    kernels: Text | None
    complete: Flag = True  # false: the device went away in the middle
    runs: Count | None = None
    median_ms: Amount | None = None
    p95_ms: Amount | None = None
    instructions: Count | None = None
    accuracy: dict[Text, Any] | None = None  # with --data
    explained: dict[Text, Any] | None = None  # with --explain: where the time goes


class Ratio(Entry):
    """How many times as long b takes as a, or how many times the instructions."""

    a: Text
    b: Text
    ratio: Amount | None = None
    low: Amount | None = None
    high: Amount | None = None
    confidence: Fraction | None = None
    rounds: Count | None = None
    instructions_ratio: Amount | None = None
    explained: dict[Text, Any] | None = None  # with --explain: what the difference consists of


class BenchGate(Entry):
    file: Text
    name: Text
    limit: Number | Count
    value: Number | Count
    passed: Flag


class Bench(Entry):
    """``edgeprune bench FILE --device ADDRESS``."""

    device: Device
    results: list[BenchResult]
    comparison: Ratio | None
    warnings: list[Text]
    gates: list[BenchGate]


class RunVariant(Entry):
    name: Text
    file: Text
    sha256: Sha256
    bytes: Count
    gzip_bytes: Count | None
    params: Count | None
    macs: Count | None
    weight_sparsity: Fraction | None
    drop_points: Number | None
    metric: Number | None
    estimated_ms: Amount | None
    measured: list[Measured]
    arena_bytes: Count | None


class Run(Entry):
    name: Text
    model: Text
    target: Text
    recipe: Text
    metric_name: Text
    passed: Flag
    pick: Text
    variants: list[RunVariant]


class Runs(Entry):
    """``edgeprune report RUN RUN …``; ``differs``: the settings that are not the same in all runs."""

    runs: list[Run]
    differs: list[Text]


class TargetName(Entry):
    name: Text
    title: Text
    aliases: list[Text]


class Targets(pydantic.RootModel[list[TargetName]]):
    """``edgeprune targets list``."""


class Emulator(Entry):
    """``edgeprune emulator setup``."""

    folder: Text
    bytes: Count
