"""How many samples are evaluated at once."""

import pytest

from edgeprune.data import InputSpec
from edgeprune.tasks.task import KERAS_BATCH, evaluation_batch

PIXELS = (224, 224, 3)


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ([PIXELS], [(1000,)], 256),
        ([(600, 600, 3)], [(1000,)], KERAS_BATCH),
        ([PIXELS, PIXELS], [(1000,)], KERAS_BATCH),
        ([PIXELS], [(224, 224, 21)], KERAS_BATCH),
        ([(None, 40)], [(None, 12)], 256),
        ([(8,)], [], 256),
    ],
)
def test_large_inputs_and_outputs_are_evaluated_in_smaller_batches(inputs, outputs, expected):
    """Keras' own batch in the place of 256 samples, so that figures which Keras averages over batches stay the same."""
    assert evaluation_batch(InputSpec(tuple(inputs), outputs=tuple(outputs))) == expected
