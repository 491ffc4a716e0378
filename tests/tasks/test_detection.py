"""Detection: a head is declared, figures are those of pycocotools, and the device's script finds the same boxes."""

import contextlib
import io
import json
import subprocess
import sys

import cells
import numpy as np
import pytest
import tf_keras
from cells import HEIGHT, SIDE, WIDTH

import edgeprune
from edgeprune.data import InputSpec, load_data
from edgeprune.errors import DataError, RecipeError
from edgeprune.evaluate.accuracy import keras_figures
from edgeprune.evaluate.answers import Answers, flipped
from edgeprune.evaluate.files import compare_accuracy
from edgeprune.recipe.config import BoxesConfig, DataConfig, DetectionConfig, Recipe, TaskConfig
from edgeprune.tasks.resolve import resolve_task


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("cells")
    cells.write(root / "data", count=10, seed=1)
    np.save(root / "anchors.npy", cells.anchors())
    return root


def head(place, **more):
    return DetectionConfig(head="ssd", anchors=str(place / "anchors.npy"), anchor_form="xyxy", **more)


def data_of(place, model, resize="letterbox"):
    config = DataConfig(scale=1 / 255, boxes=BoxesConfig(resize=resize, fill=0))
    return config, load_data(str(place / "data"), config, InputSpec.of(model))


@pytest.fixture(scope="module")
def model():
    return cells.detector()


def independent(model, data, iou):
    """Per class and overlap, by pycocotools on boxes decoded and chosen by TensorFlow."""
    import tensorflow as tf
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "info": {},
    }
    found = []
    grid = [(4 * x, 4 * y, 4 * x + SIDE, 4 * y + SIDE) for y in range(10) for x in range(14)]
    grid = np.array(grid, np.float32)
    for x, y in data.test.batches(1):
        scores, _ = model(x)
        number, (height, width) = len(truth["images"]) + 1, y["size"].numpy()[0]
        scale = min(HEIGHT / height, WIDTH / width)
        rows, columns = int(height * scale + 0.5), int(width * scale + 0.5)
        top, left = (HEIGHT - rows) // 2, (WIDTH - columns) // 2
        truth["images"].append({"id": number})
        for x1, y1, x2, y2, label, _ in y["boxes"].numpy()[0].astype(float):
            if label >= 0:
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                own = {"id": len(truth["annotations"]) + 1, "image_id": number, "category_id": int(label) + 1}
                truth["annotations"].append({**own, **box})
        for label in range(2):
            values = scores.numpy()[0, :, label]
            for i in tf.image.non_max_suppression(grid, values, 100, iou, 0.05).numpy():
                x1, x2 = np.clip((grid[i, [0, 2]] - left) * width / columns, 0, width).astype(float)
                y1, y2 = np.clip((grid[i, [1, 3]] - top) * height / rows, 0, height).astype(float)
                own = {"image_id": number, "category_id": label + 1, "score": float(values[i])}
                found.append({**own, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, -1].mean(1)


def test_figures_are_those_of_pycocotools(place, model):
    """map, map50 and both per class, for images of two sizes in a letterbox."""
    _, data = data_of(place, model)
    task = resolve_task(model, TaskConfig(), data, detection=head(place, iou_threshold=0.3))
    figures = keras_figures(model, task.prepare(data).test, task)
    expected = independent(model, data, 0.3)
    assert expected[0].mean() > 0.3
    found = [figures[name] for name in ("map", "map50", "ap50.red", "ap50.green", "ap.red", "ap.green")]
    both = [*expected[0], *expected.mean(0)]
    np.testing.assert_allclose(found, [expected.mean(), expected[0].mean(), *both], atol=1e-6)
    assert task.value(figures) == figures["map"]
    assert task.higher_is_better
    assert task.points == 100


def test_a_head_has_to_be_declared(place, model):
    """With the lines to write; a kind that is none of boxes, and figures of other tasks, are refused."""
    _, data = data_of(place, model)
    with pytest.raises(RecipeError, match=r"(?s)\(scores, offsets\) mean.*\[detection\]\n  head = \"ssd\""):
        resolve_task(model, TaskConfig(), data)
    with pytest.raises(RecipeError, match="are images with boxes"):
        resolve_task(model, TaskConfig(kind="regression"), data, detection=head(place))
    with pytest.raises(RecipeError, match="names no metric of a detector"):
        resolve_task(model, TaskConfig(primary="accuracy"), data, detection=head(place))
    assert resolve_task(model, TaskConfig(kind="teacher"), data).metric == "agreement"
    arrays = load_data({"x_train": np.zeros((9, HEIGHT, WIDTH, 3)), "x_test": np.zeros((9, HEIGHT, WIDTH, 3))},
                       DataConfig(), InputSpec.of(model))  # fmt: skip
    with pytest.raises(RecipeError, match="have no boxes"):
        resolve_task(model, TaskConfig(kind="detection"), arrays, detection=head(place))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"outputs": ("scores", "nowhere")}, "names 'nowhere'; the model's outputs are: scores, offsets"),
        ({"background": 0}, "scores of 1 classes, not of 2"),
        ({"head": "yolo-v8"}, "for .* the head takes 1 or 3"),
        ({"head": "boxes", "outputs": ("scores", "offsets")}, "are not as .* says"),
    ],
)
def test_heads_that_do_not_fit_are_refused_before_training(place, model, config, reason):
    """By what does not fit."""
    _, data = data_of(place, model)
    given = {"head": "ssd", "anchors": str(place / "anchors.npy"), **config}
    with pytest.raises(RecipeError, match=reason):
        resolve_task(model, TaskConfig(), data, detection=DetectionConfig(**given))


