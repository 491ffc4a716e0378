"""Decide the task of a model, per output: from the recipe, else as it was compiled, else by the rules of ``infer.py``.

What leaves two readings is asked for: an error that lists them with the lines to write. Nothing is dropped: a loss that
cannot be restored, or labels that a loss does not take, end the build before anything is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.code import load_function
from edgeprune.data.targets import TargetFacts
from edgeprune.errors import DataError, RecipeError
from edgeprune.models.compiled import Compiled, CompiledOutput, Loaded, Unknown, restore
from edgeprune.models.types import ConfigValue, CustomObjects, Structure
from edgeprune.recipe.config import OutputTaskConfig, TaskConfig, Term
from edgeprune.tasks import infer
from edgeprune.tasks.infer import OutputFacts, Reading
from edgeprune.tasks.labels import (
    CHANGES,
    Change,
    Form,
    LabelPlan,
    by_output,
    check_class_numbers,
    class_weight_vector,
    form_of,
)  # fmt: skip
from edgeprune.tasks.losses import Labels, as_object, facts_of, takes_logits
from edgeprune.tasks.metrics import (
    OVER_CLASS_NUMBERS,
    by_shape,
    canonical_name,
    is_kerases,
    is_loss_object,
    known,
    maker,
    metric_name,
    of_loss,
    over,
)  # fmt: skip
from edgeprune.tasks.stating import named_term, term_of
from edgeprune.tasks.task import Kind, Metric, Output, Task
from edgeprune.tasks.teacher import teacher_task

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data import Data

NOT_TRAINED = "without labels or a loss"
PROBE = 64  # validation samples that outputs are looked at on


def resolve_task(
    model: tf_keras.Model,
    config: TaskConfig,
    data: Data,
    compiled: Compiled | None = None,
    objects: CustomObjects | None = None,
) -> Task:
    """Decide losses and metrics of a Keras model.

    Args:
        model: as it came, functional.
        config: the recipe's ``[task]``.
        data: the source, whose labels have the form that the user gave them.
        compiled: what the model was compiled with; None: as the model says itself.
        objects: the user's own functions and classes by name.

    Raises:
        RecipeError: the recipe does not fit the model, names what does not exist, or the task has to be stated.
        DataError: labels that do not fit the model or its loss.
    """
    import tensorflow as tf

    compiled = compiled or Compiled.of_model(model)
    if config.kind == "teacher":
        check_names(config, compiled.names)
        return teacher_task(model, data, [own[0] for own in compiled.names])

    def predict(x: Structure) -> list[np.ndarray]:
        return [np.asarray(value) for value in tf.nest.flatten(model(x, training=False))]

    task = resolve(config, data, compiled, objects or {}, predict, lambda values: infer.output_facts(model, values))
    return dataclasses.replace(task, masks=_masks(model))


def resolve(
    config: TaskConfig,
    data: Data,
    compiled: Compiled,
    objects: CustomObjects,
    predict: Callable[[Structure], list[np.ndarray]],
    facts_from: Callable[[list[np.ndarray]], list[OutputFacts]],
) -> Task:
    """Decide losses and metrics of whatever makes outputs of inputs.

    Args:
        config, data, objects: as in :func:`resolve_task`.
        compiled: the names of the outputs, and what they were compiled with, if that is known.
        predict: a batch of inputs → one array [batch, ...] per output.
        facts_from: outputs of some samples → what each output is.

    Raises:
        RecipeError, DataError: as :func:`resolve_task`.
    """
    check_names(config, compiled.names)
    names = tuple(own[0] for own in compiled.names)
    targets = by_output(data.targets, compiled.names)
    if all(facts is None for facts in targets):
        raise DataError(
            f"The data of {data.source} has no labels.",
            expected="labels, which training and the metric need.",
            fix="to train against the unpruned model instead, and report agreement with it, write in the recipe:\n"
            '  [task]\n  kind = "teacher"',
        )
    sample = _sample(data)
    outputs_seen = predict(sample[0])
    facts, many = facts_from(outputs_seen), len(names) > 1
    sole = sum(target is not None for target in targets) == 1
    resolved = [
        _Resolver(
            i,
            names[i],
            many,
            _config_of(config, compiled.names[i]),
            facts[i],
            target,
            data,
            objects,
            compiled.outputs[i] if compiled.outputs else None,
        ).output(sole)
        for i, target in enumerate(targets)
    ]
    outputs = _distinct(tuple(one.output for one in resolved))
    if all(output.loss is None for output in outputs):
        raise RecipeError(
            "No output has both labels and a loss.",
            expected="at least one, for training and the metric.",
            fix="name outputs of the model in the labels (a dict by output), or write [task] loss.",
        )
    plan = LabelPlan(
        compiled.names, tuple(one.change for one in resolved), tuple(one.class_weights for one in resolved)
    )
    primary = _primary(outputs, config, many)
    task = Task(
        outputs,
        watched=(primary,),
        name=primary.name,
        prepare=_prepare(plan),
        warnings=tuple(warning for one in resolved for warning in one.warnings),
    )
    _try(task, _sample(task.prepare(data)), outputs_seen)
    return task


def check_names(config: TaskConfig, names: Sequence[Sequence[str]]) -> None:
    """Raise a RecipeError if the recipe has a section for an output that the model does not have."""
    unknown = set(config.outputs) - {name for own in names for name in own}
    if unknown:
        raise RecipeError(
            f"[task.outputs] has {', '.join(sorted(unknown))}; the model's outputs are: "
            f"{', '.join(own[0] for own in names)}.",
            fix="correct the name of the section.",
        )


def _sample(data: Data) -> tuple[Structure, ...]:
    """A few samples of validation data: inputs, labels, and weights if there are any."""
    from edgeprune.data import data_errors

    # In ascending order, which every source keeps, so that two calls give the same samples.
    indices = np.sort(np.random.default_rng(0).permutation(data.validation.size)[:PROBE])
    with data_errors():
        return next(iter(data.validation.batches(len(indices), indices=indices)))


@dataclasses.dataclass(frozen=True)
class _Resolved:
    output: Output
    change: Change | None = None
    class_weights: tuple[float, ...] | None = None
    warnings: tuple[str, ...] = ()


def _config_of(config: TaskConfig, names: Sequence[str]) -> OutputTaskConfig:
    """What the recipe says of an output: its own section, else what holds for all."""
    own = next((config.outputs[name] for name in names if name in config.outputs), OutputTaskConfig())
    shared = {key: getattr(config, key) for key in OutputTaskConfig.model_fields}
    given = {key: value for key, value in own if value is not None}
    return OutputTaskConfig.model_construct(**{**shared, **given})


class _Resolver:
    """Decides one output."""

    def __init__(
        self,
        index: int,
        name: str,
        many: bool,
        config: OutputTaskConfig,
        facts: OutputFacts,
        target: TargetFacts | None,
        data: Data,
        objects: CustomObjects,
        compiled: CompiledOutput | None,
    ):
        self.index, self.name, self.many, self.config = index, name, many, config
        self.facts, self.target, self.data, self.objects = facts, target, data, objects
        self.compiled = compiled or CompiledOutput()
        self.was_compiled = compiled is not None
        self.section = f"task.outputs.{name}" if many else "task"
        self.warnings: list[str] = []
        # What a recipe would have to say for the same loss and metrics; None: it has no words for them.
        self.loss_term: Term | None = None
        self.metric_terms: list[Term | None] = []

    def output(self, sole: bool) -> _Resolved:
        """The output's task; nothing where it has no labels, or no loss by the user's will."""
        if self.target is None:
            return _Resolved(Output(self.name, weight=0.0, origin=NOT_TRAINED, stated=self.config))
        if self.config.loss == "none" or (self._unused() and not sole):
            return _Resolved(Output(self.name, weight=0.0, origin=NOT_TRAINED, stated=OutputTaskConfig(loss="none")))
        form = form_of(self.target, self.facts.shape, self.config.ignore)
        if form == "other shape":
            raise DataError(
                f"The labels{self._of} have the shape {_shape(self.target.shape)} per sample, and the output has "
                f"{_shape(self.facts.shape)}.",
                expected=f"labels of {_shape(self.facts.shape)}"
                + (f", or class numbers of {_shape(self.facts.shape[:-1])}." if self.facts.width > 1 else "."),
                fix="reshape the labels in the data source, or check that the model belongs to the data.",
            )
        if form == "class numbers":
            check_class_numbers(
                self.target, self.facts.width, self.config.ignore, self.name if self.many else "", self.section
            )
        loss, reading = self._loss(form)
        needs = facts_of(loss).labels
        change = self._change(loss, needs, form)
        is_logits = self._is_logits(loss, needs)
        made = as_object(loss, is_logits=is_logits, ignore=self.config.ignore)
        in_classes = needs == "classes" or (needs is None and form == "class numbers")
        metrics = tuple(self._metrics(loss, made, reading, in_classes))
        kind, classes = self._kind(needs, form, reading)
        self._check_classes(kind)
        return _Resolved(
            Output(
                self.name, made, kind, self._weight(), metrics, classes,
                width=self.facts.width,
                origin=self._origin(reading),
                is_logits=classes is not None and (takes_logits(made) or self.facts.end not in ("softmax", "sigmoid")),
                stated=self._stated(kind),
            ),
            change,
            self._class_weights(),
            tuple(self.warnings),
        )  # fmt: skip

    @property
    def _of(self) -> str:
        return f" of output {self.name!r}" if self.many else ""

    def _unused(self) -> bool:
        """Compiled without a loss for this output, and the recipe has none for it."""
        return self.was_compiled and self.compiled.loss is None and not (self.config.loss or self.config.kind)

    def _origin(self, reading: Reading | None) -> str:
        if self.config.loss is not None or self.config.kind is not None:
            return "as the recipe says"
        return "as the model was compiled" if reading is None else "by its labels and how it ends"

    def _weight(self) -> float:
        return self.compiled.weight if self.config.weight is None else self.config.weight

    def _stated(self, kind: Kind | None) -> OutputTaskConfig:
        """The output's section in a recipe that states what was resolved."""
        terms = tuple(term for term in self.metric_terms if term is not None)
        # Without metrics the loss is the metric, unless a kind is named, which has a metric of its own.
        known = {
            "loss": self.loss_term,
            "metric": terms[0] if len(terms) == 1 else terms or None,
            "kind": kind if terms else None,
        }
        given = {key: value for key, value in known.items() if value is not None}
        return self.config.model_copy(update={**given, "weight": self._weight()})

    # --- the loss

    def _loss(self, form: Form) -> tuple[Loaded, Reading | None]:
        """The loss, and the reading that it comes from if neither recipe nor compile information name it."""
        if self.config.loss is not None:
            self.loss_term = self.config.loss
            return self._of_recipe(self.config.loss, "losses"), self._reading_of_kind(form)
        if self.config.kind is not None:
            reading = self._reading_of_kind(form)
            assert reading is not None
            self.loss_term = _fitting(reading, form)
            return restore(self.loss_term, "losses"), reading
        if self.compiled.loss is not None:
            try:
                loss = restore(self.compiled.loss, "losses", self.objects)
                self.loss_term = term_of(self.compiled.loss, loss)
                return loss, None
            except Unknown as error:
                raise RecipeError(
                    f"The model was compiled with the loss {error.name!r}{self._of}, which cannot be restored: "
                    f"{error.reason}.",
                    expected="a loss that can be loaded, or one that the recipe names.",
                    fix=f"write in the recipe:\n  [{self.section}]\n"
                    f'  loss = "file.py:{error.name}"    # where it is defined; or a loss of Keras\n'
                    "or give the file with --custom-objects FILE.py --trust-model.",
                ) from None
        found = infer.readings(form, self.facts.end)
        if len(found) == 1:
            self.loss_term = _fitting(found[0], form)
            return restore(self.loss_term, "losses"), found[0]
        raise self._ask(form, found)

    def _reading_of_kind(self, form: Form) -> Reading | None:
        if self.config.kind is None:
            return None
        reading = infer.reading_of_kind(self.config.kind, form, self.facts.end)
        if reading is None:
            raise RecipeError(
                f"[{self.section}] kind = {self.config.kind!r} does not fit the labels{self._of}, which are {form} "
                f"({_range(self.target)}).",
                fix="correct the kind, or the labels.",
            )
        return reading

    def _ask(self, form: Form, found: Sequence[Reading]) -> RecipeError | DataError:
        ends = {
            "linear": "ends without an activation",
            "other": f"gives values from {self.facts.low:.3g} to {self.facts.high:.3g}",
        }
        end = ends.get(self.facts.end, f"ends in {self.facts.end}")
        what = f"its labels are {form} ({_range(self.target)}), and it {end}"
        lines = [f'  kind = "{reading.kind}"    # {reading.words}: {reading.loss}' for reading in found]
        if not found:
            fitting = (kind for kind in infer.BY_KIND if infer.reading_of_kind(kind, form, self.facts.end))
            lines = [f'  kind = "{kind}"' for kind in fitting]
        return RecipeError(
            f"What output {self.name!r} is trained for cannot be known: the model was saved without its loss, {what}.",
            expected=f"one of these lines in the recipe, under [{self.section}]:\n" + "\n".join(lines),
            fix="write that line (or loss and metric); or train against the unpruned model, without labels:\n"
            '  [task]\n  kind = "teacher"',
        )

    def _of_recipe(self, term: Term, what: Any) -> Loaded:
        word = {"losses": "loss", "metrics": "metric"}[what]
        named = term["class"] if isinstance(term, Mapping) else term
        given = {k: v for k, v in term.items() if k not in ("class", "weighted")} if isinstance(term, Mapping) else {}
        objects = dict(self.objects)

        def by_name(place: str) -> str:
            """The name of what the user's code has there, which is restored like what a model was compiled with."""
            found = load_function(place, RecipeError)
            objects[found.__name__] = found
            return found.__name__

        name = by_name(named) if ":" in named else named
        if ":" in str(given.get("fn")):  # of a wrapper of Keras around a function
            given["fn"] = by_name(given["fn"])
        config: ConfigValue = {"class_name": name, "config": given}
        if isinstance(term, str) or (not name[:1].isupper() and not set(given) - {"name"}):
            config = name
        try:
            return restore(config, what, objects)
        except Unknown as error:
            raise RecipeError(
                f"There is no {word} {named!r} in Keras, or not with these arguments: {error.reason}.",
                fix=f"check [{self.section}] {word}, or name a function: file.py:function.",
            ) from None

    def _change(self, loss: Loaded, needs: Labels | None, form: Form) -> Change:
        if needs is None:
            return lambda labels: labels
        if needs == "values" and form == "class numbers" and self.facts.end in ("softmax", "sigmoid"):
            needs = "rows"
        explicit = self.was_compiled or self.config.loss is not None or self.config.kind is not None
        if needs == "rows" and form == "rows of zeros and ones" and explicit:
            self.warnings.append(
                f"The labels{self._of} have several ones in a row, or none, and the loss {canonical_name(loss)} is "
                "for rows that sum to one."
            )
            return lambda labels: labels
        hinge = canonical_name(loss) in ("hinge", "squared_hinge")
        change = CHANGES.get((needs, form))
        if change is None or (needs == "values" and self.data.class_names and self.facts.width == 1 and not hinge):
            raise DataError(
                f"The labels{self._of} do not fit the loss {canonical_name(loss)}: they are {form} "
                f"({_range(self.target)}{', the numbers of class folders' if self.data.class_names else ''}).",
                expected=_EXPECTED[needs].format(width=self.facts.width),
                fix=f"give labels of that form, or another loss under [{self.section}] in the recipe.",
            )
        return change(self.facts.width)

    def _is_logits(self, loss: Loaded, needs: Labels | None) -> bool:
        """Whether classes come as logits although the loss, as it is, takes them for probabilities."""
        probabilities = self.facts.end in ("softmax", "sigmoid")
        inside = self.facts.low >= 0 and self.facts.high <= 1
        if needs not in ("classes", "rows", "binary") or probabilities or takes_logits(loss):
            return False
        if self.facts.end == "other" and inside:
            return False
        stated = hasattr(loss, "get_config") and "from_logits" in loss.get_config()
        if stated and self.was_compiled and self.config.loss is None:
            self.warnings.append(
                f"The loss was compiled for probabilities, and output {self.name!r} ends without an activation; it is "
                "trained with from_logits = true."
            )
        return True

    # --- metrics

    def _metrics(self, loss: Loaded, made: Loaded, reading: Reading | None, in_classes: bool) -> Iterable[Metric]:
        if self.config.metric is not None:
            terms = self.config.metric if isinstance(self.config.metric, tuple) else (self.config.metric,)
            for place, term in enumerate(terms):
                metric = self._of_recipe(term, "metrics")
                name = _term_name(term, metric)
                weighted = isinstance(term, Mapping) and bool(term.get("weighted"))
                self.metric_terms.append(term)
                yield self._metric(metric, name, made, in_classes, first=place == 0, weighted=weighted)
            return
        yielded = False
        for key in ("metrics", "weighted_metrics"):
            for place, config in enumerate(getattr(self.compiled, key)):
                first = place == 0 and not yielded
                try:
                    metric = restore(config, "metrics", self.objects)
                except Unknown as error:
                    if first:
                        raise self._unknown_metric(error) from None
                    self.warnings.append(
                        f"The metric {error.name!r}{self._of} cannot be restored ({error.reason}), and is not reported."
                    )
                    continue
                name = metric_name(metric, config)
                weighted = key == "weighted_metrics"
                self.metric_terms.append(named_term(term_of(config, metric), name, weighted))
                yield self._metric(metric, name, made, in_classes, first=first, weighted=weighted, compiled=True)
                yielded = True
        if yielded:
            return
        default = facts_of(loss).metric if reading is None else reading.metric
        if default is None:
            yield self._loss_as_metric(made)
        else:
            self.metric_terms.append(default)
            yield self._metric(restore(default, "metrics"), default, made, in_classes, first=True)

    def _unknown_metric(self, error: Unknown) -> RecipeError:
        return RecipeError(
            f"The model was compiled with the metric {error.name!r}{self._of}, which cannot be restored: "
            f"{error.reason}.",
            expected="a metric that can be loaded, or one that the recipe names.",
            fix=f"write in the recipe:\n  [{self.section}]\n"
            f'  metric = "file.py:{error.name}"    # where it is defined; or a metric of Keras\n'
            "  higher_is_better = true    # or false\n"
            "or give the file with --custom-objects FILE.py --trust-model.",
        )

    def _loss_as_metric(self, made: Any) -> Metric:
        """A model without metrics is judged by its loss."""
        name = self._full(made.name or "loss")
        return Metric(name, self.index, lambda: of_loss(made, name), False, 1.0, weighted=True, by_batch=True)

    def _metric(
        self,
        metric: Loaded,
        name: str,
        made: Any,
        in_classes: bool,
        *,
        first: bool,
        weighted: bool = False,
        compiled: bool = False,
    ) -> Metric:
        import tf_keras

        extra = {}
        if isinstance(metric, str):  # "accuracy" or "crossentropy"
            shape = (None, *self.facts.shape)
            chosen = by_shape(metric, shape[:-1] if in_classes and self.facts.width > 1 else shape, shape)
            metric = getattr(tf_keras.metrics, chosen)
        canonical = canonical_name(metric)
        # Outputs that are logits cross zero where probabilities cross one half. A compiled metric stays Keras' own.
        if canonical == "binary_accuracy" and takes_logits(made):
            if compiled:
                if not hasattr(metric, "update_state"):
                    # In a recipe the name alone would have the threshold of logits.
                    stated = {"class": "BinaryAccuracy", "name": name, "threshold": 0.5}
                    self.metric_terms[-1] = named_term(stated, name, weighted)
                self.warnings.append(
                    f"The metric {name!r}{self._of} was compiled with a threshold of 0.5, and the outputs are logits, "
                    'which cross zero. The figure is Keras\' own; [task] metric = "binary_accuracy" would have a '
                    "threshold of 0."
                )
            elif not hasattr(metric, "update_state"):
                extra["threshold"] = 0.0
        new = maker(metric, name, extra)
        if canonical in OVER_CLASS_NUMBERS and not in_classes and self.facts.width > 1:
            new = over(name, new, lambda labels, weights: (_class_numbers(labels), weights))
        elif in_classes and canonical in _OVER_ROWS and self.facts.width > 1:
            width = self.facts.width
            if compiled and self._takes_numbers(new):
                self.warnings.append(
                    f"The metric {name!r}{self._of} was compiled for rows of {width} values, and the labels are class "
                    "numbers, each of which Keras compares with all values of its row. The figure is Keras' own; "
                    f'[task] metric = "{canonical}" would compare one-hot rows.'
                )
            else:
                new = over(name, new, lambda labels, weights: (_rows(labels, width), weights))
        if canonical in _STRICT:
            new = over(name, new, _floats)
        if self.config.ignore is not None:
            new = over(name, new, _without(self.config.ignore))
        higher, points = self._direction(metric, name, first)
        by_batch = is_loss_object(metric) or not is_kerases(metric)
        return Metric(self._full(name), self.index, new, higher, points, weighted, by_batch)

    def _takes_numbers(self, new: Callable[[], tf_keras.metrics.Metric]) -> bool:
        """Whether a metric over rows takes class numbers as they come: Keras' functions spread them over the row."""
        import tensorflow as tf
        from tf_keras.src.engine.compile_utils import match_dtype_and_rank

        assert self.target is not None
        shapes = ([2, *(size or 1 for size in shape)] for shape in (self.target.shape, self.facts.shape))
        labels, outputs, _ = match_dtype_and_rank(*map(tf.zeros, shapes), None)
        # What does not take them fails in any way.
        try:
            new().update_state(labels, outputs)
        except Exception:
            return False
        return True

    def _direction(self, metric: Loaded, name: str, first: bool) -> tuple[bool, float]:
        facts = known(metric)
        if first and self.config.higher_is_better is not None:
            return self.config.higher_is_better, facts.points
        if facts.higher_is_better is not None:
            return facts.higher_is_better, facts.points
        raise RecipeError(
            f"Whether a higher {name!r}{self._of} is better cannot be known: it is no metric of Keras.",
            expected="its direction, or another metric.",
            fix=f"write in the recipe:\n  [{self.section}]\n  higher_is_better = true    # or false"
            + ("" if first else f'\n  metric = "{name}"    # first, as that line is about the first metric'),
        )

    def _full(self, name: str) -> str:
        return f"{self.name}.{name}" if self.many else name

    # --- kind, classes, weights

    def _kind(self, needs: Labels | None, form: Form, reading: Reading | None) -> tuple[Kind | None, int | None]:
        shape, width = self.facts.shape, self.facts.width
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
        labels = self.data.train.labels
        if kind == "classification" and labels is not None and not self.many and len(np.unique(labels)) < 2:
            raise DataError(
                f"The train data of {self.data.source} have a single class.",
                expected="at least two classes.",
                fix="check the labels; for folders, name the folder that holds the class folders.",
            )

    def _class_weights(self) -> tuple[float, ...] | None:
        if self.config.class_weights is None:
            return None
        width = max(self.facts.width, 2)
        return class_weight_vector(self.config.class_weights, width, self.data.class_names, self.section)


