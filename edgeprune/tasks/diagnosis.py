"""Why a model is much worse on the data than a trained model would be: found by trying, on a few hundred samples.

The usual causes are inputs in another range than the model was trained with, colours in another order, and classes in
another order. Each is tried; the one with which the model is good is named, with the line to write.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.data.spec import values_in
from edgeprune.files import JsonObject
from edgeprune.tasks.task import Task

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data import Data, Split

SAMPLES = 384
SAMPLES_BYTES = 256_000_000  # of large images there are fewer
FEW = 64  # what is no better on so many of them is not tried on all
PASSED_BYTES = 16_000_000  # of inputs that the model is given at once
GOOD = 0.98  # a fraction from here on needs no explanation
GOOD_DETECTOR = 0.3  # average precision, far above what wrong inputs leave
GAIN = 0.05  # of a fraction: what a cause must explain at least
ERRORS = 3  # standard errors that the gain must be above: sqrt(gain / samples), as of samples that change sides
HALF = 0.5  # of an error
NEAR_CHANCE = 1.5  # times the accuracy of guessing, and
NEAR = 0.1  # of the way from there to all right
PERMUTED = 0.6  # accuracy that another order of classes must give
SAMPLES_PER_CLASS = 5  # below, some order fits any answers by chance


@dataclasses.dataclass(frozen=True)
class Scaling:
    """A way to prepare pixels of 0..255, ``(pixel * scale - mean) / std``, in the order RGB or BGR."""

    words: str
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        ordered = pixels[..., ::-1] if self.bgr else pixels
        return ((ordered * self.scale - np.asarray(self.mean)) / np.asarray(self.std)).astype(np.float32)


# As tf_keras.applications prepare them (imagenet_utils.preprocess_input), and as they come.
SCALINGS = (
    Scaling("pixels of 0..255"),
    Scaling("pixels of 0..1", 1 / 255),
    Scaling("pixels of -1..1", 1 / 127.5, (1.0,)),
    Scaling("pixels less the channel means of ImageNet, by its deviations", 1 / 255, (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225)),
    Scaling("pixels of 0..255 less the channel means of ImageNet, blue first", 1.0, (103.939, 116.779, 123.68),
            bgr=True),
)  # fmt: skip


def diagnose(model: tf_keras.Model, data: Data, task: Task, value: float) -> list[str]:
    """Warnings about a baseline, with the cause where one is found.

    Args:
        model: as it came.
        data: prepared for the task.
        task: with a metric.
        value: the model's figure on validation data.
    """
    good = GOOD if task.training is task else GOOD_DETECTOR
    if (task.answers is not None and task.training is task) or (task.points == 100 and value >= good):
        return []
    inputs, labels, weights = _samples(task.judged(data.train))
    trial = _Trial(model, task, inputs, labels, weights)
    causes = [cause for cause in (_scaling(trial, data), _order(trial, data, task)) if cause]
    if causes:
        return [max(causes, key=lambda cause: cause.after if task.higher_is_better else -cause.after).words]
    chance = 1 / task.classes if task.classes else 0.0
    if not task.classes or task.points != 100 or value >= min(NEAR_CHANCE * chance, chance + NEAR * (1 - chance)):
        return []
    prepared = "the range of pixels" if _is_image(inputs, data) else "the scale of the inputs"
    tried = [
        words
        for words, could in (
            ("ranges of the inputs", isinstance(inputs, np.ndarray) and inputs.dtype.kind == "f"),
            ("orders of the classes", isinstance(labels, np.ndarray)),
        )
        if could
    ]
    said = f"Other {' and '.join(tried)} were tried on {len(trial)} samples, and none explains it. " if tried else ""
    return [
        f"The model's validation {task.metric} as it came is {value:.1%}, near chance for {task.classes} classes. "
        f"{said}Check that the model belongs to this data, and {prepared} ([data] scale, mean, std)."
    ]


def _samples(split: Split) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    import tensorflow as tf

    # Of training data, of which there is more: nothing is chosen here, and nothing trained.
    count = max(1, min(SAMPLES, SAMPLES_BYTES // (4 * values_in(split.spec.shapes))))
    indices = np.sort(np.random.default_rng(0).permutation(split.size)[:count])
    x, y, *w = next(iter(split.batches(len(indices), indices=indices)))
    inputs, labels, weights = tf.nest.map_structure(np.asarray, (x, y, w))
    return inputs, labels, weights


Prepare = Callable[[np.ndarray], np.ndarray]  # some samples as they are → as a model may expect them


@dataclasses.dataclass(frozen=True)
class _Trial:
    """A model on some samples, whose inputs can be changed."""

    model: tf_keras.Model
    task: Task
    inputs: np.ndarray
    labels: np.ndarray
    weights: list[np.ndarray]

    def __len__(self) -> int:
        import tensorflow as tf

        return len(tf.nest.flatten(self.inputs)[0])

    @functools.cached_property
    def answers(self) -> list[np.ndarray]:
        """The model's outputs for the inputs as they are."""
        return self._outputs(lambda inputs: inputs)

    @functools.cached_property
    def now(self) -> float:
        """The figure with the inputs as they are."""
        return self._value(self.inputs, self.answers)

    @functools.cached_property
    def few(self) -> _Trial:
        """The same on some of the samples, drawn at random: data may come class by class."""
        import tensorflow as tf

        drawn = np.random.default_rng(0).permutation(len(self))[:FEW]
        parts = self.inputs, self.labels, self.weights
        inputs, labels, weights = tf.nest.map_structure(lambda x: x[drawn], parts)
        return dataclasses.replace(self, inputs=inputs, labels=labels, weights=weights)

    def value(self, prepare: Prepare) -> float:
        """The figure with inputs that are prepared in another way."""
        return self._value(self.inputs, self._outputs(prepare))

    def _value(self, inputs: np.ndarray, outputs: list[np.ndarray]) -> float:
        meter = self.task.meter(self.task.watched)
        meter.update(inputs, self.labels, outputs, *self.weights)
        return self.task.value(meter.result())

    def _outputs(self, prepare: Prepare) -> list[np.ndarray]:
        import tensorflow as tf

        flat = tf.nest.flatten(self.inputs)
        size = max(1, PASSED_BYTES // max(1, sum(x[:1].nbytes for x in flat)))

        def part(start: int) -> list[Any]:
            some = tf.nest.map_structure(lambda x: x[start : start + size], self.inputs)
            return tf.nest.flatten(self.model(prepare(some), training=False))

        parts = [part(start) for start in range(0, len(flat[0]), size)]
        return [np.concatenate([np.asarray(part) for part in output]) for output in zip(*parts, strict=True)]

    def explains(self, after: float) -> bool:
        """Whether a change makes so much of a difference that it must be the cause."""
        if self.task.points == 100:
            gain = after - self.now
            return gain >= GAIN and gain >= ERRORS * (gain / len(self)) ** 0.5
        gain = after - self.now if self.task.higher_is_better else self.now - after
        return gain >= HALF * abs(self.now)


def _is_image(inputs: object, data: Data) -> bool:
    if "sound" in data.preprocessing:
        return False
    return isinstance(inputs, np.ndarray) and inputs.ndim == 4 and inputs.shape[-1] in (1, 3)


@dataclasses.dataclass(frozen=True)
class _Cause:
    """What is wrong, and the figure that the model has without it."""

    words: str
    after: float


def _scaling(trial: _Trial, data: Data) -> _Cause | None:
    """The way to prepare the inputs with which the model is good, if it is another one than now."""
    inputs = trial.inputs
    if not isinstance(inputs, np.ndarray) or inputs.dtype.kind != "f":
        return None
    likely = [one for one in _candidates(inputs, data) if trial.task.better(trial.few.value(one[2]), trial.few.now)]
    tried = [(trial.value(prepare), words, line) for words, line, prepare in likely]
    tried = [one for one in tried if np.isfinite(one[0])]
    if not tried:
        return None
    best = max(tried, key=lambda one: one[0] if trial.task.higher_is_better else -one[0])
    if not trial.explains(best[0]):
        return None
    return _Cause(
        f"The model expects {best[1]}: on {len(inputs)} training samples its {trial.task.metric} is "
        f"{_figure(trial.task, best[0])} with them, and {_figure(trial.task, trial.now)} with the inputs as they are. "
        f"Write in the recipe:\n{best[2]}",
        best[0],
    )


def _candidates(inputs: np.ndarray, data: Data) -> Iterator[tuple[str, str, Prepare]]:
    """Other inputs: what they are, the lines to write, how they are made of the inputs as they are."""
    now = data.preprocessing

    def raw(x: np.ndarray) -> np.ndarray:
        return (x * np.asarray(now["std"]) + np.asarray(now["mean"])) / now["scale"]

    if not _is_image(inputs, data):
        values = raw(inputs)
        axes = tuple(range(values.ndim - 1))
        mean, std = values.mean(axes), np.maximum(values.std(axes), 1e-7)
        of_table = (now.get("table") or {}).get("normalize", "none") != "none"  # which sets mean and std
        line = _line(now, 1.0, [float(f"{v:.5g}") for v in mean], [float(f"{v:.5g}") for v in std], None)
        line = '  [data.table]\n  normalize = "standard"' if of_table else line
        yield "inputs with mean 0 and deviation 1", line, lambda x: ((raw(x) - mean) / std).astype(np.float32)
        if any(now[key] != plain for key, plain in _PLAIN.items()):
            line = '  [data.table]\n  normalize = "none"' if of_table else _line(now, 1.0, [0.0], [1.0], None)
            yield "inputs as the source has them", line, lambda x: raw(x).astype(np.float32)
        return
    low, high = _extremes(inputs, raw)
    # What the pixels of the source are, as far as their values say it.
    ranges = (((0.0, 1.5), (255.0, 0.0)), ((-1.5, 1.5), (127.5, 127.5)))
    unit, offset = next((found for (a, b), found in ranges if a <= low and high <= b), (1.0, 0.0))
    files, channels = now["size"] is not None, inputs.shape[-1]
    is_bgr = files and now["color"] == "bgr"
    for scaling in SCALINGS:
        if len(scaling.mean) > 1 and channels != 3:
            continue
        for swapped in (False, True) if channels == 3 else (False,):
            chosen = dataclasses.replace(scaling, bgr=scaling.bgr != swapped)

            def prepare(x: np.ndarray, chosen: Scaling = chosen) -> np.ndarray:
                pixels = raw(x) * unit + offset
                return chosen(pixels[..., ::-1] if is_bgr else pixels)

            words = scaling.words + (", with red and blue exchanged" if swapped else "")
            mean = [value - scaling.scale * offset for value in chosen.mean]
            line = _line(now, chosen.scale * unit, mean, list(chosen.std), chosen.bgr if channels == 3 else None, files)
            yield words, line, prepare


def _extremes(inputs: np.ndarray, raw: Prepare) -> tuple[float, float]:
    values = [raw(x) for x in inputs]
    return min(float(x.min()) for x in values), max(float(x.max()) for x in values)


_PLAIN: JsonObject = {"scale": 1.0, "mean": [0.0], "std": [1.0]}


def _line(
    now: JsonObject, scale: float, mean: Sequence[float], std: Sequence[float], bgr: bool | None, files: bool = False
) -> str:
    values: JsonObject = {"scale": scale, "mean": list(mean), "std": list(std)}
    # What the recipe has now stays there unless it is written anew.
    lines = [f"  {key} = {value}" for key, value in values.items() if value != _PLAIN[key] or now[key] != _PLAIN[key]]
    after = ""
    if bgr is not None and files:
        lines.append(f'  color = "{"bgr" if bgr else "rgb"}"')
    elif bgr:
        after = "\nand reverse the channels in the data source: x[..., ::-1]"
    return "  [data]\n" + ("\n".join(lines) or "  scale = 1.0") + after


def _order(trial: _Trial, data: Data, task: Task) -> _Cause | None:
    """The order of the classes with which the model is good, if it is another one than now."""
    from scipy.optimize import linear_sum_assignment

    output = task.primary
    if task.classes is None or output.width < 2 or not isinstance(trial.labels, np.ndarray):
        return None
    labels = trial.labels.argmax(-1) if trial.labels.ndim > 1 and trial.labels.shape[-1] > 1 else trial.labels
    labels = labels.reshape(-1).astype(np.int64)
    answers = trial.answers[task.watched[0].output].argmax(-1)
    present = np.unique(labels)
    if len(labels) < SAMPLES_PER_CLASS * len(present):
        return None
    confusion = np.zeros((output.width, output.width), np.int64)
    np.add.at(confusion, (labels, answers), 1)
    truth, answer = linear_sum_assignment(-confusion)
    accuracy, permuted = np.trace(confusion) / len(labels), confusion[truth, answer].sum() / len(labels)
    if permuted < PERMUTED or permuted - accuracy < PERMUTED / 2:
        return None
    # Classes that the samples do not have are not known; they keep their numbers where these are free.
    of_label = {int(a): int(b) for a, b in zip(truth, answer, strict=True) if a in present}
    moved = [f"{_name(data, a)} is answered by output {b}" for a, b in of_label.items() if a != b]
    said = (
        f"The classes are in another order than the model's: on {len(labels)} training samples its accuracy is "
        f"{accuracy:.1%} as they are, and {permuted:.1%} in the best other order ({', '.join(moved[:5])}"
        f"{', ...' if len(moved) > 5 else ''}). "
    )
    if data.class_names and len(present) == len(data.class_names) == output.width:
        by_output = {b: data.class_names[a] for a, b in of_label.items()}
        names = ", ".join(f'"{by_output[i]}"' for i in range(output.width))
        return _Cause(f"{said}Write in the recipe:\n  [data]\n  classes = [{names}]", float(permuted))
    return _Cause(f"{said}Number the labels in the data source as the model was trained with.", float(permuted))


def _name(data: Data, number: int) -> str:
    return repr(data.class_names[number]) if data.class_names else f"label {number}"


def _figure(task: Task, value: float) -> str:
    return f"{value:.1%}" if task.points == 100 else f"{value:.4g}"