def test_scores_before_sigmoid_are_refused(place, model):
    """They are no probabilities; the message has the line that applies it."""
    logits = tf_keras.Sequential([tf_keras.layers.Input((HEIGHT, WIDTH, 3)), tf_keras.layers.AveragePooling2D(12, 4),
                                  tf_keras.layers.Conv2D(6, 1, bias_initializer=tf_keras.initializers.Constant(9.0)),
                                  tf_keras.layers.Reshape((-1, 6))])  # fmt: skip
    _, data = data_of(place, logits)
    with pytest.raises(RecipeError, match=r'(?s)no probabilities.*activation = "sigmoid"'):
        resolve_task(logits, TaskConfig(), data, detection=DetectionConfig(head="boxes"))
    one = DetectionConfig(head="boxes", activation="sigmoid")
    assert resolve_task(logits, TaskConfig(), data, detection=one).metric == "map"


def test_a_part_without_boxes_is_refused(tmp_path, model):
    """Average precision is not defined there."""
    cells.write(tmp_path / "data", count=1)
    _, data = data_of(tmp_path, model)
    with pytest.raises(DataError, match=r"validation part .* has no box"):
        resolve_task(model, TaskConfig(), data, detection=DetectionConfig(head="boxes"))


FUNCTIONS = """
import numpy as np


def decode(outputs):
    scores, offsets = outputs
    y, x = np.mgrid[:10, :14]
    boxes = np.stack([x * 4, y * 4, x * 4 + 12, y * 4 + 12], -1).reshape(-1, 4) / [64, 48, 64, 48]
    best = scores.max(1)
    kept = np.flatnonzero(best > 0.5)
    return boxes[kept], best[kept], scores.argmax(1)[kept]


def wrong(outputs):
    return np.zeros((3, 4)), np.zeros(3), np.full(3, 7)


def loss(boxes, output):
    import tensorflow as tf

    number = tf.reduce_sum(tf.cast(boxes[..., 4] >= 0, tf.float32), 1)
    return tf.square(tf.reduce_mean(output, [1, 2]) - number / 100)
"""


