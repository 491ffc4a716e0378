"""Images with boxes: three forms of annotations are read as one, and what is wrong with them is told at once."""

import json
import shutil
import tarfile

import cells
import numpy as np
import pytest

from edgeprune.data import InputSpec, load_data
from edgeprune.data.images import pixels
from edgeprune.data.images.annotations import yolo_names
from edgeprune.data.images.boxes import frame_boxes
from edgeprune.errors import DataError
from edgeprune.recipe.config import BoxesConfig, DataConfig
from edgeprune.tasks import decoding

SPEC = InputSpec(((48, 64, 3),), ("image",))


def boxes_of(split):
    """The rows of every image that are boxes, as sorted tuples."""
    rows = [row for _, y in split.batches(4) for row in y["boxes"].numpy()]
    return [sorted(map(tuple, np.round(own[own[:, 4] >= 0], 2).tolist())) for own in rows]


def load(root, **config):
    classes = config.pop("classes", None)
    return load_data(str(root), DataConfig(classes=classes, boxes=BoxesConfig(**config)), SPEC)


@pytest.fixture
def root(tmp_path):
    cells.write(tmp_path)
    return tmp_path


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_every_form_gives_the_boxes_that_were_written(tmp_path, form):
    """In pixels of the file, in the order of the files' names, with the numbers of the classes."""
    truth = cells.write(tmp_path, forms=(form,))
    data = load(tmp_path, classes=cells.CLASSES)
    assert data.class_names == cells.CLASSES
    for split, images in (("train", truth["train"]), ("validation", truth["val"]), ("test", truth["test"])):
        expected = [sorted((*map(float, box), 0.0) for box in boxes) for _, _, boxes in images.values()]
        assert boxes_of(getattr(data, split)) == expected
    sizes = np.concatenate([y["size"].numpy() for _, y in data.test.batches(4)])
    assert sizes.tolist() == [[height, width] for height, width, _ in truth["test"].values()]


def test_forms_that_agree_are_said_to(root):
    """The first is taken; a class that another form calls otherwise is named."""
    assert load(root).said == ("boxes are read from coco; voc and yolo agree",)
    for path in root.rglob("*.xml"):
        path.write_text(path.read_text().replace("<name>red<", "<name>rouge<"))
    assert load(root).said == ("boxes are read from coco; voc and yolo agree (voc calls red rouge)",)


def test_forms_that_disagree_are_an_error_until_one_is_chosen(root):
    """Which image differs, and the line that chooses."""
    path = root / "test" / "labels" / "test1.txt"
    path.write_text(path.read_text() + "0 0.5 0.5 0.3 0.3\n")
    with pytest.raises(DataError, match=r"test1.png has other boxes in coco than in yolo(.|\n)*format = \"coco\""):
        load(root)
    assert len(boxes_of(load(root, format="yolo").test)[1]) == 3
    assert len(boxes_of(load(root, format="voc").test)[1]) == 2
    shutil.rmtree(root / "test" / "labels")
    with pytest.raises(DataError, match="no such annotations"):
        load(root, format="yolo")


def test_a_folder_without_splits_is_split_by_seed(tmp_path):
    """As one of images is: 20 % for test, 10 % of the others for validation."""
    cells.write(tmp_path, splits=("",), count=20, forms=("yolo",))
    data = load(tmp_path)
    assert (data.train.size, data.validation.size, data.test.size) == (14, 2, 4)


def test_groups_of_images_with_boxes_stay_together(tmp_path):
    """As those of other files."""
    cells.write(tmp_path, splits=("",), count=20, forms=("coco",))
    config = DataConfig(boxes=BoxesConfig(), group=r"(\d)\.png")
    data = load_data(str(tmp_path), config, SPEC)
    parts = [
        {path[-5] for path in map(split.store.path, split.index.tolist())}
        for split in (data.train, data.validation, data.test)
    ]
    assert sorted(digit for part in parts for digit in part) == list("0123456789")


