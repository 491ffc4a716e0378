"""One output's task: its loss, how its labels become what that takes, its kind; or a question."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edgeprune.errors import DataError, RecipeError
from edgeprune.models.compiled import Loaded, Unknown, restore
from edgeprune.recipe.config import OutputTaskConfig, Term
from edgeprune.tasks import infer
from edgeprune.tasks.given import Given, range_words, shape_words
from edgeprune.tasks.infer import Reading
from edgeprune.tasks.labels import CHANGES, Change, Form, check_class_numbers, class_weight_vector, form_of
from edgeprune.tasks.losses import Labels, as_object, facts_of, takes_logits
from edgeprune.tasks.metrics import canonical_name
from edgeprune.tasks.output_metrics import OutputMetrics
from edgeprune.tasks.stating import term_of
from edgeprune.tasks.task import Kind, Output

NOT_TRAINED = "without labels or a loss"
_EXPECTED = {
    "classes": "class numbers from 0 to {width} - 1, or one-hot rows.",
    "rows": "rows of {width} weights that sum to one, or class numbers.",
    "binary": "numbers from 0 to 1.",
    "values": "numbers of the output's shape.",
}


@dataclasses.dataclass(frozen=True)
class Resolved:
    """An output's task, and how its labels are brought into the form of it."""

    output: Output
    change: Change | None = None
    class_weights: tuple[float, ...] | None = None
    warnings: tuple[str, ...] = ()
    rows: bool = False  # whether the labels are rows with a value for each class


