"""Limits of files for several targets, and over several steps: what is built keeps each of them."""

import itertools
import math

import numpy as np
import pytest
import tf_keras
from matrix import representatives

import edgeprune
from edgeprune.builder import _with_data, build_context
from edgeprune.context import Trust
from edgeprune.convert.converter import convert
from edgeprune.data import InputSpec, load_data
from edgeprune.pipeline import Run
from edgeprune.plan import make_plan, source_step
from edgeprune.profiling.profile import profile
from edgeprune.progress import Progress
from edgeprune.quantize.plan import QuantizationPlan, quantization_plan
from edgeprune.recipe.config import DataConfig
from edgeprune.recipe.load import parse_recipe
from edgeprune.selection import Limits
from edgeprune.stages.filters import FiltersStageConfig, _step_most, looked_at
from edgeprune.target import ChannelSteps, load_target

NOTE = "converts the model several times"
LIMITS = {
    "max_latency": {"rpi4": "60%", "rpi5": "95%", "coral": "99.5%"},
    "max_memory": {"coral": "80%"},
    "max_size": {"coral": "50%"},
}


@pytest.mark.parametrize(
    ("shape", "count"), [((32, 32, 3), 8192), ((96, 96, 3), 4521), ((224, 224, 3), 2048), ((None, 3), 8192)]
)
def test_as_many_samples_are_looked_at_as_fit(shape, count):
    """500 MB of float32, and never fewer than 2,048."""
    assert looked_at(tf_keras.Sequential([tf_keras.Input(shape), tf_keras.layers.Dense(1)])) == count


class Notes(Progress):
    def __init__(self):
        self.heard = []

    def note(self, text):
        self.heard.append(text)


@pytest.fixture(scope="module")
def model():
    """A network with a residual block, wide enough to lose half of its channels in multiples of 16; not trained."""
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    inputs = layers.Input([16, 16, 1])
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="stem")(inputs)
    y = layers.Conv2D(64, 3, padding="same", activation="relu", name="inner")(x)
    x = layers.Add(name="sum")([x, layers.Conv2D(32, 3, padding="same", name="last")(y)])
    x = layers.Conv2D(64, 3, strides=2, activation="relu", name="late")(x)
    x = layers.Dense(10, activation="softmax", name="dense")(layers.GlobalAveragePooling2D()(x))
    made = tf_keras.Model(inputs, x, name="small")
    random = np.random.default_rng(0)  # biases of zeros would be stored once
    made.set_weights([random.normal(0, 0.2, weights.shape) for weights in made.get_weights()])
    made.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return made


def _recipe(filters, **table):
    table = {
        "filters": {"criterion": "l2", "samples": 32, "step_epochs": 0, "verify": False, **filters},
        "reconstruct": {"samples": 32},
        "finetune": {"epochs": 0},
        "data": {"scale": 1 / 255},
        **table,
    }
    return parse_recipe(table, "mine.toml")


def _pruned(model, recipe, folder, source="demo"):
    """The artifact of every step of a build for rpi4 that prunes, and what it said meanwhile."""
    target, heard = load_target("rpi4"), Notes()
    context = build_context(model, (recipe,), target, 0, False, Trust(), heard, None)
    run = Run(folder)
    run.execute([source_step(False)], context)
    context, source = _with_data(context, run, source, Limits(), None)
    plan = make_plan([recipe], target, source=source)
    last = next(variant.model for variant in plan.variants if "filters" in variant.name)
    run.execute([step for step in plan.steps if step.name.split(".")[0] == last or step.name == "layers"], context)
    return run.artifacts, last, heard.heard


@pytest.fixture(scope="module")
def built(model, tmp_path_factory):
    """Two steps under limits for three targets, two of which take the same file."""
    recipe = _recipe({**LIMITS, "steps": 2}, quantize={"modes": ["float32", "int8"]})
    artifacts, _, heard = _pruned(model, recipe, tmp_path_factory.mktemp("targets"))
    return recipe, artifacts, heard


def _figures(recipe, file, target, folder):
    """The figures of the file that a build for the target makes of a model."""
    board = load_target(target)
    plan = quantization_plan("int8", recipe, board)

    def samples():
        yield [np.random.default_rng(0).random((1, 16, 16, 1), np.float32)]

    path = folder / "model.tflite"
    path.write_bytes(convert(edgeprune.load_model(file), plan, samples))
    found = profile(path, board)
    return {"latency": found.latency.estimated.median_ms, "memory": found.memory.arena_bytes, "size": found.bytes}


