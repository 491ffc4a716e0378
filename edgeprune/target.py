"""Target: the board that a model is built for. Facts, each with its source, read from ``targets/NAME.toml``."""

from __future__ import annotations

import functools
import importlib.resources
import math
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import pydantic
from pydantic import AfterValidator, Field, PlainSerializer

from edgeprune.errors import TargetError, UsageError, did_you_mean

Positive = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")]
DType = Literal["float32", "float16", "int8"]
K = TypeVar("K")
V = TypeVar("V")


def _frozen(value: Mapping[K, V]) -> Mapping[K, V]:
    return MappingProxyType(dict(value))


ByDType = Annotated[Mapping[DType, Amount], AfterValidator(_frozen), PlainSerializer(dict)]
Multiples = Annotated[Mapping[DType, Positive], AfterValidator(_frozen), PlainSerializer(dict)]
Sources = Annotated[Mapping[str, str], AfterValidator(_frozen), PlainSerializer(dict)]


class Facts(pydantic.BaseModel):
    """Base of all tables of a target file: immutable, and unknown keys are errors."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class BoardRuntime(Facts):
    """``[runtime]``: the oldest runtime that the board is expected to have."""

    package: Literal["ai-edge-litert", "litert", "tensorflow", "tensorflow-lite", "tflite-micro", "tflite-runtime"]
    version: Annotated[str, Field(pattern=r"^\d+(\.\d+)+")]  # of tflite-micro, which has no releases: the day


class Micro(Facts):
    """``[micro]``: a microcontroller, whose files TensorFlow Lite Micro runs.

    The program has to fit beside the model. ``None``: of a family, whose boards differ.
    """

    flash_bytes: Positive | None = None  # that programs and models can take
    ram_bytes: Positive | None = None  # in one piece, as an arena is


class Cpu(Facts):
    """``[cpu]``: the cores that run the model."""

    model: str
    architecture: Literal["aarch64", "armv7", "armv7e-m", "x86_64", "xtensa"]
    cores: Positive
    clock_hz: Positive
    l1d_bytes: Positive | None = None  # per core
    l2_bytes: Positive | None = None
    l2_shared: bool | None = None  # by all cores; otherwise each core has its own
    l3_bytes: Positive | None = None  # shared by all cores
    memory_bandwidth_bytes_per_s: Amount | None = None  # of a copy by one core, each byte counted once
    dot_product: bool | None = None  # int8 dot-product instructions
    macs_per_cycle: ByDType = Field(default_factory=lambda: _frozen({}))  # peak, per core


class Accelerator(Facts):
    """``[accelerator]``: a second processor that runs parts of a graph."""

    model: str
    clock_hz: Positive | None = None
    peak_macs_per_s: Amount | None = None
    parameter_cache_bytes: Positive | None = None
    activation_memory_bytes: Positive | None = None
    link: str | None = None
    link_bytes_per_s: Amount | None = None
    power_w: Amount | None = None


class CompilerSettings(Facts):
    """``[compiler]``: the vendor's compiler for this target, see :mod:`edgeprune.hardware.compilers`."""

    name: Literal["edgetpu", "vela"]
    arguments: tuple[str, ...] = ()  # of its command line, before the model
    required: bool = False  # the accelerator cannot be used without it, and its placement cannot be predicted
    processor: str | None = None  # name in reports of what it compiles for


class CpuSeconds(Facts):
    """Seconds that one core takes for one unit of each kind of work.

    The comments say what is counted; :mod:`edgeprune.hardware.latency.features` counts it.
    """

    conv_macs: Amount  # multiply-accumulates of convolutions, with output channels padded to channel_multiple
    conv_elements: Amount  # read and written by convolutions: packing the input, rescaling and clamping the output
    dense_macs: Amount  # multiply-accumulates of fully connected layers and other products of few rows
    depthwise_macs: Amount  # of depthwise convolutions, with what narrow ones compute for nothing
    elementwise_elements: Amount  # of the output: additions, products, clamps, hard-swish
    nonlinear_elements: Amount  # of the output: sigmoid, tanh, softmax, exponentials
    reduced_elements: Amount  # of the input: pooling and means
    window_rows: Amount  # copied when windows are unrolled into rows of a matrix: output pixels x window height
    moved_bytes: Amount  # read and written by that unrolling, and by operators that only copy
    # Of weights that are read again for each few rows of a product, and miss the first-level cache. All cores together.
    panel_bytes: Amount
    memory_bytes: Amount  # read from and written to main memory
    operators: Amount  # started, without those that do nothing at run time


class SecondsByDType(Facts):
    """``[latency.….seconds_per]``: one table for float32 kernels and one for int8 kernels."""

    float32: CpuSeconds
    int8: CpuSeconds