class OutputResolver:
    """Decides one output.

    Attributes:
        loss_term: what a recipe has to say for the same loss; None: it has no words for it.
    """

    def __init__(self, given: Given):
        self.given = given
        self.metrics = OutputMetrics(given)
        self.loss_term: Term | None = None

    def output(self, sole: bool) -> Resolved:
        """The output's task; nothing where it has no labels, or no loss by the user's will."""
        given = self.given
        if given.target is None:
            return Resolved(Output(given.name, weight=0.0, origin=NOT_TRAINED, stated=given.config))
        if given.config.loss == "none" or (self._unused() and not sole):
            return Resolved(Output(given.name, weight=0.0, origin=NOT_TRAINED, stated=OutputTaskConfig(loss="none")))
        form = form_of(given.target, given.facts.shape, given.config.ignore)
        if form == "other shape":
            raise DataError(
                f"The labels{given.of} have the shape {shape_words(given.target.shape)} per sample, and the output has "
                f"{shape_words(given.facts.shape)}.",
                expected=f"labels of {shape_words(given.facts.shape)}"
                + (f", or class numbers of {shape_words(given.facts.shape[:-1])}." if given.facts.width > 1 else "."),
                fix="reshape the labels in the data source, or check that the model belongs to the data.",
            )
        if form == "class numbers":
            check_class_numbers(
                given.target,
                given.facts.width,
                given.config.ignore,
                given.name if given.many else "",
                given.section,
            )
        loss, reading = self._loss(form)
        needs = facts_of(loss).labels
        change = self._change(loss, needs, form)
        is_logits = self._is_logits(loss, needs)
        to_rows = form == "class numbers" and needs in ("rows", "binary")
        made = as_object(loss, is_logits=is_logits, ignore=given.config.ignore, rows=to_rows)
        in_classes = needs == "classes" or (needs is None and form == "class numbers")
        kind, classes = self._kind(needs, form, reading)
        metrics = tuple(self.metrics.decide(loss, made, reading, in_classes, to_rows, kind))
        self._check_classes(kind)
        return Resolved(
            Output(
                given.name, made, kind, self._weight(), metrics, classes,
                width=given.facts.width,
                origin=self._origin(reading),
                is_logits=classes is not None and (takes_logits(made) or given.facts.end not in ("softmax", "sigmoid")),
                stated=self._stated(kind),
            ),
            change,
            self._class_weights(),
            tuple(given.warnings),
            rows=form != "class numbers" and given.facts.width > 1,
        )  # fmt: skip

    def _unused(self) -> bool:
        """Compiled without a loss for this output, and the recipe has none for it."""
        given = self.given
        return given.was_compiled and given.compiled.loss is None and not (given.config.loss or given.config.kind)

    def _origin(self, reading: Reading | None) -> str:
        given = self.given
        if given.config.loss is not None or given.config.kind is not None:
            return "as the recipe says"
        return "as the model was compiled" if reading is None else "by its labels and how it ends"

    def _weight(self) -> float:
        given = self.given
        return given.compiled.weight if given.config.weight is None else given.config.weight

    def _stated(self, kind: Kind | None) -> OutputTaskConfig:
        """The output's section in a recipe that states what was resolved."""
        terms = tuple(term for term in self.metrics.terms if term is not None)
        # Without metrics the loss is the metric, unless a kind is named, which has a metric of its own.
        known = {
            "loss": self.loss_term,
            "metric": terms[0] if len(terms) == 1 else terms or None,
            "kind": kind if terms else None,
        }
        given = {key: value for key, value in known.items() if value is not None}
        return self.given.config.model_copy(update={**given, "weight": self._weight()})

    def _loss(self, form: Form) -> tuple[Loaded, Reading | None]:
        """The loss, and the reading that it comes from if neither recipe nor compile information name it."""
        given = self.given
        if given.config.loss is not None:
            self.loss_term = given.config.loss
            return given.restore(given.config.loss, "losses"), self._reading_of_kind(form)
        if given.config.kind is not None:
            reading = self._reading_of_kind(form)
            assert reading is not None
            self.loss_term = _fitting(reading, form)
            return restore(self.loss_term, "losses"), reading
        if given.compiled.loss is not None:
            try:
                loss = restore(given.compiled.loss, "losses", given.objects)
                self.loss_term = term_of(given.compiled.loss, loss)
                return loss, None
            except Unknown as error:
                raise RecipeError(
                    f"The model was compiled with the loss {error.name!r}{given.of}, which cannot be restored: "
                    f"{error.reason}.",
                    expected="a loss that can be loaded, or one that the recipe names.",
                    fix=f"write in the recipe:\n  [{given.section}]\n"
                    f'  loss = "file.py:{error.name}"    # where it is defined; or a loss of Keras\n'
                    "or give the file with --custom-objects FILE.py --trust-model.",
                ) from None
        found = infer.readings(form, given.facts.end)
        if len(found) == 1:
            self.loss_term = _fitting(found[0], form)
            return restore(self.loss_term, "losses"), found[0]
        raise self._ask(form, found)

    def _reading_of_kind(self, form: Form) -> Reading | None:
        given = self.given
        if given.config.kind is None:
            return None
        reading = infer.reading_of_kind(given.config.kind, form, given.facts.end)
        if reading is None:
            raise RecipeError(
                f"[{given.section}] kind = {given.config.kind!r} does not fit the labels{given.of}, which are {form} "
                f"({range_words(given.target)}).",
                fix="correct the kind, or the labels.",
            )
        return reading

    def _ask(self, form: Form, found: Sequence[Reading]) -> RecipeError | DataError:
        given = self.given
        ends = {
            "linear": "ends without an activation",
            "other": f"gives values from {given.facts.low:.3g} to {given.facts.high:.3g}",
        }
        end = ends.get(given.facts.end, f"ends in {given.facts.end}")
        what = f"its labels are {form} ({range_words(given.target)}), and it {end}"
        lines = [f'  kind = "{reading.kind}"    # {reading.words}: {reading.loss}' for reading in found]
        if not found:
            fitting = (kind for kind in infer.BY_KIND if infer.reading_of_kind(kind, form, given.facts.end))
            lines = [f'  kind = "{kind}"' for kind in fitting]
        return RecipeError(
            f"What output {given.name!r} is trained for cannot be known: the model was saved without its loss, {what}.",
            expected=f"one of these lines in the recipe, under [{given.section}]:\n" + "\n".join(lines),
            fix="write that line (or loss and metric); or train against the unpruned model, without labels:\n"
            '  [task]\n  kind = "teacher"',
        )

    def _change(self, loss: Loaded, needs: Labels | None, form: Form) -> Change:
        given = self.given
        if needs is None:
            return lambda labels: labels
        if needs == "values" and form == "class numbers" and given.facts.end in ("softmax", "sigmoid"):
            needs = "rows"
        explicit = given.was_compiled or given.config.loss is not None or given.config.kind is not None
        if needs == "rows" and form == "rows of zeros and ones" and explicit:
            given.warnings.append(
                f"The labels{given.of} have several ones in a row, or none, and the loss {canonical_name(loss)} is "
                "for rows that sum to one."
            )
            return lambda labels: labels
        hinge = canonical_name(loss) in ("hinge", "squared_hinge")
        change = CHANGES.get((needs, form))
        if change is None or (needs == "values" and given.data.class_names and given.facts.width == 1 and not hinge):
            raise DataError(
                f"The labels{given.of} do not fit the loss {canonical_name(loss)}: they are {form} "
                f"({range_words(given.target)}{', the numbers of class folders' if given.data.class_names else ''}).",
                expected=_EXPECTED[needs].format(width=given.facts.width),
                fix=f"give labels of that form, or another loss under [{given.section}] in the recipe.",
            )
        ignore = given.config.ignore
        if ignore is not None and form == "class numbers" and needs in ("rows", "binary"):
            return _without_rows(change(given.facts.width), ignore)
        assert given.target is not None
        if given.facts.width == 1 and len(given.facts.shape) == 3 and len(given.target.shape) == 2:
            # Keras would take the last axis off the outputs, and the mean over a row of pixels for one value.
            return lambda labels: labels[..., None]
        return change(given.facts.width)

    def _is_logits(self, loss: Loaded, needs: Labels | None) -> bool:
        """Whether classes come as logits although the loss, as it is, takes them for probabilities."""
        given = self.given
        probabilities = given.facts.end in ("softmax", "sigmoid")
        inside = given.facts.low >= 0 and given.facts.high <= 1
        if needs not in ("classes", "rows", "binary") or probabilities or takes_logits(loss):
            return False
        if given.facts.end == "other" and inside:
            return False
        stated = hasattr(loss, "get_config") and "from_logits" in loss.get_config()
        if stated and given.was_compiled and given.config.loss is None:
            given.warnings.append(
                f"The loss was compiled for probabilities, and output {given.name!r} ends without an activation; it is "
                "trained with from_logits = true."
            )
        return True

    def _kind(self, needs: Labels | None, form: Form, reading: Reading | None) -> tuple[Kind | None, int | None]:
        given = self.given
        shape, width = given.facts.shape, given.facts.width
        by_loss: dict[Labels | None, Kind | None] = {
            "classes": "classification",
            "rows": "classification",
            "binary": "classification" if width == 1 or form in ("class numbers", "one-hot rows") else "multilabel",
            "values": "classification" if form == "class numbers" else "regression",
            None: None,
        }
        kind = reading.kind if reading else by_loss[needs]
        if kind == "classification" and form in ("distributions", "numbers from 0 to 1") and needs == "binary":
            kind = "regression" if width == 1 else "multilabel"
        if kind is None:
            return None, None
        if kind != "classification":
            return kind, None
        return infer.kind_at(kind, shape), width if width > 1 else 2

    def _check_classes(self, kind: Kind | None) -> None:
        given = self.given
        labels = given.data.train.labels
        if kind == "classification" and labels is not None and not given.many and len(np.unique(labels)) < 2:
            raise DataError(
                f"The train data of {given.data.source} have a single class.",
                expected="at least two classes.",
                fix="check the labels; for folders, name the folder that holds the class folders.",
            )

    def _class_weights(self) -> tuple[float, ...] | None:
        given = self.given
        if given.config.class_weights is None:
            return None
        width = max(given.facts.width, 2)
        return class_weight_vector(given.config.class_weights, width, given.data.class_names, given.section)


def _without_rows(to_rows: Change, ignore: int) -> Change:
    """Class numbers → rows, which are all zeros where they do not count."""
    import tensorflow as tf

    def change(labels: tf.Tensor) -> tf.Tensor:
        numbers = tf.cast(labels, tf.int64)
        return to_rows(tf.where(numbers == ignore, tf.constant(-1, tf.int64), numbers))

    return change


def _fitting(reading: Reading, form: Form) -> str:
    """The loss of a reading; between its twins, the one for the labels as they come."""
    if reading.loss == "sparse_categorical_crossentropy" and form != "class numbers":
        return "categorical_crossentropy"
    return reading.loss
