"""What of a model will not run, or not run fast, on a target, and what to change: before anything is trained.

Each checker looks at one question, of a Keras model or of a .tflite file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeprune.prune.sparse_inference import MIN_ZEROS, Analysis, Verdict
from edgeprune.target import Target

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.profile.graph import TFLiteModel

ARM = ("aarch64", "armv7")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing to know. ``where`` is a layer, an operator ('12 CONV_2D') or 'model'; ``fix``: or None."""

    severity: Literal["error", "warning", "info"]
    where: str
    what: str
    fix: str | None = None


Checked = Any  # a flat functional tf_keras model, or a TFLiteModel


@dataclasses.dataclass(frozen=True)
class Checker:
    """``run`` on models of targets that ``applies_to``."""

    name: str
    applies_to: Callable[[Target], bool]
    run: Callable[[Checked, Target], list[Finding]]


def check(model: str | Path | tf_keras.Model, target: Target, *, trust: bool = False) -> dict[str, list[Finding]]:
    """Run every checker that applies to a target.

    Args:
        model: a model file or folder, a .tflite file (needs no TensorFlow), or a model object.
        target: the board.
        trust: code in the model file may run.

    Returns:
        Name of the checker → its findings.

    Raises:
        ModelError: the model cannot be read.
    """
    opened = _open(model, trust)
    return {one.name: one.run(opened, target) for one in CHECKERS if one.applies_to(target)}


def _open(model: Any, trust: bool) -> Checked:
    if isinstance(model, str | Path) and Path(model).suffix == ".tflite":
        from edgeprune.profile.flatbuffer import read

        return read(model)
    from edgeprune._tensorflow import import_tf

    import_tf()
    from edgeprune.models.load import load_model

    return load_model(model, trust=trust)


# -- sparse inference ------------------------------------------------------------------------------------------------


def has_arm_cpu(target: Target) -> bool:
    """XNNPACK's sparse kernels run on ARM processors; on x86 with AVX it keeps to dense ones by design."""
    return target.cpu is not None and target.cpu.architecture in ARM


def sparse_inference(model: Checked, target: Target) -> list[Finding]:
    """Whether XNNPACK's sparse kernels will switch on: the verdict first, then layer by layer."""
    from edgeprune.profile.graph import TFLiteModel

    found = _of_file(model) if isinstance(model, TFLiteModel) else _of_keras(model)
    return [found[0], *_of_runtime(target), *found[1:]]


def _of_keras(model: tf_keras.Model) -> list[Finding]:
    from edgeprune.prune.sparse_keras import analyse_model
    from edgeprune.prune.sparse_prepare import prepare

    now, prepared = analyse_model(model), prepare(model)
    later = {verdict.node.name: verdict for verdict in prepared.analysis.verdicts}
    if prepared.analysis.qualifies:
        size = sum(node.weights for node in prepared.analysis.pointwise)
        what = (
            f"can get sparse inference: {len(prepared.analysis.pointwise)} 1x1 convolutions hold {size:,} of "
            f"{model.count_params():,} parameters, and more than two thirds of these weights must become zero"
        )
        verdict = Finding("info", "model", what, "build it with --recipe sparse")
    else:
        verdict = Finding(
            "warning", "model", "will keep dense kernels: see what is in the way", _first(prepared.analysis)
        )
    findings = [verdict]
    for row in now.verdicts:
        if row.node.name in prepared.changed:
            fix = f"nothing to do: sparse_inference = true rewrites it ({prepared.changed[row.node.name]})"
            what = row.problem.what if row.problem else f"is {row.node.operator}"
            findings.append(Finding("info", row.node.name, what, fix))
        else:
            findings.append(_row(later.get(row.node.name, row)))
    return findings


def _of_file(model: TFLiteModel) -> list[Finding]:
    from edgeprune.profile.sparse_path import analyse_file, sparse_path

    path, analysis = sparse_path(model), analyse_file(model)
    if path is not None and path.expected:
        what = f"sparse inference will be on: {path.zero_share:.1%} of the weights of the 1x1 convolutions are zero"
        verdict = Finding("info", "model", what)
    elif not analysis.qualifies:
        verdict = Finding("warning", "model", "will keep dense kernels: see what is in the way", _first(analysis))
    else:
        stored = "some" if path else "none"
        what = (
            f"will keep dense kernels: {analysis.zero_share:.1%} of the weights of the 1x1 convolutions are zero, and "
            f"{stored} are stored sparse"
        )
        fix = f"prune more than {MIN_ZEROS:.1%} of them and store them sparse: build it with --recipe sparse"
        verdict = Finding("warning", "model", what, fix)
    return [verdict, *map(_row, analysis.verdicts)]


def _of_runtime(target: Target) -> list[Finding]:
    from edgeprune.profile.sparse_path import runtime_problem

    problem = runtime_problem(target.runtime)
    if problem is None:
        return []
    what, _, fix = problem.rstrip(".").partition("; ")
    return [Finding("warning", f"runtime of {target.name}", what, fix)]


def _first(analysis: Analysis) -> str | None:
    """What to change in the model as a whole."""
    return analysis.missing[0].fix if analysis.missing else None


_WORDS = {
    "input": "before the stem: not affected",
    "stem": "fits: the stem",
    "1x1": "fits: a 1x1 convolution, for sparse kernels",
    "depthwise": "fits: goes along, in the channel-first layout",
    "elementwise": "fits: goes along, in the channel-first layout",
    "tail": "fits: the end of the sparse part",
    "after": "behind the pooling: not affected",
}


def _row(verdict: Verdict) -> Finding:
    if verdict.problem is None:
        return Finding("info", verdict.node.name, _WORDS[verdict.role])
    return Finding("warning", verdict.node.name, verdict.problem.what, verdict.problem.fix)


CHECKERS: tuple[Checker, ...] = (Checker("sparse_inference", has_arm_cpu, sparse_inference),)