class EdgeTpuSeconds(Facts):
    """Seconds for one unit of each kind of work on an Edge TPU (:mod:`edgeprune.hardware.latency.edgetpu_features`)."""

    array_cycles: Amount  # of matrix products: rows x blocks of 64 inputs x blocks of 64 outputs
    depthwise_cycles: Amount  # rows x window x blocks of 64 channels
    activation_elements: Amount  # read and written on the chip
    sent_bytes: Amount  # over the link to the chip: inputs, and parameters that are not cached
    returned_bytes: Amount  # over the link from the chip: outputs
    operators: Amount
    inferences: Amount


class Coefficients(Facts):
    """Base of the tables of coefficients: where they come from, and how good they are.

    Attributes:
        how: the source of every number in the table.
        origin: 'fitted' to measurements of this board, or 'derived' from another board and hardware facts.
        measurements: number of measurements in the fit.
        range_factor: about 80 % of true latencies lie between estimate / factor and estimate * factor.
        range_note: why the range is wider than the errors on files left out would make it, where it is.
        heldout_median_error: median relative error on architectures that were left out of the fit.
        heldout_rank_correlation: of estimates and measurements, on the same architectures.
    """

    how: Annotated[str, Field(min_length=10)]
    origin: Literal["fitted", "derived"]
    measurements: Annotated[int, Field(ge=0)]
    range_factor: Annotated[float, Field(gt=1)]
    range_note: str | None = None
    heldout_median_error: Annotated[float, Field(ge=0)] | None = None
    heldout_rank_correlation: Annotated[float, Field(ge=-1, le=1)] | None = None


class CpuLatency(Coefficients):
    """``[latency.builtin]``, ``[latency.xnnpack]``: one table per set of kernels."""

    serial_fraction: Annotated[float, Field(ge=0, le=1)]  # of the work that threads share, the part they cannot share
    seconds_per: SecondsByDType


class EdgeTpuLatency(Coefficients):
    """``[latency.edgetpu]``; for operators that stay on the host's CPU, ``[latency.builtin]`` is used."""

    seconds_per: EdgeTpuSeconds


class LatencyModel(Facts):
    """``[latency]``: coefficients of :mod:`edgeprune.hardware.latency.estimate`."""

    version: str
    kernels: Literal["builtin", "xnnpack", "edgetpu"]  # the table that an estimate uses unless another is asked for
    builtin: CpuLatency | None = None
    xnnpack: CpuLatency | None = None
    edgetpu: EdgeTpuLatency | None = None

    @pydantic.model_validator(mode="after")
    def _default_is_there(self) -> LatencyModel:
        if getattr(self, self.kernels) is None:
            raise ValueError(f"kernels is {self.kernels!r}, but there is no table latency.{self.kernels}")
        return self


class Quantization(Facts):
    """``[quantization]``: what the target requires of full-integer files."""

    io: Literal["float", "int8", "uint8"]  # number format of their inputs and outputs
    static_batch: bool = False  # all sizes must be fixed, the batch included


