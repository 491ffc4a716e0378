"""The checker for sparse inference: whether XNNPACK's sparse kernels will switch on, and what is in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.checking.finding import Finding
from edgeprune.hardware.xnnpack.sparse_inference import MIN_ZEROS, Analysis, Verdict
from edgeprune.target import Target

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.checking.check import Subject
    from edgeprune.tflite.graph import TFLiteModel

ARM = ("aarch64", "armv7")


def has_arm_cpu(target: Target) -> bool:
    """XNNPACK's sparse kernels run on ARM processors; on x86 with AVX it keeps to dense ones by design."""
    return target.cpu is not None and target.cpu.architecture in ARM


def sparse_inference(subject: Subject, target: Target) -> list[Finding]:
    """The verdict first, then the runtime, then layer by layer; layers of which the same holds share a finding.

    Nothing is found of integer conversions: only float32 has sparse kernels.
    """
    if subject.keras is not None and subject.format != "float32":
        return []
    verdict, *layers = _of_file(subject.file) if subject.keras is None else _of_keras(subject.keras)
    together: dict[tuple[object, ...], Finding] = {}
    for one in (verdict, *_of_runtime(target), *layers):
        key = (one.severity, one.what, one.fix)
        where = (*together[key].where, *one.where) if key in together else one.where
        together[key] = Finding(one.severity, one.what, one.fix, where)
    return list(together.values())


def _of_keras(model: tf_keras.Model) -> list[Finding]:
    from edgeprune.prune.sparse.keras import analyse_model
    from edgeprune.prune.sparse.prepare import prepare

    now, prepared = analyse_model(model), prepare(model)
    later = {verdict.node.name: verdict for verdict in prepared.analysis.verdicts}
    if prepared.analysis.qualifies:
        size = sum(node.weights for node in prepared.analysis.pointwise)
        what = (
            f"Sparse inference is possible: {len(prepared.analysis.pointwise)} 1x1 convolutions hold {size:,} of "
            f"{model.count_params():,} parameters, and more than two thirds of these weights must become zero."
        )
        verdict = Finding("note", what, "build it with --recipe sparse")
    else:
        verdict = Finding(
            "note", "Sparse inference: dense kernels stay; see what is in the way.", _first(prepared.analysis)
        )
    findings = [verdict]
    for row in now.verdicts:
        if row.node.name in prepared.changed:
            fix = f"nothing to do: sparse_inference = true rewrites it ({prepared.changed[row.node.name]})"
            what = f"Sparse inference: {row.problem.what if row.problem else row.node.operator}."
            findings.append(Finding("note", what, fix, (row.node.name,)))
        else:
            findings.append(_row(later.get(row.node.name, row)))
    return findings


def _of_file(model: TFLiteModel) -> list[Finding]:
    from edgeprune.hardware.xnnpack.sparse_file import analyse_file, sparse_path

    path, analysis = sparse_path(model), analyse_file(model)
    if path is not None and path.expected:
        what = f"Sparse inference will be on: {path.zero_share:.1%} of the weights of the 1x1 convolutions are zero."
        verdict = Finding("note", what)
    elif not analysis.qualifies:
        verdict = Finding("note", "Sparse inference: dense kernels stay; see what is in the way.", _first(analysis))
    else:
        stored = "some" if path else "none"
        what = (
            f"Sparse inference: dense kernels stay: {analysis.zero_share:.1%} of the weights of the 1x1 convolutions "
            f"are zero, and {stored} are stored sparse."
        )
        fix = f"prune more than {MIN_ZEROS:.1%} of them and store them sparse: build it with --recipe sparse"
        verdict = Finding("note", what, fix)
    return [verdict, *map(_row, analysis.verdicts)]


def _of_runtime(target: Target) -> list[Finding]:
    from edgeprune.hardware.xnnpack.sparse_file import runtime_problem

    problem = runtime_problem(target.runtime)
    return [Finding("note", f"Sparse inference: {problem.what}.", problem.fix)] if problem else []


def _first(analysis: Analysis) -> str | None:
    """What to change in the model as a whole."""
    return analysis.missing[0].fix if analysis.missing else None


_WORDS = {
    "input": "Sparse inference: before the stem, not affected.",
    "stem": "Sparse inference fits: the stem.",
    "1x1": "Sparse inference fits: a 1x1 convolution, for sparse kernels.",
    "depthwise": "Sparse inference fits: runs in the channels-first layout of the sparse part.",
    "elementwise": "Sparse inference fits: runs in the channels-first layout of the sparse part.",
    "tail": "Sparse inference fits: the end of the sparse part.",
    "after": "Sparse inference: after the pooling, not affected.",
}


def _row(verdict: Verdict) -> Finding:
    if verdict.problem is None:
        return Finding("note", _WORDS[verdict.role], None, (verdict.node.name,))
    return Finding("note", f"Sparse inference: {verdict.problem.what}.", verdict.problem.fix, (verdict.node.name,))