def test_batches_keep_images_and_boxes_together(root):
    """In any order: where a box is, the image has the colour of its class."""
    data = load(root)
    batch = next(iter(data.train.batches(6, shuffle_seed=3)))
    x, y = (np.asarray(batch[0]), {key: np.asarray(value) for key, value in batch[1].items()})
    seen = 0
    for image, rows, size in zip(x, y["boxes"], y["size"], strict=True):
        rows = rows[rows[:, 4] >= 0]
        for box in rows[-1:]:  # the last one drawn lies on top
            column, row = (box[:2] + box[2:4]) / 2 / size[::-1] * [64, 48]
            assert image[int(row), int(column)].argmax() == box[4]
            seen += 1
    assert seen == 5


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_images_lie_where_the_snippet_puts_them(root, resize):
    """TensorFlow's reading and NumPy's are the same but for rounding; a loss gets boxes where the image has them."""
    import tensorflow as tf
    from PIL import Image

    data = load(root, resize=resize, fill=7)
    (x, y) = next(iter(data.test.batches(6)))
    frames = frame_boxes(y, (48, 64), data.boxes.resize).numpy()
    for number in range(6):
        image = np.asarray(Image.open(root / "test" / "images" / f"test{number}.png"))
        (height, width), (top, left) = pixels.frame(image.shape[:2], (48, 64), resize)
        expected = np.full((48, 64, 3), 7, np.float32)
        expected[top : top + height, left : left + width] = tf.image.resize(image, (height, width))
        assert np.abs(expected - x[number].numpy()).max() <= 1
        rows = y["boxes"][number].numpy()
        there = rows[:, 4] >= 0
        assert (frames[number][:, 4] == rows[:, 4]).all()
        back = decoding.undo(frames[number][there, :4], image.shape[:2], (48, 64), resize)
        np.testing.assert_allclose(back, rows[there, :4], atol=1e-3)


def test_the_fingerprint_follows_annotations_and_the_rule(root):
    """Another box or another way to resize are other data."""
    first = load(root).fingerprint
    assert load(root).fingerprint == first
    assert load(root, resize="letterbox").fingerprint != first
    path = root / "train" / "instances_coco.json"
    path.write_text(path.read_text() + " ")
    assert load(root).fingerprint != first


def test_all_that_is_wrong_is_told_in_one_message(root):
    """File and line of each: box outside, no area, unknown class, damaged and empty files, a missing image."""
    shutil.rmtree(root / "train" / "labels")
    for split in ("train", "val", "test"):
        (root / split / "instances_coco.json").unlink()
    shutil.rmtree(root / "val" / "labels")
    shutil.rmtree(root / "test" / "labels")
    voc = root / "train" / "annotations_voc"
    (voc / "train0.xml").write_text("")
    (voc / "train1.xml").write_text("<annotation>\n<object>\n</annotation>")
    box = "<bndbox><xmin>{}</xmin><ymin>3</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox>"
    (voc / "train2.xml").write_text(
        "<annotation>\n"
        f"<object><name>red</name>{box.format(5, 90)}</object>\n"
        f"<object><name>red</name>{box.format(5, 5)}</object>\n"
        f"<object><name>red</name></object>\n"
        "</annotation>"
    )
    (root / "train" / "images" / "train3.png").unlink()
    (root / "train" / "images" / "train4.png").write_bytes(b"no image")
    with pytest.raises(DataError) as error:
        load(root)
    for part in (
        "train0.xml:1: is empty",
        "train1.xml:3: no XML (mismatched tag)",
        "train2.xml:2: the box (5, 3, 90, 9) is outside of train2.png (60 x 40 pixels)",
        "train2.xml:3: the box (5, 3, 5, 9) has no area",
        "train2.xml:4: an object without bndbox/xmin",
        "train3.xml: the image train3 is missing",
        "train4.png: no readable image",
    ):
        assert part in error.value.what, part


def test_yolo_lines_that_are_none_are_told(tmp_path):
    """Numbers of classes that have no name, and lines of another form, with file and line."""
    cells.write(tmp_path, forms=("yolo",))
    (tmp_path / "val" / "labels" / "val0.txt").write_text("0 0.5 0.5 0.1 0.1\n2 0.5 0.5 0.1 0.1\n0 0.5\n")
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert "val0.txt:2: unknown class 2, of 2 classes" in error.value.what
    assert "val0.txt:3: '0 0.5' is not: class x y width height" in error.value.what
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match="have no names"):
        load(tmp_path)