@dataclass(frozen=True)
class ChannelSteps:
    """The numbers of channels that leave no part of a kernel's work unused.

    Attributes:
        multiple: they are multiples of this,
        block: and above so many, multiples of this; None: of no other number.
    """

    multiple: int = 1
    block: int | None = None

    def at(self, channels: int) -> int:
        """The multiple that so many channels are rounded up to."""
        return self.block if self.block and channels > self.block else self.multiple

    def padded(self, channels: int) -> int:
        """How many channels are computed for so many."""
        return -(-channels // self.at(channels)) * self.at(channels)

    def finer(self) -> ChannelSteps:
        """Steps that leave more numbers to choose from."""
        return ChannelSteps(self.multiple) if self.block else ChannelSteps(max(self.multiple // 2, 1))

    def both(self, other: ChannelSteps) -> ChannelSteps:
        """Steps that suit two boards."""
        multiple, blocks = math.lcm(self.multiple, other.multiple), {self.block, other.block} - {None}
        return ChannelSteps(multiple, math.lcm(multiple, *blocks) if blocks else None)  # type: ignore[arg-type]


class Target(Facts):
    """A board.

    Attributes:
        threads: number of threads that measurements and estimates use unless told otherwise.
        delegates: of the board's runtime, beside the accelerator.
        channel_multiple: number format → multiple of channels that fills the vectors of the kernels.
        channel_block: number format → above so many channels, they count in multiples of this.
        sources: dotted path of a fact → where it was read. Every number needs one, except the coefficients under
            ``latency``, which have their source in ``how``.
    """

    name: Name
    title: str
    aliases: tuple[Name, ...] = ()
    threads: Positive
    runtime: BoardRuntime
    cpu: Cpu | None = None
    accelerator: Accelerator | None = None
    compiler: CompilerSettings | None = None
    micro: Micro | None = None
    delegates: tuple[Literal["gpu", "mediatek", "nnapi", "qualcomm", "xnnpack"], ...] = ("xnnpack",)
    quantization: Quantization
    latency: LatencyModel | None = None
    channel_multiple: Multiples = Field(default_factory=lambda: _frozen({}))
    channel_block: Multiples = Field(default_factory=lambda: _frozen({}))
    sources: Sources

    def channel_steps(self, dtype: str) -> ChannelSteps:
        """Of a number format: any number of channels for one that the file says nothing about."""
        return ChannelSteps(self.channel_multiple.get(dtype, 1), self.channel_block.get(dtype))  # type: ignore[call-overload]

    def __reduce__(self) -> tuple[Any, ...]:
        """From one process to another: read-only tables cannot be pickled."""
        return type(self).model_validate, (self.model_dump(mode="json"),)

    @pydantic.model_validator(mode="after")
    def _micro_has_its_runtime(self) -> Target:
        if (self.micro is not None) != (self.runtime.package == "tflite-micro"):
            raise ValueError("[micro] and the runtime package tflite-micro go together")
        return self

    @pydantic.model_validator(mode="after")
    def _sourced(self) -> Target:
        facts = dict(_leaves(self.model_dump(exclude={"sources", "latency"}, exclude_none=True)))
        numbers = {path for path, value in facts.items() if type(value) in (int, float)}
        missing, unused = sorted(numbers - self.sources.keys()), sorted(self.sources.keys() - facts.keys())
        if missing or unused:
            complaints = [f"no source for {path}" for path in missing]
            raise ValueError(
                "; ".join(complaints + [f"a source for {path}, which is not in the file" for path in unused])
            )
        return self


def with_runtime(target: Target, text: str) -> Target:
    """The target with another runtime installed on it.

    Args:
        target: the board.
        text: package and version: 'ai-edge-litert 2.1.6'.

    Raises:
        TargetError: an unknown package, or no version.
    """
    package, _, version = text.partition(" ")
    try:
        runtime = BoardRuntime.model_validate({"package": package, "version": version.strip()})
    except pydantic.ValidationError:
        packages = typing.get_args(BoardRuntime.model_fields["package"].annotation)
        raise TargetError(
            f"{text!r} is not a runtime and its version.",
            expected=f"one of {', '.join(packages)}, followed by a version: 'ai-edge-litert 2.1.6'.",
        ) from None
    return target.model_copy(update={"runtime": runtime})


def target_names() -> list[str]:
    """Names of the targets that come with edgeprune."""
    return sorted(_known())


def load_target(name_or_path: str | Path) -> Target:
    """Read a target by name or alias, or from a TOML file.

    Raises:
        TargetError: no such target or file, not TOML, unknown keys, values out of range, numbers without a source.
    """
    name, known = str(name_or_path), _known()
    aliases = {alias: target.name for target in known.values() for alias in target.aliases}
    if name in known or name in aliases:
        return known[aliases.get(name, name)]
    if name.endswith(".toml") or Path(name).is_file():
        return _parse(_read(Path(name)), name)
    words = sorted([*known, *aliases])
    raise TargetError(
        f"There is no target {name!r}{did_you_mean(name, words) or '.'}",
        expected=f"a TOML file, or one of: {', '.join(words)}.",
        fix="`edgeprune targets list` describes them.",
    )


ALL = "all"
OneOrMore: TypeAlias = str | Path | Target | Sequence[str | Path | Target]


def load_targets(given: OneOrMore) -> tuple[Target, ...]:
    """One target or several: each by name or file, or ready; "all" stands for those that come with edgeprune.

    Raises:
        TargetError: as :func:`load_target`.
        UsageError: none, or two that are called the same.
    """
    several = [given] if isinstance(given, str | Path | Target) else list(given)
    names = [one for entry in several for one in (target_names() if entry == ALL else [entry])]
    targets = tuple(one if isinstance(one, Target) else load_target(one) for one in names)
    if not targets or len({target.name for target in targets}) < len(targets):
        raise UsageError(
            f"{len(targets)} targets were given: {', '.join(target.name for target in targets) or 'none'}.",
            expected="at least one, and each once, under a name of its own.",
        )
    return targets


def to_toml(target: Target) -> str:
    """The text of a target file. Inverse of :func:`load_target`."""
    import tomli_w

    return tomli_w.dumps(target.model_dump(mode="json", exclude_none=True))


@functools.cache
def _known() -> Mapping[str, Target]:
    folder = importlib.resources.files("edgeprune.targets")
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".toml")]
    targets = [_parse(entry.read_text("utf-8"), entry.name) for entry in files]
    return MappingProxyType({target.name: target for target in targets})


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"The target file {path} cannot be read: {error}.") from None


def _parse(text: str, source: str) -> Target:
    try:
        return Target.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"The target file {source} is not valid TOML: {error}.") from None
    except pydantic.ValidationError as error:
        lines = [f"  {'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}." for item in error.errors()]
        raise TargetError("\n".join([f"The target file {source} is not valid.", *lines])) from None


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted path and the value of every entry in nested tables."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
