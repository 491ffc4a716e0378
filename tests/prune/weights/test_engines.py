"""Weight pruning as a whole: who does it, and what arrives in the stripped model and in the flatbuffer."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import RecipeError, VerificationError
from edgeprune.progress import Progress
from edgeprune.prune.weights.engines import check, engine_for
from edgeprune.recipe.config import FinetuneConfig, TaskConfig, WeightsConfig
from edgeprune.tasks.resolve import resolve_task
from edgeprune.train.finetune import Lessons, finetune, steps_per_epoch


@pytest.mark.parametrize(
    ("config", "engine"),
    [
        ({}, "tfmot"),
        ({"schedule": "one_cycle"}, "tfmot"),
        ({"granularity": "2:4", "schedule": "one_shot"}, "tfmot"),
        ({"granularity": "2:4"}, "masked"),
        ({"granularity": "block:1x4"}, "masked"),
        ({"granularity": "block:1x4", "include": ("dense",)}, "tfmot"),
        ({"granularity": "connection"}, "masked"),
        ({"scope": "global"}, "masked"),
        ({"criterion": "taylor"}, "masked"),
        ({"regrow": "gradient"}, "masked"),
    ],
)
def test_tfmot_does_what_it_can(tiny_model, config, engine):
    """The other engine is for what tfmot lacks, and for nothing else."""
    assert engine_for(tiny_model, WeightsConfig(**config)).name == engine


def pruned(model, data, folder, config):
    engine, training = engine_for(model, config), FinetuneConfig(epochs=1, batch_size=64)
    wrapped, names = engine.wrap(model, config, steps_per_epoch(data, training), 0)
    task = resolve_task(model, TaskConfig(), data)
    finetune(
        wrapped,
        data,
        task,
        Lessons(training),
        seed=0,
        deterministic=False,
        state_file=folder / "state.npz",
        progress=Progress(),
        callbacks=engine.callbacks(),
    )
    stripped = engine.strip(wrapped)
    check(stripped, names, config)
    return engine.name, stripped


def arrays_in_the_file(model, folder):
    """{shape: dense float array} of the weights in the converted flatbuffer."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=tf.lite.TFLiteConverter.from_keras_model(model).convert())
    interpreter.allocate_tensors()
    inputs = {detail["index"] for detail in interpreter.get_input_details()}
    found = {}
    for detail in interpreter.get_tensor_details():
        if detail["index"] not in inputs and len(detail["shape"]) in (2, 4) and detail["dtype"] == np.float32:
            try:
                found.setdefault(tuple(detail["shape"]), interpreter.get_tensor(detail["index"]))
            except ValueError:  # an intermediate result, which has no data yet
                continue
    return found


@pytest.mark.parametrize(
    ("granularity", "schedule", "engine"),
    representatives([("2:4", "one_shot", "tfmot"), ("2:4", "cubic", "masked")], ("2:4", "one_shot", "tfmot")),
)
def test_n_of_m_runs_along_the_input_channels_of_the_file(
    tiny_model, tiny_data, tmp_path, granularity, schedule, engine
):
    """In the flatbuffer (OHWI, and [out, in]) at most two of four neighbours on the last axis are not zero."""
    config = WeightsConfig(granularity=granularity, schedule=schedule, exclude=("conv2d",))
    name, model = pruned(tiny_model, tiny_data, tmp_path, config)
    assert name == engine
    found = arrays_in_the_file(model, tmp_path)
    for layer in ("conv2d_1", "dense"):
        kernel = model.get_layer(layer).get_weights()[0]
        stored = found[tuple(np.moveaxis(kernel, -1, 0).shape)]
        assert np.all(np.count_nonzero(stored.reshape(-1, 4), axis=1) <= 2)
        assert np.mean(stored == 0) == 0.5
        across = np.moveaxis(stored, 0, -1)[..., :8].reshape(-1, 4)
        assert np.any(np.count_nonzero(across, axis=1) > 2), "the pattern must be on the last axis, not everywhere"


@pytest.mark.parametrize(
    ("include", "engine"),
    representatives([(("dense",), "tfmot"), (("conv2d_1",), "masked")], (("conv2d_1",), "masked")),
)
def test_blocks_lie_along_the_inputs_of_the_file(tiny_model, tiny_data, tmp_path, include, engine):
    """block:1x4: four neighbours on the last axis of the stored weights are zero together, half of all blocks."""
    config = WeightsConfig(granularity="block:1x4", include=include)
    name, model = pruned(tiny_model, tiny_data, tmp_path, config)
    assert name == engine
    kernel = model.get_layer(include[0]).get_weights()[0]
    stored = arrays_in_the_file(model, tmp_path)[tuple(np.moveaxis(kernel, -1, 0).shape)]
    filled = np.count_nonzero(stored.reshape(-1, 4), axis=1)
    assert np.mean(filled == 0) == pytest.approx(0.5, abs=0.01)
    assert np.mean(filled == 4) == pytest.approx(0.5, abs=0.01)


def test_missing_zeros_and_broken_patterns_are_errors_that_name_the_layer(tiny_model):
    """A dense model does not pass for a sparse one, nor for one of a pattern."""
    with pytest.raises(VerificationError, match="conv2d_1"):
        check(tiny_model, ["conv2d", "conv2d_1"], WeightsConfig())
    with pytest.raises(VerificationError, match="2:4 is broken in: conv2d_1"):
        check(tiny_model, ["conv2d_1"], WeightsConfig(granularity="2:4"))
    with pytest.raises(VerificationError, match="all layers together"):
        check(tiny_model, ["conv2d", "conv2d_1"], WeightsConfig(scope="global"))


@pytest.mark.parametrize("config", [{"include": ("nothing*",)}, {"exclude": ("*",)}])
def test_patterns_that_select_nothing_are_errors(tiny_model, config):
    """The message shows what there would be."""
    with pytest.raises(RecipeError, match="conv2d"):
        engine_for(tiny_model, WeightsConfig(**config))


def test_a_layer_without_a_place_for_the_granularity_is_an_error_that_names_it():
    """Blocks of a recurrent kernel are not defined; single weights of it are."""
    import tf_keras

    inputs = tf_keras.Input([4, 3])
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="d")(tf_keras.layers.LSTM(4, name="memory")(inputs)))
    assert engine_for(model, WeightsConfig()).name == "tfmot"
    with pytest.raises(RecipeError, match="memory"):
        engine_for(model, WeightsConfig(granularity="block:1x4"))