_EXPECTED = {
    "classes": "class numbers from 0 to {width} - 1, or one-hot rows.",
    "rows": "rows of {width} weights that sum to one, or class numbers.",
    "binary": "numbers from 0 to 1.",
    "values": "numbers of the output's shape.",
}
# Metrics that compare rows, for labels that are class numbers.
_OVER_ROWS = {
    "categorical_accuracy", "categorical_crossentropy", "top_k_categorical_accuracy", "binary_accuracy",
    "binary_crossentropy", "auc", "precision", "recall", "f1_score", "fbeta_score", "one_hot_io_u",
    "one_hot_mean_io_u", "kl_divergence", "mean_squared_error", "mean_absolute_error", "categorical_hinge",
    "categorical_focal_crossentropy", "cosine_similarity",
}  # fmt: skip


# Metrics of tf_keras that take neither integers nor weights [batch, 1], as those of Keras 3 do.
_STRICT = {"f1_score", "fbeta_score"}


def _fitting(reading: Reading, form: Form) -> str:
    """The loss of a reading; between its twins, the one for the labels as they come."""
    if reading.loss == "sparse_categorical_crossentropy" and form != "class numbers":
        return "categorical_crossentropy"
    return reading.loss


def _term_name(term: Term, metric: Loaded) -> str:
    if isinstance(term, str):
        return term.rpartition(":")[2]
    return str(term.get("name") or getattr(metric, "name", term["class"]))