def test_a_function_of_the_user_decodes(place, model, monkeypatch):
    """It has the last word; what it gives is checked."""
    (place / "mine.py").write_text(FUNCTIONS)
    monkeypatch.chdir(place)
    _, data = data_of(place, model)
    task = resolve_task(model, TaskConfig(), data, detection=DetectionConfig(head="mine.py:decode"))
    assert keras_figures(model, task.prepare(data).test, task)["map50"] > 0.05
    with pytest.raises(RecipeError, match="does not give boxes, scores and classes"):
        resolve_task(model, TaskConfig(), data, detection=DetectionConfig(head="mine.py:wrong"))


def test_training_goes_by_the_teacher_or_by_a_loss_over_boxes(place, model, monkeypatch):
    """The teacher's task is that of the outputs; a loss gets the boxes in fractions of the input, for each output."""
    (place / "mine.py").write_text(FUNCTIONS)
    monkeypatch.chdir(place)
    _, data = data_of(place, model)
    taught = resolve_task(model, TaskConfig(), data, detection=head(place))
    assert taught.training.metric == "agreement"
    own = resolve_task(model, TaskConfig(loss="mine.py:loss"), data, detection=head(place))
    assert not own.training.higher_is_better
    for task in (taught, own):
        student = tf_keras.models.clone_model(model)
        student.compile("adam", **task.compile_arguments())
        prepared = task.prepare(data)
        history = student.fit(prepared.train.batches(5), validation_data=prepared.validation.batches(5), verbose=0)
        assert np.isfinite(history.history["val_loss"]).all()
        assert float(task.loss_function()(*next(iter(prepared.train.batches(5)))[1:], model(next(iter(
            prepared.train.batches(5)))[0]))) >= 0  # fmt: skip
    boxes, _ = next(iter(own.prepare(data).train.batches(5)))[1]
    assert boxes.shape[1:] == (3, 5)
    assert boxes.numpy()[..., :4].max() <= 1
    with pytest.raises(RecipeError, match="does not take boxes"):
        resolve_task(model, TaskConfig(loss="mse"), data, detection=head(place))


