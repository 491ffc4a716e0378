"""Image folders."""

import itertools
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import edgeprune.data.images.folder
from edgeprune.data import InputSpec, data_errors, load_data
from edgeprune.errors import DataError
from edgeprune.recipe.config import DataConfig

SPEC = InputSpec(((8, 8, 3),))


def _add_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (200, 0, 0)).save(path)


def test_flat_folder_is_split_in_three_disjoint_stratified_parts(flat_folder, pixels_of):
    """20 % test, then 10 % of the rest validation, in equal shares of the classes, with no image in two parts."""
    data = load_data(flat_folder, DataConfig(), SPEC, seed=3)
    parts = [pixels_of(split) for split in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [43, 5, 12]
    assert sorted(itertools.chain(*parts)) == list(range(60))
    assert np.bincount(data.test.labels).tolist() == [4, 4, 4]
    assert set(np.bincount(data.validation.labels, minlength=3)) <= {1, 2}
    assert data.class_names == ("cat", "dog", "owl")


def test_labels_belong_to_their_images(flat_folder, first_batch):
    """A streamed label is the class folder of the streamed image, also when shuffled."""
    data = load_data(str(flat_folder), DataConfig(), SPEC)
    x, y = first_batch(data.train, shuffle_seed=5)
    assert x.dtype == np.float32
    assert (x[:, 0, 0, 0] // 20 == y).all()
    assert (x[:, 3, 3, 2] == 255).all()


def test_split_folder_keeps_its_test_part_and_takes_validation_from_train(split_folder, pixels_of):
    """Validation comes from train; test holds the images of test/ and nothing else."""
    data = load_data(split_folder, DataConfig(), SPEC)
    assert pixels_of(data.test) == list(range(100, 110))
    assert sorted(pixels_of(data.train) + pixels_of(data.validation)) == list(range(40))
    assert np.bincount(data.validation.labels).tolist() == [2, 2]


@pytest.mark.parametrize("name", ["val", "validation"])
def test_validation_folder_is_used_as_it_is(split_folder, name, pixels_of):
    """With val/ or validation/, train stays whole; a class may be absent from it."""
    _add_image(split_folder / name / "dog" / "a.png")
    data = load_data(split_folder, DataConfig(), SPEC)
    assert (data.train.size, pixels_of(data.validation), data.validation.labels.tolist()) == (40, [200], [1])


def test_images_are_resized_and_converted_to_what_the_model_takes(tmp_path, first_batch):
    """Any size and any of JPEG, PNG, BMP, GIF, gray, alpha and palette arrives in the model's size and color."""
    cases = {"a.png": "RGB", "b.jpg": "RGB", "c.bmp": "RGB", "d.gif": "P", "e.png": "L", "f.png": "RGBA", "g.png": "P"}
    for name, mode in cases.items():
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir(exist_ok=True)
            gray = Image.new("RGB", (13, 9), (90, 90, 90))
            (gray.quantize() if mode == "P" else gray.convert(mode)).save(tmp_path / folder / name)
    for channels in (1, 3):
        data = load_data(tmp_path, DataConfig(validation=0.3), InputSpec(((4, 6, channels),)))
        for split in (data.train, data.validation, data.test):
            x, _ = first_batch(split)
            assert x.shape[1:] == (4, 6, channels)
            assert np.abs(x - 90).max() <= 2
    assert data.preprocessing == {
        "size": [4, 6],
        "color": "rgb",
        "scale": 1.0,
        "mean": [0.0],
        "std": [1.0],
    }


def test_images_of_the_right_size_are_not_resampled(tmp_path, first_batch):
    """Pixels of a PNG of the model's size arrive unchanged."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    for i, image in enumerate(noise):
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"class{i % 2}" / f"{i}.png")
    x, _ = first_batch(load_data(tmp_path, DataConfig(), SPEC).test)
    assert all((noise == image).all(axis=(1, 2, 3)).any() for image in x)


def test_decoded_once_or_every_time_gives_the_same_batches(tmp_path, monkeypatch, first_batch):
    """Keeping small images decoded changes nothing but time."""
    rng = np.random.default_rng(0)
    for i in range(40):
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (11, 7, 3), np.uint8)).save(tmp_path / f"class{i % 2}" / f"{i}.png")
    kept = load_data(tmp_path, DataConfig(), SPEC)
    monkeypatch.setattr(edgeprune.data.images.folder, "KEEP_DECODED_BYTES", 0)
    streamed = load_data(tmp_path, DataConfig(), SPEC)
    a, b = (first_batch(data.train, shuffle_seed=1) for data in (kept, streamed))
    assert kept.train.store._images.kept is not None
    assert streamed.train.store._images.kept is None
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


def test_files_that_are_not_images_are_left_out(flat_folder):
    """Hidden files, notes and archives' leftovers are neither classes nor images; deeper folders are searched."""
    (flat_folder / ".git").mkdir()
    (flat_folder / "__MACOSX").mkdir()
    (flat_folder / "cat" / "notes.txt").write_text("no image")
    (flat_folder / "cat" / ".hidden.png").write_text("no image")
    _add_image(flat_folder / "cat" / "deeper" / "x.png")
    data = load_data(flat_folder, DataConfig(), SPEC)
    assert data.train.size + data.validation.size + data.test.size == 61


def test_fingerprint_follows_files_and_settings(flat_folder):
    """The same folder gives the same fingerprint; touching a file, the seed or the preprocessing changes it."""

    def fingerprint(seed=0, **config):
        return load_data(flat_folder, DataConfig(**config), SPEC, seed=seed).fingerprint

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(batch_size=7) == first
    os.utime(flat_folder / "cat" / "00.png", ns=(1, 1))
    touched = fingerprint()
    assert len({first, touched, fingerprint(seed=1), fingerprint(scale=0.5), fingerprint(validation=0.2)}) == 5


def _corrupt(path):
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize("kept", [True, False])
def test_damaged_image_is_named(flat_folder, monkeypatch, kept, pixels_of):
    """A truncated image is a DataError with its path, decoded ahead or while a model is trained."""
    import tf_keras

    monkeypatch.setattr(edgeprune.data.images.folder, "KEEP_DECODED_BYTES", 2**28 if kept else 0)
    data = load_data(flat_folder, DataConfig(), SPEC)
    red = pixels_of(data.train)[7]
    data = load_data(flat_folder, DataConfig(), SPEC)
    _corrupt(next(flat_folder.rglob(f"{red:02}.png")))
    model = tf_keras.Sequential([tf_keras.layers.Flatten(input_shape=(8, 8, 3)), tf_keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(DataError, match=f"{red:02}.png cannot be read") as error, data_errors():
        model.fit(data.train.batches(8), verbose=0)
    assert "remove this file" in str(error.value)


def test_removed_image_is_named(flat_folder, monkeypatch):
    """An image that disappears after loading is a DataError with its path."""
    monkeypatch.setattr(edgeprune.data.images.folder, "KEEP_DECODED_BYTES", 0)
    data = load_data(flat_folder, DataConfig(), SPEC)
    shutil.rmtree(flat_folder / "dog")
    with pytest.raises(DataError, match=r"dog.*\.png cannot be read"), data_errors():
        list(data.train.batches(8))


def test_errors_of_other_origin_pass_unchanged():
    """A failing operation outside of the data is not blamed on the data."""
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError), data_errors():
        tf.debugging.assert_equal(1, 2)


def _no_classes(root):
    shutil.rmtree(root)
    _add_image(root / "a.png")


def _only_class(root):
    shutil.rmtree(root / "dog")
    shutil.rmtree(root / "owl")


def _empty_all(root):
    for file in root.rglob("*.png"):
        file.unlink()


def _few(root):
    for file in sorted(root.rglob("*.png")):
        if not file.name.endswith("0.png"):
            file.unlink()
    for file in sorted(root.rglob("*.png"))[3:]:
        file.unlink()
    shutil.rmtree(root / "owl")


FLAT_ERRORS = {
    "no such folder": (shutil.rmtree, "does not exist"),
    "empty": (lambda root: (shutil.rmtree(root), root.mkdir()), "no class folders"),
    "too few images without classes": (_no_classes, "too few samples"),
    "images beside classes": (lambda root: _add_image(root / "a.png"), r"images \(1, for example a\.png\) beside the"),
    "no images": (_empty_all, "no images in its class folders"),
    "one class": (_only_class, "single class"),
    "one empty class": (lambda root: (root / "bat").mkdir(), "'bat' in .* has no images"),
    "image of 0 bytes": (
        lambda root: (root / "cat" / "00.png").write_bytes(b""),
        r"1 of 60 image files cannot be read:\n.*00\.png: it is empty",
    ),
    "broken link": (lambda root: (root / "cat" / "z.png").symlink_to(root / "gone"), r"z\.png cannot be read: No such"),
    "foreign format": (lambda root: (root / "cat" / "a.heic").write_bytes(b"x"), r"a\.heic is in a format"),
    "no image": (lambda root: (root / "cat" / "a.webp").write_bytes(b"RIFF"), r"1 of 61 .*\n.*a\.webp: it is no image"),
    "too few images": (_few, "too few samples"),
}


@pytest.mark.parametrize("case", FLAT_ERRORS)
def test_bad_folder_is_one_message(flat_folder, case):
    """Each bad folder is a DataError that says what is wrong, exit code 2."""
    change, message = FLAT_ERRORS[case]
    change(flat_folder)
    with pytest.raises(DataError, match=message) as error:
        load_data(flat_folder, DataConfig(), SPEC)
    assert error.value.exit_code == 2


SPLIT_ERRORS = {
    "no test": (lambda root: shutil.rmtree(root / "test"), "no test/"),
    "no train": (lambda root: shutil.rmtree(root / "train"), "no train/"),
    "two validations": (lambda root: ((root / "val").mkdir(), (root / "validation").mkdir()), "both val/ and"),
    "class only in test": (lambda root: _add_image(root / "test" / "emu" / "a.png"), "'emu' is in test/ but not"),
    "class only in val": (lambda root: _add_image(root / "val" / "emu" / "a.png"), "'emu' is in validation/ but"),
    "test without images": (
        lambda root: [file.unlink() for file in (root / "test").rglob("*.png")],
        "test part of .* has no images",
    ),
}


@pytest.mark.parametrize("case", SPLIT_ERRORS)
def test_bad_splits_are_one_message(split_folder, case):
    """Each missing or contradictory split folder is a DataError that says what is wrong."""
    change, message = SPLIT_ERRORS[case]
    change(split_folder)
    with pytest.raises(DataError, match=message):
        load_data(split_folder, DataConfig(), SPEC)


def test_folders_named_by_numbers_are_in_their_order(tmp_path, first_batch):
    """Class folders 0 to 11 are sorted as numbers, so that class 2 is the folder 2; other names as strings."""
    for number in range(12):
        for i in range(4):
            path = tmp_path / "numbers" / str(number) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    data = load_data(tmp_path / "numbers", DataConfig(), SPEC)
    assert data.class_names == tuple(str(number) for number in range(12))
    x, y = first_batch(data.train)
    assert (x[:, 0, 0, 0] == y).all()
    (tmp_path / "numbers" / "11").rename(tmp_path / "numbers" / "x")
    names = load_data(tmp_path / "numbers", DataConfig(), SPEC).class_names
    assert names == tuple(sorted([*map(str, range(11)), "x"]))


def test_order_of_classes_from_the_recipe(flat_folder, first_batch):
    """[data] classes gives the class folders their numbers, and changes the fingerprint; other names are refused."""
    data = load_data(flat_folder, DataConfig(classes=("owl", "cat", "dog")), SPEC)
    assert data.class_names == ("owl", "cat", "dog")
    x, y = first_batch(data.train, shuffle_seed=2)
    assert (np.array([1, 2, 0])[x[:, 0, 0, 0].astype(int) // 20] == y).all()
    assert data.fingerprint != load_data(flat_folder, DataConfig(), SPEC).fingerprint
    for names in (("owl", "cat"), ("owl", "cat", "dog", "emu")):
        with pytest.raises(DataError, match=r"class folders of .* are cat, dog, owl"):
            load_data(flat_folder, DataConfig(classes=names), SPEC)


def test_channels_in_the_order_of_the_recipe(flat_folder, first_batch):
    """color = "bgr" gives the same pixels with the channels reversed, decoded once or every time."""
    rgb, bgr = (load_data(flat_folder, DataConfig(color=color), SPEC) for color in ("rgb", "bgr"))
    np.testing.assert_array_equal(first_batch(bgr.test)[0], first_batch(rgb.test)[0][..., ::-1])
    assert bgr.preprocessing["color"] == "bgr"
    assert bgr.fingerprint != rgb.fingerprint
    with pytest.raises(DataError, match="takes 1 channels; images are read as bgr"):
        load_data(flat_folder, DataConfig(color="bgr"), InputSpec(((8, 8, 1),)))


def test_unusual_images_have_the_pixels_that_viewers_show(tmp_path, first_batch):
    """16 bits per channel are scaled to 0..255, not cut off; CMYK, palettes, WebP and GIFs called .jpg are read, as RGB
    and in gray; what is transparent has its colour; each orientation that a camera noted is applied."""
    ramp = np.linspace(0, 255, 64).reshape(8, 8).astype(np.uint8)
    gray = Image.fromarray(ramp)
    color = Image.merge("RGB", (gray, gray.rotate(90), gray.rotate(180)))
    clear = color.copy()
    clear.putalpha(gray)
    # EXIF: how the stored image has to be turned to be upright → its opposite, by which it is stored here.
    stored = {
        1: color, 2: color.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 3: color.rotate(180),
        4: color.transpose(Image.Transpose.FLIP_TOP_BOTTOM), 5: color.transpose(Image.Transpose.TRANSPOSE),
        6: color.rotate(90), 7: color.transpose(Image.Transpose.TRANSVERSE), 8: color.rotate(-90),
    }  # fmt: skip
    files = {
        "deep.png": (Image.fromarray(ramp.astype(np.uint16) * 257), "PNG", {}, gray, 0),
        "cmyk.jpg": (gray.convert("RGB").convert("CMYK"), "JPEG", {"quality": 100}, gray, 6),
        "palette.png": (color.quantize(), "PNG", {"transparency": 0}, color.quantize(), 0),
        "clear.png": (clear, "PNG", {}, color, 0),
        "gray_clear.png": (Image.merge("LA", (gray, gray.rotate(90))), "PNG", {}, gray, 0),
        "small.webp": (color, "WEBP", {"lossless": True}, color, 0),
        "really_gif.jpg": (gray, "GIF", {}, gray, 0),
    }
    for number, image in stored.items():
        noted = Image.Exif()
        noted[0x0112] = number
        files[f"turned{number}.png"] = (image, "PNG", {"exif": noted}, color, 0)
    noted = Image.Exif()
    noted[0x0112] = 6
    files["turned.jpg"] = (gray.rotate(90), "JPEG", {"quality": 100, "exif": noted}, gray, 4)
    for name, (image, kind, options, *_) in files.items():
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            image.save(tmp_path / folder / name, kind, **options)
    seen = set()
    for mode, channels in (("RGB", 3), ("L", 1)):
        data = load_data(tmp_path, DataConfig(validation=0.3), InputSpec(((8, 8, channels),)))
        for split in (data.train, data.validation, data.test):
            x, _ = first_batch(split)
            for i, image in zip(split.index, x, strict=True):
                name = os.path.basename(split.store.path(int(i)))
                *_, expected, tolerance = files[name]
                shown = np.asarray(expected.convert("RGB").convert(mode)).reshape(8, 8, channels)
                assert np.abs(image - shown).max() <= tolerance, name
                seen.add((name, mode))
    assert len(seen) == 2 * len(files)


def test_images_are_resized_as_keras_does(tmp_path, first_batch):
    """Pixels of a resized PNG equal those that TensorFlow's bilinear resizing gives, rounded."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    sizes = [(13, 9), (4, 60), (33, 33), (7, 8)] * 5
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    for i, image in enumerate(pictures):
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"class{i % 2}" / f"{i:02}.png")
    data = load_data(tmp_path, DataConfig(), SPEC)
    x, _ = first_batch(data.train)
    for i, image in zip(data.train.index, x, strict=True):
        given = pictures[int(os.path.basename(data.train.store.path(int(i)))[:2])]
        np.testing.assert_array_equal(image, np.round(tf.image.resize(given, (8, 8)).numpy()))


def test_a_camera_s_orientation_counts_where_the_size_comes_from_the_files(tmp_path):
    """Images that were stored lying have the height and width that they are shown with."""
    noted = Image.Exif()
    noted[0x0112] = 6
    for i in range(12):
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (9, 5)).save(tmp_path / f"class{i % 2}" / f"{i}.jpg", exif=noted)
    spec = load_data(tmp_path, DataConfig(validation=0.2), InputSpec(((None, None, 3),))).train.spec
    assert spec.shapes == ((9, 5, 3),)


def test_broken_images_are_listed_together(flat_folder):
    """One message has their number and the first ten, with reasons; a recipe can have them left out, which the data
    and its fingerprint say."""
    whole = load_data(flat_folder, DataConfig(broken="skip"), SPEC)
    for path in sorted((flat_folder / "cat").iterdir())[:12]:
        _corrupt(path)
    with pytest.raises(DataError, match=r"12 of 60 image files cannot be read, the first 10 of them") as error:
        load_data(flat_folder, DataConfig(), SPEC)
    assert str(error.value).count("image file is truncated") == 10
    assert "cat/09.png" in str(error.value)
    assert 'broken = "skip"' in str(error.value)
    data = load_data(flat_folder, DataConfig(broken="skip"), SPEC)
    assert data.train.size + data.validation.size + data.test.size == 48
    (note,) = data.notes
    assert note.startswith("12 of the image files cannot be read and were left out, as the recipe says: cat/00.png, ")
    assert data.fingerprint != whole.fingerprint
    assert whole.notes == ()


def test_a_folder_called_valid_is_validation(split_folder):
    """As Roboflow and fastai call it; it was overlooked, and a part of train taken. Beside val/ it is refused."""
    shutil.copytree(split_folder / "test", split_folder / "valid")
    assert load_data(split_folder, DataConfig(), SPEC).validation.size == 10
    shutil.copytree(split_folder / "test", split_folder / "val")
    with pytest.raises(DataError, match="both val/ and valid/"):
        load_data(split_folder, DataConfig(), SPEC)


@pytest.mark.parametrize(
    ("renamed", "named"),
    [({"train": "Train", "test": "Test"}, "Test/, Train/"), ({"train": "training", "test": "testing"}, "testing/, tr"),
     ({"test": "dev"}, "dev/"), ({"test": "Test"}, "Test/")],
)  # fmt: skip
def test_folders_that_may_be_splits_are_not_taken_for_classes(split_folder, renamed, named):
    """Nor are they overlooked beside train/."""
    for old, new in renamed.items():
        (split_folder / old).rename(split_folder / new)
    with pytest.raises(DataError, match=f"has {named}.*splits, or classes") as raised:
        load_data(split_folder, DataConfig(), SPEC)
    assert "train, val and test" in raised.value.fix


def test_names_of_classes_are_the_same_in_every_unicode_form(split_folder):
    """macOS writes an umlaut as two characters: in one split, in the recipe, or in a second folder of that name."""
    one, two = "k\u00f6ter", "ko\u0308ter"
    (split_folder / "train" / "dog").rename(split_folder / "train" / two)
    (split_folder / "test" / "dog").rename(split_folder / "test" / one)
    data = load_data(split_folder, DataConfig(), SPEC)
    assert data.class_names == ("cat", one)
    assert np.bincount(data.test.labels).tolist() == [5, 5]
    assert load_data(split_folder, DataConfig(classes=(two, "cat")), SPEC).test.labels.tolist() == [1] * 5 + [0] * 5
    shutil.copytree(split_folder / "train" / two, split_folder / "train" / one)
    with pytest.raises(DataError, match="same but for their Unicode form"):
        load_data(split_folder, DataConfig(), SPEC)