def _class_numbers(labels: Any) -> Any:
    import tensorflow as tf

    return tf.argmax(labels, -1)


def _rows(labels: Any, width: int) -> Any:
    import tensorflow as tf

    numbers = tf.cast(labels, tf.int32)
    if numbers.shape.rank is not None and numbers.shape.rank > 1 and numbers.shape[-1] == 1:
        numbers = numbers[..., 0]
    return tf.one_hot(numbers, width)


def _floats(labels: Any, weights: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    spread = weights is not None and weights.shape.rank > 1 and weights.shape[-1] == 1
    return tf.cast(labels, tf.float32), weights[..., 0] if spread else weights


def _without(ignore: int) -> Any:
    """Labels and weights without the positions of one class number."""
    import tensorflow as tf

    def change(labels: Any, weights: Any) -> tuple[Any, Any]:
        kept = tf.not_equal(tf.cast(labels, tf.int64), ignore)
        mask = tf.cast(kept, tf.float32)
        if mask.shape.rank is not None and mask.shape.rank > 1 and mask.shape[-1] == 1:
            mask = mask[..., 0]
        if weights is not None:
            extra = mask.shape.rank - weights.shape.rank
            mask = mask * tf.cast(
                tf.reshape(weights, [*weights.shape[:], *[1] * extra]) if extra else weights, tf.float32
            )
        return tf.where(kept, labels, tf.zeros_like(labels)), mask

    return change


def _shape(shape: Sequence[int | None]) -> str:
    return " x ".join("any" if one is None else str(one) for one in shape) or "one number"


def _range(facts: TargetFacts | None) -> str:
    return "" if facts is None else f"{facts.low:.4g} to {facts.high:.4g}"


def _distinct(outputs: tuple[Output, ...]) -> tuple[Output, ...]:
    """The outputs, no two metrics of the same name: Keras puts "weighted" before the second."""
    seen: set[str] = set()

    def renamed(metric: Metric) -> Metric:
        name, number = metric.name, 2
        if name in seen and metric.weighted:
            head, dot, tail = name.rpartition(".")
            name = f"{head}{dot}weighted_{tail}"
        base = name
        while name in seen:
            name, number = f"{base}_{number}", number + 1
        seen.add(name)
        return dataclasses.replace(metric, name=name)

    return tuple(
        dataclasses.replace(output, metrics=tuple(renamed(metric) for metric in output.metrics)) for output in outputs
    )


def _primary(outputs: Sequence[Output], config: TaskConfig, many: bool) -> Metric:
    """The metric that choices go by: the one that the recipe names, else the first."""
    metrics = [metric for output in outputs for metric in output.metrics]
    if config.primary is None:
        return metrics[0]
    named = [metric for metric in metrics if config.primary in (metric.name, metric.name.rpartition(".")[2])]
    named += [metric for metric in metrics if many and outputs[metric.output].name == config.primary][:1]
    exact = [metric for metric in named if metric.name == config.primary]
    if len(exact or named) == 1 or (exact and many):
        return (exact or named)[0]
    raise RecipeError(
        f"[task] primary = {config.primary!r} names {'several metrics' if named else 'no metric of this model'}.",
        expected=f"one of: {', '.join(metric.name for metric in metrics)}.",
    )


def _prepare(plan: LabelPlan) -> Any:
    def prepare(data: Data) -> Data:
        training, judging = plan.relabel(training=True), plan.relabel(training=False)
        return dataclasses.replace(
            data,
            train=dataclasses.replace(data.train, relabel=training),
            validation=dataclasses.replace(data.validation, relabel=judging),
            test=dataclasses.replace(data.test, relabel=judging),
        )

    return prepare


def _masks(model: tf_keras.Model) -> Any:
    """The padding of each output, as Keras carries it from Masking and Embedding layers to losses and metrics."""
    import tensorflow as tf

    if all(getattr(tensor, "_keras_mask", None) is None for tensor in model.outputs):
        return None

    # Of the whole model, the graph keeps what the masks need.
    @tf.function(reduce_retracing=True)
    def of_batch(x: Structure) -> list[Any]:
        outputs = tf.nest.flatten(model(x, training=False))
        masks = [getattr(output, "_keras_mask", None) for output in outputs]
        return [None if mask is None else tf.cast(mask, tf.float32) for mask in masks]

    return of_batch


def _try(task: Task, sample: tuple[Structure, ...], outputs: list[np.ndarray]) -> None:
    """Compute loss and metrics of a few samples, so that what cannot be computed is found before training.

    Raises:
        RecipeError: one of them cannot be, or is no single number.
    """
    x, y, *w = sample
    # The user's functions, and Keras' own with arguments that do not fit, fail in any way.
    try:
        task.loss_function()(y, outputs, *w)
    except Exception as error:
        raise RecipeError(
            f"The loss cannot be computed: {_said(error)}",
            expected="a loss of (labels, outputs) that fits the labels.",
            fix="check [task] loss, and the labels.",
        ) from error
    for metric in task.metrics:
        one = task.meter([metric])
        try:
            one.update(x, y, outputs, *w)
            figures = one.result()
        except Exception as error:
            raise RecipeError(
                f"The metric {metric.name!r} cannot be computed: {_said(error)}",
                expected="a metric of (labels, outputs) that fits the labels.",
                fix='check it, or name another one in the recipe under [task]: metric = "...".',
            ) from error
        if metric.name not in figures and metric in task.watched:
            raise RecipeError(
                f"The metric {metric.name!r} is {len(figures)} numbers, one per class.",
                expected="one number.",
                fix='set its average, for example [task] metric = { class = "F1Score", average = "macro" }.',
            )


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