def test_coco_entries_that_are_none_are_told(tmp_path):
    """An annotation of an unknown category or image, by its position; json that is none, by its line."""
    cells.write(tmp_path, forms=("coco",))
    path = tmp_path / "val" / "instances_coco.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["category_id"] = 9
    document["annotations"][1]["image_id"] = 99
    del document["images"][0]
    path.write_text(json.dumps(document))
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert "annotations[0]: unknown class, there is no category with id 9" in error.value.what or (
        "annotations[0]: there is no image" in error.value.what
    )
    assert "annotations[1]: there is no image with id 99" in error.value.what
    assert "the image val0.png is not listed" in error.value.what
    path.write_text('{"images": [],\n')
    with pytest.raises(DataError, match=r"instances_coco.json:2: no JSON"):
        load(tmp_path)


def test_annotations_for_images_of_another_size_are_told(tmp_path):
    """Boxes of a resized copy would lie elsewhere; sizes of 0 say nothing. Ids that two images share are counted, and
    boxes of another form are told by their position."""
    cells.write(tmp_path, forms=("coco", "voc"))
    path = tmp_path / "val" / "instances_coco.json"
    document = json.loads(path.read_text())
    document["images"][0]["width"] = 600
    document["images"][2]["id"] = document["images"][1]["id"]
    document["annotations"][0]["bbox"] = [1, 2, 3]
    document["annotations"][1]["bbox"][2] = -3
    path.write_text(json.dumps(document))
    for number, width in ((0, 600), (2, 0)):
        xml = tmp_path / "val" / "annotations_voc" / f"val{number}.xml"
        xml.write_text(
            xml.read_text().replace(
                "<annotation>", f"<annotation><size><width>{width}</width><height>40</height></size>"
            )
        )
    with pytest.raises(DataError) as error:
        load(tmp_path)
    for part in (
        "images[0]: boxes for 600 x 40 pixels (width x height), and val0.png has 60 x 40",
        "6 images have 5 different ids",
        "annotations[0]: bbox is not x, y, width, height: [1, 2, 3]",
        "annotations[1]: the box",
        "val0.xml: boxes for 600 x 40 pixels",
    ):
        assert part in error.value.what, part
    assert "val2.xml" not in error.value.what


def test_a_class_that_training_does_not_have_is_told(tmp_path):
    """Of VOC, which has no list of classes; and of a list in the recipe."""
    cells.write(tmp_path, forms=("voc",))
    path = tmp_path / "test" / "annotations_voc" / "test1.xml"
    path.write_text(path.read_text().replace("red", "blue").replace("green", "blue"))
    with pytest.raises(DataError, match=r"test1.png \(voc\): unknown class 'blue'; the training part has green, red"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"unknown class 'green'; \[data\] classes has blue, red"):
        load(tmp_path, classes=("blue", "red"))
    assert load(tmp_path, classes=("blue", "green", "red")).class_names == ("blue", "green", "red")


@pytest.mark.parametrize(
    "text",
    [
        "names: [red, 'green']\n",
        "names: {0: red, 1: green}\n",
        "nc: 2\nnames:\n  0: red\n  1: green\n",
        "names:\n- red\n- green",
        "names:  # two\n\n  0: red # light\n  # the other\n  '1': green\npath: x\n",
        'names: [  # two\n  "red",\n  green, # and no more\n]\nnc: 2 # both\n',
    ],
)
def test_names_of_classes_are_read_from_a_data_yaml(tmp_path, text):
    """A list or a table, in one line or in several."""
    cells.write(tmp_path, forms=("yolo",))
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "data.yaml").write_text(text)
    assert load(tmp_path).class_names == cells.CLASSES