def test_samples_whose_boxes_became_worse_are_listed_and_drawn(place, model, tmp_path):
    """By how good the boxes of an image are, kept across files; drawn where they lie in the model's input."""
    _, data = data_of(place, model)
    task = resolve_task(model, TaskConfig(), data, detection=head(place, iou_threshold=0.3))
    x, y = next(iter(data.test.batches(10)))
    outputs = [output.numpy() for output in model(x)]
    blind = [np.zeros_like(outputs[0]), outputs[1]]
    names = []
    for number, given in enumerate((outputs, blind)):
        answers = Answers(task.outputs, task.merit)
        answers.add(y, given)
        answers.save(tmp_path / f"{number}.npz")
        names.append(Answers.load(tmp_path / f"{number}.npz"))
    before, after = names
    assert before.summary()["scores"] == {"kind": "detection", "samples": 10}
    merits = task.merit(y, outputs)
    assert merits.mean() > 3 * task.merit(y, blind).mean()
    assert merits[9] == 1  # nothing to find, and nothing found
    found = flipped(before, after)
    assert found["broken"] == found["total"] == np.sum(merits[:9] > 0)
    assert 9 not in [sample["index"] for sample in found["samples"]]
    assert found["samples"][0]["before"] == pytest.approx(merits[:9].max())
    assert found["samples"][0]["after"] == 0
    for image, rows in zip(x.numpy(), task.labelled(y), strict=True):
        for *corners, label in rows[rows[:, 4] >= 0]:
            x1, y1, x2, y2 = np.round(np.array(corners) * [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(int)
            assert image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1, int(label)].mean() > 0.6
    drawn = task.boxes(outputs)
    assert sum(map(len, drawn)) == sum(np.sum(task.head.detect([o[i] for o in outputs], (9, 9))[1] >= 0.5)
                                       for i in range(10))  # fmt: skip


@pytest.fixture(scope="module")
def built(place, model):
    """A build of the detector, float32 and int8."""
    recipe = Recipe(
        name="squares",
        data=DataConfig(scale=1 / 255, boxes=BoxesConfig(resize="letterbox", fill=0)),
        detection=head(place, iou_threshold=0.3),
        quantize={"modes": ["float32"]},
    )
    report = edgeprune.build(model, target="rpi4", data=str(place / "data"), recipe=recipe, out=place / "run")
    return place / "run", report, recipe


@pytest.mark.slow  # so does the one of tests/snippets/test_figures.py
def test_a_build_reports_average_precision_of_the_file(place, model, built):
    """Of the .tflite on test data, as pycocotools has it for Keras; picks go by map."""
    _, report, _ = built
    _, data = data_of(place, model)
    expected = independent(model, data, 0.3)
    metrics = report["variants"][0]["metrics"]
    assert report["metric"]["name"] == "map"
    assert metrics["map"]["value"] == pytest.approx(expected.mean(), abs=1e-3)
    assert metrics["ap50.green"]["value"] == pytest.approx(expected[0, 1], abs=1e-3)


def test_files_are_compared_by_average_precision(place, built):
    """Without their Keras models: the figures of the report."""
    run, report, recipe = built
    file = run / report["variants"][0]["file"]
    found = compare_accuracy([file, file], str(place / "data"), recipe.data, TaskConfig(), detection=recipe.detection)
    value = report["variants"][0]["metrics"]["map"]["value"]
    assert found["primary"] == "map"
    assert found["metrics"]["map"]["values"] == pytest.approx([value, value], abs=1e-6)


def test_the_script_finds_the_boxes_of_the_report(place, model, built):
    """In a process of its own, on the files: the boxes that the evaluation decodes, and a drawing of them."""
    run, _, recipe = built
    _, data = data_of(place, model)
    task = resolve_task(model, TaskConfig(), data, detection=recipe.detection)
    (script,) = run.glob("run_*.py")
    x, y = next(iter(data.test.batches(10)))
    outputs = [output.numpy() for output in model(x)]
    for i in (1, 2):
        image = place / "data" / "test" / "images" / f"test{i}.png"
        command = [sys.executable, str(script), str(image), "--draw", str(run / "drawn.png")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        rows = [line.split() for line in done.stdout.splitlines()]
        boxes, scores, classes = task.head.detect([output[i] for output in outputs], y["size"].numpy()[i])
        assert len(rows) == len(boxes) > 0
        found = np.array([[*map(float, row[2:]), float(row[0])] for row in rows])
        np.testing.assert_allclose(found, np.concatenate([boxes, scores[:, None]], axis=1), atol=0.02)
        assert [row[1] for row in rows] == [cells.CLASSES[label] for label in classes]
        assert (run / "drawn.png").stat().st_size > 0


def test_a_primary_class_that_a_part_does_not_have_is_refused(tmp_path, model):
    """Its average precision would be no number, and so would all picks and gates; as for boxes that do not count."""
    cells.write(tmp_path / "data", forms=("coco",), count=10, seed=1)
    np.save(tmp_path / "anchors.npy", cells.anchors())
    path = tmp_path / "data" / "val" / "instances_coco.json"
    document = json.loads(path.read_text())
    document["annotations"] = [one for one in document["annotations"] if one["category_id"] == 3]
    path.write_text(json.dumps(document))
    first, second = cells.CLASSES
    _, data = data_of(tmp_path, model)
    assert (
        resolve_task(model, TaskConfig(primary=f"ap50.{first}"), data, detection=head(tmp_path)).name == f"ap50.{first}"
    )
    with pytest.raises(DataError, match=f"validation part .* has no box of '{second}'"):
        resolve_task(model, TaskConfig(primary=f"ap.{second}"), data, detection=head(tmp_path))
    for one in document["annotations"]:
        one["iscrowd"] = 1
    path.write_text(json.dumps(document))
    _, data = data_of(tmp_path, model)
    with pytest.raises(DataError, match=r"validation part .* has no box that counts"):
        resolve_task(model, TaskConfig(), data, detection=head(tmp_path))
