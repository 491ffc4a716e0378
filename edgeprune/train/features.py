"""Learning from the teacher's features: what the last layers take, beside what the model gives.

Pruning changes the number of channels, so features cannot be compared one by one. What is compared is how alike the
samples of a batch are to each other (Tung & Mori 2019, arXiv:1907.09682): the rows of ``F Fᵀ``, each of unit length,
where F has the flattened features of a sample in each row. The loss of a sample is the squared distance of its rows.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgeprune.errors import RecipeError
from edgeprune.models.graph import View
from edgeprune.models.layer_facts import facts_of
from edgeprune.models.types import Structure, Tensor
from edgeprune.recipe.config import DistillConfig
from edgeprune.tasks.task import Output, Task

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras


def last_features(model: tf_keras.Model, count: int) -> dict[str, Tensor]:
    """What the last ``count`` layers with kernels take, by the names of these layers, the last one first.

    Inputs of the model, and what several of the layers take, are left out or given once.
    """
    view = View(model)
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for node in reversed(view.nodes):
        tensors = list(node.keras_inputs)
        if len(found) == count or facts_of(node.layer) is None or len(tensors) != 1:
            continue
        if id(tensors[0]) in seen or view.maker(tensors[0]).is_input:
            continue
        seen.add(id(tensors[0]))
        found[node.layer.name] = tensors[0]
    return found


@dataclasses.dataclass(frozen=True)
class FeatureLessons:
    """A student and its teacher with their features among the outputs.

    Attributes:
        student: the layers of the model that is trained, shared with it.
        teacher: likewise.
        names: of the layers that take the features.
        weight: of each in the loss.
    """

    student: tf_keras.Model
    teacher: tf_keras.Model
    names: tuple[str, ...]
    weight: float

    @staticmethod
    def of(student: tf_keras.Model, teacher: tf_keras.Model, config: DistillConfig) -> FeatureLessons:
        """Find the features of the last layers, as many as ``config.features``, in both.

        Raises:
            RecipeError: the models have no such layer in common.
        """
        import tf_keras

        wanted = last_features(teacher, config.features)
        # Wrappers for training put a prefix before the name of a layer.
        own = {
            name: tensors[0]
            for node in View(student).nodes
            for name in wanted
            if node.layer.name == name or node.layer.name.endswith(f"_{name}")
            if len(tensors := list(node.keras_inputs)) == 1
        }
        names = tuple(name for name in wanted if name in own)
        if not names:
            raise RecipeError(
                f"[distill] features = {config.features}: the model and its teacher have no such layer in common.",
                fix="leave features out.",
            )
        return FeatureLessons(
            tf_keras.Model(student.inputs, [*student.outputs, *(own[name] for name in names)]),
            tf_keras.Model(teacher.inputs, [*teacher.outputs, *(wanted[name] for name in names)]),
            names,
            config.weight,
        )

    def task(self, task: Task) -> Task:
        """``task`` with one more output per feature."""
        extra = tuple(Output(f"features of {name}", similarity(), weight=self.weight) for name in self.names)
        return dataclasses.replace(task, outputs=(*task.outputs, *extra))

    def taught(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Batches whose labels are followed by the teacher's features."""
        import tensorflow as tf

        outputs = len(self.teacher.outputs) - len(self.names)

        def append(x: Structure, y: Structure, *w: Structure) -> tuple[Structure, ...]:
            features = self.teacher(x, training=False)[outputs:]
            labels = y if isinstance(y, tuple) else (y,)
            ones = (tf.ones([tf.shape(features[0])[0]]),) * len(features)
            given = w[0] if w and isinstance(w[0], tuple) else w
            return x, (*labels, *features), *(((*given, *ones),) if w else ())

        return batches.map(append, num_parallel_calls=1).prefetch(2)


def similarity() -> tf_keras.losses.Loss:
    """Over (features of the teacher, of the student), each [batch, ...]: see the module."""
    import tensorflow as tf
    import tf_keras

    def rows(features: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(tf.cast(features, tf.float32), [tf.shape(features)[0], -1])
        return tf.math.l2_normalize(tf.matmul(flat, flat, transpose_b=True), -1)

    class Similarity(tf_keras.losses.Loss):
        def call(self, taught: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(tf.square(rows(taught) - rows(outputs)), -1)

    return Similarity(name="similarity")
