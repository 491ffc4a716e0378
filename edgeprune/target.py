"""Target: the board that a model is built for. Facts with sources, read from ``targets/NAME.toml``."""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, Field, PlainSerializer

from edgeprune.errors import TargetError

Positive = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")]
DType = Literal["float32", "float16", "int8"]


def _frozen(value: Mapping[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(dict(value))


ByDType = Annotated[Mapping[DType, Amount], AfterValidator(_frozen), PlainSerializer(dict)]
Multiples = Annotated[Mapping[DType, Positive], AfterValidator(_frozen), PlainSerializer(dict)]
Sources = Annotated[Mapping[str, str], AfterValidator(_frozen), PlainSerializer(dict)]


class Facts(pydantic.BaseModel):
    """Base of all tables: frozen, and unknown keys are errors."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Runtime(Facts):
    """``[runtime]``: the oldest runtime to expect on the board."""

    package: Literal["ai-edge-litert", "litert", "tensorflow", "tensorflow-lite", "tflite-runtime"]
    version: Annotated[str, Field(pattern=r"^\d+(\.\d+)+")]


class Cpu(Facts):
    """``[cpu]``: the cores that run the model."""

    model: str
    architecture: Literal["aarch64", "armv7", "x86_64"]
    cores: Positive
    clock_hz: Positive
    l1d_bytes: Positive | None = None  # per core
    l2_bytes: Positive | None = None
    l2_shared: bool | None = None  # by all cores; else one per core
    l3_bytes: Positive | None = None  # shared by all cores
    memory_bandwidth_bytes_per_s: Amount | None = None  # copied by one core, counted in one direction
    dot_product: bool | None = None  # int8 dot-product instructions
    macs_per_cycle: ByDType = Field(default_factory=lambda: _frozen({}))  # peak, per core


class Accelerator(Facts):
    """``[accelerator]``: a second processor that takes whole parts of a graph."""

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
    arguments: tuple[str, ...] = ()  # what it is told beside the model
    required: bool = False  # nothing runs on the accelerator without it, and nothing here can predict it
    processor: str | None = None  # what it compiles for, in reports


class CpuSeconds(Facts):
    """Seconds that one core takes for one unit of each kind of work.

    :mod:`edgeprune.hardware.latency.features` counts the units.
    """

    conv_macs: Amount  # multiply-accumulates of convolutions as matrix products, output channels padded to the vectors
    conv_elements: Amount  # read and written by these products: packing in, rescaling and clamping out
    dense_macs: Amount  # multiply-accumulates of fully connected layers and other products of few rows
    depthwise_macs: Amount
    elementwise_elements: Amount  # of the output: additions, products, clamps, hard-swish
    nonlinear_elements: Amount  # of the output: sigmoid, tanh, softmax, exponentials
    reduced_elements: Amount  # of the input: pooling and means
    window_rows: Amount  # copied when windows are unrolled into rows of a matrix: output pixels x window height
    moved_bytes: Amount  # read and written by that, and by what only copies
    panel_bytes: Amount  # kernels read again for each few rows of a product, beyond the first-level cache
    memory_bytes: Amount  # from and to main memory
    operators: Amount  # that do something


class SecondsByDType(Facts):
    """``[latency.….seconds_per]``: by number format of the kernels that run an operator."""

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
    """What all coefficients say about themselves. ``how`` is their source, for every number of the table."""

    how: Annotated[str, Field(min_length=10)]
    origin: Literal["fitted", "derived"]  # to measurements of this board; or from another board and hardware facts
    measurements: Annotated[int, Field(ge=0)]
    range_factor: Annotated[float, Field(gt=1)]  # about 80 % of true latencies: estimate / factor … estimate * factor
    heldout_median_error: Annotated[float, Field(ge=0)] | None = None  # fraction, on architectures left out of the fit
    heldout_rank_correlation: Annotated[float, Field(ge=-1, le=1)] | None = None


class CpuLatency(Coefficients):
    """``[latency.builtin]``, ``[latency.xnnpack]``: one table per set of kernels."""

    serial_fraction: Annotated[float, Field(ge=0, le=1)]  # of parallel work that more threads do not help
    seconds_per: SecondsByDType


class EdgeTpuLatency(Coefficients):
    """``[latency.edgetpu]``; what the chip does not take runs with ``[latency.builtin]`` on the host."""

    seconds_per: EdgeTpuSeconds


class LatencyModel(Facts):
    """``[latency]``: coefficients of :mod:`edgeprune.hardware.latency.estimate`."""

    version: str
    kernels: Literal["builtin", "xnnpack", "edgetpu"]  # what an estimate is for unless another is asked for
    builtin: CpuLatency | None = None
    xnnpack: CpuLatency | None = None
    edgetpu: EdgeTpuLatency | None = None

    @pydantic.model_validator(mode="after")
    def _default_is_there(self) -> LatencyModel:
        if getattr(self, self.kernels) is None:
            raise ValueError(f"kernels is {self.kernels!r}, and there is no table latency.{self.kernels}")
        return self


class Quantization(Facts):
    """``[quantization]``: what full-integer files for this target should look like."""

    io: Literal["float", "int8", "uint8"]  # number format of their inputs and outputs
    static_batch: bool = False  # all sizes must be fixed, the batch included


class Target(Facts):
    """A board. ``sources`` maps the dotted path of a fact, of every number at least, to where it was read.

    The coefficients under ``latency`` carry their source themselves.
    """

    name: Name
    title: str
    aliases: tuple[Name, ...] = ()
    threads: Positive
    runtime: Runtime
    cpu: Cpu | None = None
    accelerator: Accelerator | None = None
    compiler: CompilerSettings | None = None
    delegates: tuple[Literal["gpu", "nnapi", "xnnpack"], ...] = ("xnnpack",)  # of the runtime, beside the accelerator
    quantization: Quantization
    latency: LatencyModel | None = None
    channel_multiple: Multiples = Field(default_factory=lambda: _frozen({}))  # channels that fill the kernels' vectors
    sources: Sources

    @pydantic.model_validator(mode="after")
    def _sourced(self) -> Target:
        facts = dict(_leaves(self.model_dump(exclude={"sources", "latency"}, exclude_none=True)))
        numbers = {path for path, value in facts.items() if type(value) in (int, float)}
        missing, unused = sorted(numbers - self.sources.keys()), sorted(self.sources.keys() - facts.keys())
        if missing or unused:
            complaints = [f"no source for {path}" for path in missing]
            raise ValueError("; ".join(complaints + [f"a source for {path}, which is not there" for path in unused]))
        return self


def with_runtime(target: Target, text: str) -> Target:
    """The target with another runtime installed on it: 'ai-edge-litert 2.1.6'.

    Raises:
        TargetError: no runtime that is known, or no version.
    """
    package, _, version = text.partition(" ")
    try:
        runtime = Runtime.model_validate({"package": package, "version": version.strip()})
    except pydantic.ValidationError:
        packages = typing.get_args(Runtime.model_fields["package"].annotation)
        raise TargetError(
            f"{text!r} is no runtime.", expected=f"a package ({', '.join(packages)}) and its version: 'NAME 2.1.6'."
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
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    raise TargetError(
        f"There is no target {name!r}{f'; did you mean {close[0]!r}?' if close else '.'}",
        expected=f"a TOML file, or one of: {', '.join(words)}.",
        fix="`edgeprune targets list` says what they are.",
    )


def to_toml(target: Target) -> str:
    """The text of a target file; :func:`load_target` reads the same target from it."""
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
    """Dotted path and value of every entry in nested tables."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
