"""Labels: the form in which they come for an output, and how they are brought into the one that a loss takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from edgeprune.data.targets import TargetFacts
from edgeprune.errors import DataError, RecipeError
from edgeprune.models.types import Structure
from edgeprune.tasks.losses import Labels

if TYPE_CHECKING:
    import tensorflow as tf

Form = Literal[
    "class numbers", "one-hot rows", "rows of zeros and ones", "distributions",  # for outputs of several values
    "zeros and ones", "whole numbers",  # for outputs of one value
    "numbers from 0 to 1", "numbers", "other shape",
]  # fmt: skip
# Labels of one output -> the same in another form.
Change = Callable[["tf.Tensor"], "tf.Tensor"]
Shape = tuple[int | None, ...]


def form_of(facts: TargetFacts, shape: Shape, ignore: int | None = None) -> Form:
    """What the labels of an output are.

    Args:
        facts: of the labels.
        shape: of the output, without the batch.
        ignore: a class number that does not count.
    """
    same = _matches(facts.shape, shape) or _matches((*facts.shape, 1), shape)
    width = shape[-1] if shape else 1
    values = None if facts.values is None else facts.values - {ignore}
    if width == 1 and same:
        if values is not None and values <= {0, 1}:
            return "zeros and ones"
        return "whole numbers" if facts.whole else _numbers(facts)
    fewer = (shape[:-1], (*shape[:-1], 1)) if shape else ()
    if facts.whole and not same and any(_matches(facts.shape, wanted) for wanted in fewer):
        return "class numbers"
    if not same:
        return "other shape"
    rows: dict[str | None, Form] = {
        "one_hot": "one-hot rows", "multi_hot": "rows of zeros and ones", "distribution": "distributions",
    }  # fmt: skip
    return rows.get(facts.rows) or _numbers(facts)


def _numbers(facts: TargetFacts) -> Form:
    return "numbers from 0 to 1" if facts.low >= 0 and facts.high <= 1 else "numbers"


def _matches(a: Shape, b: Shape) -> bool:
    return len(a) == len(b) and all(None in (x, y) or x == y for x, y in zip(a, b, strict=True))


def _same(labels: tf.Tensor) -> tf.Tensor:
    return labels


# What a loss takes × what there is → how many classes → the change; no entry: they do not fit.
_SAME = lambda width: _same  # noqa: E731
CHANGES: dict[tuple[Labels, Form], Callable[[int], Change]] = {
    ("classes", "class numbers"): _SAME,
    ("classes", "one-hot rows"): lambda width: _argmax,
    ("rows", "one-hot rows"): _SAME,
    ("rows", "distributions"): _SAME,
    ("rows", "class numbers"): lambda width: _one_hot(width),
    ("binary", "class numbers"): lambda width: _one_hot(width),
    **{
        ("binary", form): _SAME
        for form in (
            "one-hot rows", "rows of zeros and ones", "distributions", "zeros and ones", "numbers from 0 to 1"
        )
    },
    **{
        ("values", form): _SAME
        for form in (
            "one-hot rows", "rows of zeros and ones", "distributions", "zeros and ones", "whole numbers",
            "numbers from 0 to 1", "numbers",
        )
    },
}  # fmt: skip


def _argmax(labels: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.argmax(labels, -1)


def _one_hot(width: int) -> Change:
    import tensorflow as tf

    def change(labels: tf.Tensor) -> tf.Tensor:
        numbers = tf.cast(labels, tf.int64)
        if numbers.shape[-1:] == (1,) and numbers.shape.rank > 1:
            numbers = numbers[..., 0]
        return tf.one_hot(numbers, width)

    return change


def check_class_numbers(facts: TargetFacts, width: int, ignore: int | None, output: str, section: str) -> None:
    """Make sure that class numbers are those of ``width`` classes.

    Raises:
        DataError: some are not; the message says whether they start at 1, or hold a value to ignore.
    """
    if facts.values is None:
        low, high = facts.low, facts.high
        odd = set() if low >= 0 and high < width else {int(low), int(high)}
    else:
        odd = {value for value in facts.values if value != ignore and not 0 <= value < width}
        rest = facts.values - odd - {ignore}
    if not odd:
        return
    of = f" of output {output!r}" if output else ""
    if facts.values is not None and min(facts.values) >= 1 and max(facts.values) == width:
        raise DataError(
            f"The labels{of} start at 1: they are 1 to {width}, and the model has {width} classes.",
            expected=f"class numbers from 0 to {width - 1}.",
            fix="subtract 1 from the labels.",
        )
    if facts.values is not None and len(odd) == 1 and rest:
        value = next(iter(odd))
        raise DataError(
            f"The labels{of} have the value {value} beside {min(rest)} to {max(rest)}, and the model has {width} "
            "classes.",
            expected=f"class numbers from 0 to {width - 1}.",
            fix=f'if {value} marks what does not count, write "ignore = {value}" under [{section}] in the recipe; '
            "else correct the labels.",
        )
    if facts.values is not None and min(facts.values) >= 0:
        raise DataError(
            f"The data has {max(facts.values) + 1} classes{of}, and the model has {width} outputs.",
            expected="at most as many classes as outputs.",
            fix="check --data (is it the folder above the class folders?) or use the model of these classes.",
        )
    raise DataError(
        f"The labels{of} go from {facts.low:g} to {facts.high:g}, and the model has {width} classes.",
        expected=f"class numbers from 0 to {width - 1}.",
        fix="number the classes from 0 on.",
    )


def by_output(y: Structure, names: Sequence[tuple[str, ...]]) -> list[Structure | None]:
    """Labels, facts about them or weights per output, out of the structure that the data has them in.

    Args:
        y: for one output a single value; for several a dict by name, or a tuple or list in the model's order. An empty
            tuple: no labels.
        names: of each output, see :class:`edgeprune.models.compiled.Compiled`.

    Returns:
        One entry per output; None where the data has none.

    Raises:
        DataError: too few, too many or unknown ones.
    """
    wanted = ", ".join(own[0] for own in names)
    if isinstance(y, Mapping):
        known = {name: i for i, own in enumerate(names) for name in own}
        unknown = [key for key in y if key not in known]
        if unknown:
            raise DataError(
                f"The data has labels for {', '.join(map(repr, unknown))}; the model's outputs are: {wanted}.",
                expected="labels as a dict by output.",
                fix="correct the keys.",
            )
        found: list[Structure | None] = [None] * len(names)
        for key, value in y.items():
            found[known[key]] = value
        return found
    if isinstance(y, tuple | list):
        if not y:
            return [None] * len(names)
        if len(y) == len(names):
            return list(y)
        raise DataError(
            f"The data has labels of {len(y)} parts, and the model has {len(names)} outputs: {wanted}.",
            expected="one per output, in the model's order, or a dict by output.",
            fix="give labels as a dict, which may leave outputs out.",
        )
    if len(names) == 1:
        return [y]
    raise DataError(
        f"The data has one array of labels, and the model has {len(names)} outputs: {wanted}.",
        expected="a tuple with one per output, or a dict by output.",
        fix=f'return the labels as a dict, for example {{"{names[0][0]}": y}}: outputs may be left out.',
    )


def class_weight_vector(
    given: Mapping[str, float] | Sequence[float], width: int, class_names: Sequence[str] | None, section: str
) -> tuple[float, ...]:
    """The weight of each of ``width`` classes; 1 where the recipe names none.

    Raises:
        RecipeError: too many weights, or of a class that does not exist.
    """
    names = list(class_names or ())
    if not isinstance(given, Mapping):
        given = {str(i): weight for i, weight in enumerate(given)}
        names = []  # the order of a list is that of the class numbers
    weights = [1.0] * width
    for key, weight in given.items():
        number = names.index(key) if key in names else int(key) if key.isdigit() else width
        if number >= width or not 0 <= weight < math.inf:
            raise RecipeError(
                f"[{section}] class_weights has {key!r} = {weight}.",
                expected=f"weights from 0 on, of classes 0 to {width - 1}"
                + (f" or {', '.join(names[:10])}." if names else "."),
            )
        weights[number] = float(weight)
    return tuple(weights)


@dataclasses.dataclass(frozen=True)
class LabelPlan:
    """How the labels of a data source become those of a task: see :attr:`edgeprune.tasks.task.Task.prepare`.

    Attributes:
        names: of the outputs.
        changes: per output; None: its labels are not used.
        class_weights: per output, by class number; None: all count alike.
        rows: per output, whether its labels are rows with a value for each class; class numbers of as many steps as
            there are classes look alike.
    """

    names: tuple[tuple[str, ...], ...]
    changes: tuple[Change | None, ...]
    class_weights: tuple[tuple[float, ...] | None, ...]
    rows: tuple[bool, ...]

    def relabel(self, *, training: bool) -> Callable[[Structure, Structure, Structure], tuple[Structure, Structure]]:
        """The function for :attr:`edgeprune.data.split.Split.relabel`; class weights count in training only."""

        def relabel(x: Structure, y: Structure, w: Structure) -> tuple[Structure, Structure]:
            import tensorflow as tf

            batch = tf.shape(tf.nest.flatten(x)[0])[0]
            found = by_output(y, self.names)
            weights = self._weights(w)
            labels: list[tf.Tensor] = []
            for i, change in enumerate(self.changes):
                labels.append(tf.zeros([batch]) if change is None else change(found[i]))
                by_class = self.class_weights[i]
                if training and change is not None and by_class is not None:
                    own = _of_classes(found[i], by_class, rows=self.rows[i])
                    weights[i] = own if weights[i] is None else own * tf.cast(weights[i], own.dtype)
            if all(weight is None for weight in weights):
                return (labels[0] if len(labels) == 1 else tuple(labels)), ()
            filled = [tf.ones([batch]) if weight is None else weight for weight in weights]
            return (labels[0], filled[0]) if len(labels) == 1 else (tuple(labels), tuple(filled))

        return relabel

    def _weights(self, w: Structure) -> list[tf.Tensor | None]:
        if isinstance(w, tuple | list | Mapping):
            return by_output(w, self.names)
        return [w] * len(self.names)  # one weight per sample counts for all outputs, as in Keras


def _of_classes(labels: tf.Tensor, by_class: Sequence[float], *, rows: bool) -> tf.Tensor:
    """The weight of each label's class, float32 [batch, …]; class numbers, zeros and ones, or one-hot rows."""
    import tensorflow as tf

    width = len(by_class)
    if rows:
        numbers = tf.argmax(labels, -1)
    else:
        numbers = tf.cast(labels, tf.int64)
        if numbers.shape.rank > 1 and numbers.shape[-1:] == (1,):
            numbers = numbers[..., 0]
    inside = tf.clip_by_value(numbers, 0, width - 1)
    return tf.gather(tf.constant(by_class, tf.float32), inside)
