"""What files answered: counts against loops, distributions against NumPy, flips against reading one by one."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.evaluate.answers import BINS, QUANTILES, Answers, flipped
from edgeprune.tasks.task import Output

CLASSES = 4
SAMPLES = 60


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def collect(outputs, labels, answers, batch=16, masks=None):
    """Answers of arrays, batch by batch."""
    collected = Answers(outputs)
    for start in range(0, len(answers[0]), batch):
        part = slice(start, start + batch)
        given = labels[part] if len(outputs) == 1 else tuple(one[part] for one in labels)
        collected.add(given, [one[part] for one in answers], [m[part] for m in masks] if masks else None)
    return collected


def figures(collected, name="out"):
    summary = collected.summary()
    json.dumps(summary, allow_nan=False)
    return summary[name]


KINDS = {
    "classes": (
        Output("out", kind="classification", classes=CLASSES, is_logits=True),
        lambda rng: rng.integers(-1, CLASSES + 1, (SAMPLES, 1)),
        lambda rng: rng.normal(size=(SAMPLES, CLASSES)),
    ),
    "binary": (
        Output("out", kind="classification", classes=2),
        lambda rng: rng.integers(0, 2, SAMPLES).astype(np.float32),
        lambda rng: rng.random((SAMPLES, 1)),
    ),
    "many classes": (
        Output("out", kind="classification", classes=300),
        lambda rng: rng.integers(0, 300, SAMPLES),
        lambda rng: softmax(rng.normal(size=(SAMPLES, 300))),
    ),
    "multilabel": (
        Output("out", kind="multilabel"),
        lambda rng: rng.integers(0, 2, (SAMPLES, 5)),
        lambda rng: rng.random((SAMPLES, 5)),
    ),
    "numbers": (
        Output("out", kind="regression"),
        lambda rng: rng.normal(size=(SAMPLES, 2)),
        lambda rng: rng.normal(size=(SAMPLES, 2)),
    ),
    "wide": (
        Output("out", kind="regression"),
        lambda rng: rng.normal(size=(SAMPLES, 6, 6, 1)),
        lambda rng: rng.normal(size=(SAMPLES, 6, 6, 1)),
    ),
    "masks": (
        Output("out", kind="segmentation", classes=CLASSES),
        lambda rng: rng.integers(0, CLASSES, (SAMPLES, 5, 6, 1)),
        lambda rng: softmax(rng.normal(size=(SAMPLES, 5, 6, CLASSES))),
    ),
    "tags": (
        Output("out", kind="sequence", classes=2, is_logits=True),
        lambda rng: rng.integers(0, 2, (SAMPLES, 7)),
        lambda rng: rng.normal(size=(SAMPLES, 7, 1)),
    ),
}


def make(kind, seed=0):
    output, labels, answers = KINDS[kind]
    rng = np.random.default_rng(seed)
    return output, labels(rng), answers(rng).astype(np.float32)


def loop(truth, chosen, classes):
    """Confusion matrix, counted one by one."""
    matrix = [[0] * classes for _ in range(classes)]
    for t, c in zip(truth, chosen, strict=True):
        if 0 <= t < classes:
            matrix[t][c] += 1
    return matrix


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(("numbers", "column", "one-hot")), st.booleans(), st.integers(1, 70))
def test_confusion_is_what_a_loop_counts(seed, form, is_logits, batch):
    """Rows are truth, columns answers, whatever the form of the labels and the batches; per class as scikit-learn."""
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, CLASSES, SAMPLES), rng.normal(size=(SAMPLES, CLASSES))
    scores = scores if is_logits else softmax(scores)
    given_labels = {"numbers": labels, "column": labels[:, None], "one-hot": np.eye(CLASSES)[labels]}[form]
    output = Output("out", kind="classification", classes=CLASSES, is_logits=is_logits)
    result = figures(collect([output], given_labels, [scores], batch))
    assert result["confusion"] == loop(labels, scores.argmax(1), CLASSES)
    for index, row in enumerate(result["per_class"]):
        true, answered = labels == index, scores.argmax(1) == index
        both = int((true & answered).sum())
        assert row["index"] == index
        assert row["support"] == true.sum()
        assert row["recall"] == (both / true.sum() if true.any() else None)
        assert row["precision"] == (both / answered.sum() if answered.any() else None)
        assert row["f1"] == pytest.approx(2 * both / (true.sum() + answered.sum()))


def test_a_single_unit_is_two_classes():
    """One sigmoid or logit answers the second class where it is above one half; confidence is that of the answer."""
    labels = np.array([0.0, 0.0, 1.0])
    for is_logits, scores in ((False, [[0.2], [0.9], [0.5]]), (True, [[-1.0], [2.0], [0.0]])):
        scores = np.array(scores, np.float32)
        output = Output("out", kind="classification", classes=2, is_logits=is_logits)
        before = collect([output], labels, [scores])
        assert figures(before)["confusion"] == [[1, 1], [1, 0]]
        after = collect([output], labels, [-scores if is_logits else 1 - scores])
        broken, repaired = flipped(before, after)["samples"]
        confidence = 1 / (1 + np.exp(-1)) if is_logits else 0.8
        assert (broken["index"], broken["label"], broken["before"], broken["after"]) == (0, 0, 0, 1)
        assert broken["confidence_before"] == broken["confidence_after"] == pytest.approx(confidence, abs=1e-3)
        assert (repaired["index"], repaired["before"], repaired["after"]) == (1, 1, 0)


def test_ignored_labels_are_left_out():
    """Numbers outside the classes, the class that a loss ignores, unlabelled one-hot rows, masked positions."""
    import tf_keras

    loss = tf_keras.losses.SparseCategoricalCrossentropy(ignore_class=0)
    scores = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    total = lambda result: np.sum(result["confusion"])  # noqa: E731
    output = Output("out", kind="classification", classes=3)
    assert total(figures(collect([output], np.array([-1, 255, 1, 1]), [scores]))) == 2
    ignoring = Output("out", kind="classification", classes=3, loss=loss)
    assert total(figures(collect([ignoring], np.array([0, 1, 1, 2]), [scores]))) == 3
    hot = np.eye(3)[[0, 1, 2, 2]] * [[1], [1], [0], [1]]
    assert total(figures(collect([output], hot, [scores]))) == 3
    output = Output("out", kind="sequence", classes=3)
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    answers = collect([output], np.zeros((2, 3), int), [np.eye(3, dtype=np.float32)[[[0, 1, 2]] * 2]], masks=[mask])
    assert figures(answers)["confusion"] == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("kind", ["masks", "tags"])
def test_positions_are_counted_like_samples(kind):
    """The matrix over all positions equals a loop, intersection over union follows from it, samples are not lost."""
    output, labels, scores = make(kind)
    chosen = scores.argmax(-1) if kind == "masks" else (scores[..., 0] > 0).astype(int)
    result = figures(collect([output], labels, [scores]))
    assert result["samples"] == SAMPLES
    matrix = np.array(result["confusion"])
    assert matrix.tolist() == loop(labels.ravel(), chosen.ravel(), len(matrix))
    for index, row in enumerate(result["per_class"]):
        union = matrix[index].sum() + matrix[:, index].sum() - matrix[index, index]
        assert row["iou"] == pytest.approx(matrix[index, index] / union)


def test_labels_of_several_kinds_at_once_are_counted_each():
    """Multi-label figures are those of each class on its own; samples are counted by their wrong labels."""
    output, labels, scores = make("multilabel")
    result = figures(collect([output], labels, [scores]))
    answer = scores > 0.5
    for index, row in enumerate(result["per_class"]):
        both = int((answer[:, index] & (labels[:, index] == 1)).sum())
        assert row["precision"] == both / answer[:, index].sum()
        assert row["recall"] == both / labels[:, index].sum()
    wrong = (answer != labels).sum(1)
    assert result["wrong_labels"] == [int((wrong == n).sum()) for n in range(wrong.max() + 1)]


def test_residuals_are_those_of_numpy():
    """Moments and quantiles of the values kept are exact; those of wide outputs are within the width of a bin."""
    for kind, tolerance in (("numbers", 1e-6), ("wide", 0.01)):
        output, labels, answers = make(kind)
        residuals = (labels.astype(np.float32) - answers).astype(np.float64).ravel()
        result = figures(collect([output], labels, [answers]))["residuals"]
        assert result["mean"] == pytest.approx(residuals.mean(), abs=1e-6)
        assert result["std"] == pytest.approx(residuals.std(), abs=1e-6)
        assert result["mean_abs"] == pytest.approx(np.abs(residuals).mean(), abs=1e-6)
        for q in QUANTILES:
            assert result["quantiles"][f"{q:g}"] == pytest.approx(np.quantile(residuals, q), rel=tolerance, abs=2e-3)
        histogram = result["histogram"]
        assert len(histogram["edges"]) == BINS + 1
        assert sum(histogram["counts"]) == residuals.size


def test_values_that_are_no_numbers_are_counted_apart():
    """NaN in an answer neither spoils the figures of the others nor reaches the JSON, and is the worst of changes."""
    for width in (2, 20):
        output, labels = Output("out", kind="regression"), np.zeros((3, width), np.float32)
        good, bad = np.ones((3, width), np.float32), np.ones((3, width), np.float32)
        bad[1, 0] = np.nan
        before, after = collect([output], labels, [good]), collect([output], labels, [bad])
        residuals = figures(after)["residuals"]
        assert residuals["not_finite"] == 1
        assert residuals["mean"] == -1
        flips = flipped(before, after)
        assert [sample["index"] for sample in flips["samples"]] == [1]
        json.dumps(flips, allow_nan=False)
        nothing = figures(collect([output], labels, [np.full((3, width), np.nan)]))["residuals"]
        assert nothing["mean"] is None
        assert nothing["histogram"] == {"edges": [], "counts": []}


@pytest.mark.parametrize("kind", KINDS)
def test_saving_keeps_everything(kind, tmp_path):
    """Figures and flips of loaded answers are those of the answers saved; batches do not matter."""
    output, labels, answers = make(kind)
    _, _, others = make(kind, seed=1)
    before, after = collect([output], labels, [answers]), collect([output], labels, [others], batch=7)
    for name, one in (("before", before), ("after", after)):
        one.save(tmp_path / name)
    loaded = Answers.load(tmp_path / "before"), Answers.load(tmp_path / "after")
    assert loaded[0].summary() == before.summary()
    assert flipped(*loaded) == flipped(before, after)
    again = figures(collect([output], labels, [answers], batch=SAMPLES))
    assert again.keys() == figures(before).keys()
    if kind != "wide":
        assert again == figures(before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_does_not_differ_from_itself(kind):
    """Flips of identical answers are empty; of others they are not, and no more are listed than asked for."""
    output, labels, answers = make(kind)
    _, _, others = make(kind, seed=1)
    same = flipped(collect([output], labels, [answers]), collect([output], labels, [answers]))
    assert same == {"output": "out", "kind": output.kind, "total": 0, "broken": 0, "repaired": 0, "samples": []}
    before, after = collect([output], labels, [answers]), collect([output], labels, [others])
    flips, back = flipped(before, after, limit=3), flipped(after, before, limit=3)
    assert 0 < len(flips["samples"]) <= 3
    assert (flips["total"], flips["broken"], flips["repaired"]) == (back["total"], back["repaired"], back["broken"])
    json.dumps(flips, allow_nan=False)


def test_flips_are_read_worst_first():
    """What was right and is wrong now comes first, by the probability that the true class lost."""
    output, labels, scores = make("classes", seed=5)
    _, _, others = make("classes", seed=6)
    flips = flipped(collect([output], labels, [scores]), collect([output], labels, [others]), limit=SAMPLES)
    truth, old, new = labels[:, 0], scores.argmax(1), others.argmax(1)
    known = [i for i in range(SAMPLES) if 0 <= truth[i] < CLASSES]
    different = [i for i in known if old[i] != new[i]]
    lost = {i: softmax(scores)[i, truth[i]] - softmax(others)[i, truth[i]] for i in different}
    expected = sorted(different, key=lambda i: (old[i] != truth[i], -lost[i]))
    assert [sample["index"] for sample in flips["samples"]] == expected
    assert flips["total"] == len(different)
    assert flips["broken"] == sum(old[i] == truth[i] for i in different)
    assert flips["repaired"] == sum(new[i] == truth[i] for i in different)
    for sample in flips["samples"]:
        i = sample["index"]
        assert (sample["label"], sample["before"], sample["after"]) == (truth[i], old[i], new[i])
        assert sample["confidence_after"] == pytest.approx(softmax(others)[i].max(), abs=1e-3)


@pytest.mark.parametrize("kind", ["numbers", "wide", "masks", "multilabel"])
def test_other_kinds_list_what_became_worse(kind):
    """By growth of the error of each sample: absolute error, share of wrong positions, number of wrong labels."""
    output, labels, answers = make(kind)
    _, _, others = make(kind, seed=1)

    def errors(given):
        if kind == "masks":
            return (given.argmax(-1) != labels[..., 0]).reshape(SAMPLES, -1).mean(1)
        wrong = (given > 0.5) != labels if kind == "multilabel" else np.abs(labels - given)
        return wrong.reshape(SAMPLES, -1).mean(1)

    growth = errors(others) - errors(answers)
    flips = flipped(collect([output], labels, [answers]), collect([output], labels, [others]), limit=5)
    listed = [sample["index"] for sample in flips["samples"]]
    assert growth[listed] == pytest.approx(np.sort(growth)[::-1][:5], abs=1e-6)
    assert (flips["broken"], flips["repaired"]) == ((growth > 1e-9).sum(), (growth < -1e-9).sum())
    if kind == "numbers":
        first = flips["samples"][0]
        assert first["truth"] == pytest.approx(labels[listed[0]])
        assert first["before"] == pytest.approx(answers[listed[0]])
        assert first["after"] == pytest.approx(others[listed[0]])


def test_outputs_are_told_apart():
    """Each output has its figures; one without labels has none; flips are of the one that is asked for."""
    (classes, labels, scores), (numbers, truth, values) = make("classes"), make("numbers")
    outputs = [
        Output("features"),
        Output("kind", kind=classes.kind, classes=classes.classes, is_logits=True),
        Output("size", kind=numbers.kind),
    ]
    features = np.zeros((SAMPLES, 8), np.float32)
    before = collect(outputs, (np.zeros(SAMPLES), labels, truth), [features, scores, values])
    after = collect(outputs, (np.zeros(SAMPLES), labels, truth), [features, -scores, values + 1])
    assert list(before.summary()) == ["kind", "size"]
    assert flipped(before, after)["output"] == "kind"
    assert flipped(before, after, "size")["output"] == "size"
    assert flipped(before, after, "features") is None


def test_samples_in_another_order_are_not_compared():
    """A source that gives its samples in another order each time has no flips, and what does not fit is an error."""
    output, labels, scores = make("binary")
    before = collect([output], labels, [scores])
    assert flipped(before, collect([output], labels[::-1], [scores[::-1]])) is None
    assert flipped(before, collect([output], labels[:9], [scores[:9]])) is None
    with pytest.raises(ValueError, match="out: labels of shape"):
        collect([output], np.zeros((SAMPLES, 3)), [scores])