def test_blood_cells_have_the_same_boxes_in_all_forms(shared, tmp_path):
    """4,886 boxes of 364 photographs, each form by itself."""
    with tarfile.open(shared / "data" / "detection_bccd.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = (path for path in tmp_path.iterdir() if path.is_dir())
    classes = ("RBC", "WBC", "Platelets")
    found = {}
    for form in ("coco", "voc", "yolo"):
        data = load(root, format=form, classes=classes)
        found[form] = [boxes for split in (data.train, data.validation, data.test) for boxes in boxes_of(split)]
    assert sum(map(len, found["coco"])) == 4886
    assert found["coco"] == found["voc"]
    for one, other in zip(found["coco"], found["yolo"], strict=True):
        np.testing.assert_allclose(one, other, atol=0.02)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda coco: coco["categories"].append({"id": 3, "name": "blue"}), "3 categories have 2 different ids"),
        (lambda coco: coco["categories"][1].update(name="red"), "two classes 'red'"),
        (lambda coco: coco["images"].append({"id": 99, "file_name": "val0.png"}), "val0.png is listed 2 times"),
        (lambda coco: coco["images"][0].update(width="wide"), "images[0]: height and width are no numbers"),
        (lambda coco: coco["annotations"].insert(0, None), "annotations[0]: not as COCO has it: None"),
        (lambda coco: coco["annotations"][0].update(image_id=[1]), "annotations[0]: not as COCO has it"),
        (lambda coco: coco["annotations"][0].update(bbox=None), "annotations[0]: bbox is not x, y, width, height"),
        (lambda coco: coco["annotations"][0].pop("bbox"), "annotations[0]: not as COCO has it: no 'bbox'"),
        (lambda coco: coco.update(annotations={"id": 1}), "annotations[0]: not as COCO has it: id"),
    ],
)
def test_coco_that_leaves_open_what_a_box_belongs_to_is_told(tmp_path, change, said):
    """Classes of one name or id, images that stand there twice, and entries that are none, all in one message."""
    cells.write(tmp_path, forms=("coco",))
    for split in ("train", "val", "test"):
        path = tmp_path / split / "instances_coco.json"
        document = json.loads(path.read_text())
        if split == "val" or document["categories"][1]["name"] != "red":
            change(document)
        path.write_text(json.dumps(document))
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert said in error.value.what


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"classes.txt": "red\nred\n"}, "two classes 'red'"),
        ({"classes.txt": "red\n\ngreen\n"}, "Line 2 of .*classes.txt is empty"),
        ({"classes.txt": "r\xe9d\ngreen\n".encode("latin1")}, "cannot be read: 'utf-8' codec"),
        (
            {"classes.txt": "red\ngreen\n", "data.yaml": "names: [green, red]\n"},
            "has red, green, and .* green, red",
        ),
        ({"data.yaml": "nc: 3\nnames: [red, green]\n"}, "has nc = 3, and names 2 classes"),
        ({"data.yaml": "names: ['red, green]\n"}, "cannot be read"),
        ({"data.yaml": "names: {0: red, 2: green}\n"}, "cannot be read"),
        ({"data.yaml": "names: [red, 1: green]\n"}, "cannot be read"),
        ({"data.yaml": "nc: 2\n"}, "cannot be read"),
    ],
)
def test_classes_of_yolo_that_could_be_others_are_refused(tmp_path, files, said):
    """A name that stands there twice, an empty line, two files that disagree, and what cannot be read."""
    cells.write(tmp_path, forms=("yolo",))
    (tmp_path / "classes.txt").unlink()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said):
        load(tmp_path)


def test_a_list_of_classes_that_windows_wrote_has_their_names(tmp_path):
    """The mark before the text is no part of the first name."""
    cells.write(tmp_path, forms=("yolo",))
    (tmp_path / "classes.txt").write_text("\ufeffred\r\ngreen\r\n", "utf-8")
    assert load(tmp_path).class_names == cells.CLASSES


def test_classes_of_voc_that_are_numbers_are_sorted_as_numbers(tmp_path):
    """As those of class folders: 9 before 10."""
    cells.write(tmp_path, forms=("voc",))
    for path in tmp_path.glob("*/annotations_voc/*.xml"):
        path.write_text(path.read_text().replace("red", "10").replace("green", "9"))
    assert load(tmp_path).class_names == ("9", "10")


def test_names_in_quotes_may_have_commas_and_quotes(tmp_path):
    """As YAML has them, in brackets and line by line."""
    for text in ("names: ['red, or so', \"it's\"]\n", "names:\n  - 'red, or so'\n  - 'it''s'\n"):
        path = tmp_path / "data.yaml"
        path.write_text(text)
        assert yolo_names([tmp_path]) == (("red, or so", "it's"), path)


def test_boxes_that_are_there_twice_are_noted(tmp_path):
    """Which part, how many and where; boxes of another class at the same place are others."""
    cells.write(tmp_path, forms=("coco",))
    assert not any("twice" in note for note in load(tmp_path).notes)
    path = tmp_path / "test" / "instances_coco.json"
    document = json.loads(path.read_text())
    first = document["annotations"][0]
    other = {**first, "category_id": 7 - first["category_id"]}
    document["annotations"] += [{**first, "id": 98}, {**other, "id": 99}]
    path.write_text(json.dumps(document))
    (note,) = (note for note in load(tmp_path).notes if "twice" in note)
    assert note.startswith("1 of the boxes of test are there twice, such as in test0.png")