def _asked(name):
    """The share that is asked for, by the name of a limit."""
    what, target = name.split(" on ")
    return float(LIMITS[f"max_{what}"][target][:-1]) / 100


@pytest.mark.parametrize("target", ["rpi4", "rpi5", "coral"])
def test_the_file_for_each_target_keeps_its_limits(built, target, tmp_path):
    """Profiled for its target, the file of the pruned model comes to no more than the asked share of the unpruned."""
    recipe, artifacts, _ = built
    limits = {limit["name"]: limit for limit in artifacts["filters"].facts["filters"]["allocation"]["limits"]}
    assert list(limits) == [f"{key.removeprefix('max_')} on {name}" for key, table in LIMITS.items() for name in table]
    whole, left = (_figures(recipe, artifacts[step].files["model"], target, tmp_path) for step in ("model", "filters"))
    for name in (name for name in limits if name.endswith(f" on {target}")):
        what = name.split()[0]
        # Files of a build also have metadata, which is part of their size.
        spare = 4096 if what == "size" else 0
        assert limits[name]["most"] == pytest.approx(_asked(name) * whole[what], rel=1e-9, abs=spare)
        assert limits[name]["value"] == pytest.approx(left[what], rel=1e-9, abs=spare)
        assert left[what] <= limits[name]["most"] * (1 + 1e-9) < whole[what]


def test_targets_that_take_the_same_file_share_its_conversion(built):
    """Boards with float inputs take one file, the accelerator another one: in each step, two are followed."""
    assert sum(note.startswith(NOTE) for note in built[-1]) == 4


def test_steps_go_geometrically_from_the_file_of_the_unpruned_model(built):
    """After one of two steps the share is the root of the asked one; both steps know the same unpruned figures."""
    facts = [built[1][f"filters.remove{number}"].facts["filters"] for number in (1, 2)]
    original = facts[0]["original_files"]
    assert facts[1]["original_files"] == original
    for number, one in enumerate(facts, 1):
        assert sum(row["removed"] for row in one["groups"])
        for limit in one["allocation"]["limits"]:
            name = limit["name"]
            assert limit["most"] == pytest.approx(original[name] * _asked(name) ** (number / 2))
            assert limit["value"] <= limit["most"] * (1 + 1e-9)


def test_a_repair_that_matches_layers_never_asks_for_answers(model, tmp_path, monkeypatch):
    """Choices are not measured, channels not scaled: what is left is refitted, and no more."""
    from edgeprune.prune.choice import effects
    from edgeprune.reconstruction import channel_scales

    asked = []
    for module, name in ((effects, "in_company"), (channel_scales, "scale_channels")):
        was = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, was=was, name=name, **k: asked.append(name) or was(*a, **k))
    filters = {"max_macs": "50%", "criterion": "reconstruct"}
    for match, expected in (("layers", []), ("answers", ["in_company", "scale_channels"])):
        asked.clear()
        recipe = _recipe(filters, reconstruct={"samples": 32, "match": match})
        artifacts, last, _ = _pruned(model, recipe, tmp_path / match)
        rows = artifacts[last].facts["filters"]["refitted"]
        assert asked == expected
        assert any(row["after"] is not None for row in rows)


def test_what_went_is_named_by_its_numbers_in_the_original_model(model, tmp_path):
    """Over two steps without a repair: what each layer has left are the biases of the original that are not named."""
    recipe = _recipe({"max_macs": "50%", "steps": 2, "compensate": False})
    artifacts, last, _ = _pruned(model, recipe, tmp_path / "stages")
    pruned = edgeprune.load_model(artifacts[last].files["model"])
    first, second = (artifacts[step].facts["filters"]["groups"] for step in ("filters.remove1", "filters.remove2"))
    assert all(sum(row["removed"] for row in step) for step in (first, second))
    for row in second:
        for layer in (name for name in row["layers"] if name in ("stem", "inner", "last", "late")):
            before, after = (one.get_layer(layer).bias.numpy() for one in (model, pruned))
            assert row["original"] == len(before)
            assert np.array_equal(np.delete(before, row["gone"]), after)


def test_shares_are_of_the_model_before_layers_went(model, tmp_path):
    """Where a block is removed first, a share of the memory is still one of what the model as it came takes."""
    recipe = _recipe({"max_memory": "70%"}, layers={"remove": 1, "samples": 32})
    artifacts, last, _ = _pruned(model, recipe, tmp_path / "stages")
    facts = artifacts[last].facts
    files = [artifacts[step].files["model"] for step in ("model", "layers", last)]
    whole, shallow, left = (_arena(file, tmp_path) for file in files)
    assert shallow < whole
    assert facts["filters"]["original_files"] == {"memory": whole}
    (limit,) = facts["filters"]["allocation"]["limits"]
    assert (limit["name"], limit["most"]) == ("memory", pytest.approx(0.7 * whole))
    assert left == limit["value"] <= 0.7 * whole


def _arena(file, folder):
    path = folder / "model.tflite"
    path.write_bytes(convert(edgeprune.load_model(file), QuantizationPlan("float32", "float", False), None))
    return profile(path).memory.arena_bytes


SCHEDULES = ("exponential", "cubic", "polynomial", "one_cycle")


@pytest.mark.parametrize(("schedule", "steps"), representatives(itertools.product(SCHEDULES, (1, 2)), ("cubic", 2)))
def test_a_layer_may_keep_all_its_filters(model, schedule, steps, tmp_path):
    """A rate of zero, in one step and in each of two, under every schedule."""
    rates = {"inner": 0.0, "late": 0.5}
    recipe = _recipe({"rate": 0.25, "layer_rates": rates, "steps": steps, "schedule": schedule, "criterion": "l1"})
    artifacts, last, _ = _pruned(model, recipe, tmp_path / "stages")
    pruned = edgeprune.load_model(artifacts[last].files["model"])
    assert [pruned.get_layer(layer).filters for layer in ("inner", "late")] == [64, 32]


@pytest.mark.parametrize("schedule", representatives(SCHEDULES, "cubic"))
def test_the_last_step_asks_for_what_was_asked(schedule):
    """Limits fall from step to step, and the last is the recipe's own; one that holds from the start stays as it is."""
    filters = _recipe({"max_latency": 1.7, "steps": 4, "schedule": schedule}).filters
    steps = [FiltersStageConfig(filters=filters, number=number, steps=ChannelSteps()) for number in range(1, 5)]
    asked = [_step_most(step, 1.7, 9.3) for step in steps]
    assert asked[-1] == 1.7
    assert 9.3 > asked[0] > asked[1] > asked[2] > asked[3]
    if schedule == "exponential":
        ratios = [after / before for before, after in zip([9.3, *asked], asked, strict=False)]
        assert all(math.isclose(ratio, (1.7 / 9.3) ** 0.25) for ratio in ratios)
    assert [_step_most(step, 1.7, 1.7) for step in steps] == [_step_most(step, 1.7, 1.2) for step in steps] == [1.7] * 4


@pytest.mark.slow
def test_steps_without_training_leave_as_good_a_model_as_one_step(model, tmp_path):
    """Four steps leave a model about as near to the original one as a single step does, and nothing is trained."""
    data = load_data("demo", DataConfig(), InputSpec.of(model), seed=0)
    images = np.concatenate([x for x, *_ in data.train.batches(64)])
    whole = _logits(model, images / 255)
    # Labelled by the model itself, so that validation tells a good repair from a bad one.
    labelled = {
        "train": (images[:600], whole[:600].argmax(1)),
        "validation": (images[600:800], whole[600:800].argmax(1)),
    }
    filters = {"max_macs": "50%", "criterion": "reconstruct", "samples": 128, "round_to": 4}
    errors = {}
    for steps in (1, 4):
        recipe = _recipe({**filters, "steps": steps}, reconstruct={"samples": 256})
        artifacts, last, _ = _pruned(model, recipe, tmp_path / str(steps), {**labelled, "test": labelled["validation"]})
        assert [name for name in artifacts if "finetune" in name] == []
        left = _logits(edgeprune.load_model(artifacts[f"{last}.remove{steps}"].files["model"]), images / 255)
        errors[steps] = np.square(left - whole)[800:].sum() / np.square(whole - whole.mean(0))[800:].sum()
    assert errors[4] < 1.25 * errors[1]
    assert errors[1] < 0.5


def _logits(model, images):
    """What a model says of images, before its softmax."""
    ends = tf_keras.models.clone_model(model)
    ends.set_weights(model.get_weights())
    ends.layers[-1].activation = tf_keras.activations.linear
    return ends(images).numpy()
