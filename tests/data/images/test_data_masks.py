"""Folders of images and masks: which belong together, what their numbers stand for, and what is wrong with them."""

import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import edgeprune.data.images.pairs
from edgeprune.data import InputSpec, load_data
from edgeprune.data.images.pixels import read_mask
from edgeprune.errors import DataError, RecipeError
from edgeprune.recipe.config import DataConfig, MasksConfig

SPEC = InputSpec(((8, 8, 3),), outputs=((8, 8, 3),))
SIZE = (12, 10)  # of the files


def _write(root, name, mask, split="", palette=False, noted=None):
    for folder in ("images", "masks"):
        (root / split / folder).mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if noted:
        exif[0x0112] = noted
    # The image has the number of its mask's upper left pixel, so that both can be told to be partners.
    picture = Image.new("RGB", mask.shape[::-1], (int(mask[0, 0]) * 50, 7, 7))
    (picture.rotate(90, expand=True) if noted else picture).save(root / split / "images" / f"{name}.png", exif=exif)
    saved = Image.fromarray(mask.astype(np.uint16 if mask.max() > 255 else np.uint8))
    if palette:
        saved.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    saved.save(root / split / "masks" / f"{name}.png")


@pytest.fixture
def folder(tmp_path):
    """20 images of 12 x 10 pixels, with masks of three classes; number 3 is void in two corners."""
    rng = np.random.default_rng(0)
    for i in range(20):
        mask = rng.integers(0, 3, SIZE)
        mask[-1, -1] = mask[0, -1] = 3
        _write(tmp_path / "scenes", f"{i:02}", mask, palette=i % 2 == 0)
    return tmp_path / "scenes"


VOID = DataConfig(masks=MasksConfig(void=3))


def _samples(data):
    for split in (data.train, data.validation, data.test):
        for i, (x, y) in zip(split.index, split.batches(1).as_numpy_iterator(), strict=True):
            yield split.store.path(int(i)), x[0], y[0]


@pytest.mark.parametrize("kept", [True, False])
def test_masks_arrive_with_their_images_resized_by_the_nearest_pixel(folder, monkeypatch, kept):
    """Gray values and indices of palettes are class numbers; void is -1; no number comes out of two others."""
    monkeypatch.setattr(edgeprune.data.images.pairs, "KEEP_DECODED_BYTES", 2**28 if kept else 0)
    data = load_data(folder, VOID, SPEC)
    seen = 0
    for path, x, y in _samples(data):
        stored = np.asarray(Image.open(path.replace("images", "masks"))).astype(int)
        rows, columns = ((np.arange(8) + 0.5) * 12 / 8).astype(int), ((np.arange(8) + 0.5) * 10 / 8).astype(int)
        expected = np.where(stored == 3, -1, stored)[rows][:, columns]
        np.testing.assert_array_equal(y, expected)
        assert x[0, 0, 0] == stored[0, 0] * 50
        seen += 1
    assert seen == 20
    assert data.void == -1
    assert data.targets.values == {-1, 0, 1, 2}


def test_masks_have_the_size_of_the_output(folder, first_batch):
    """A model that answers for every fourth pixel gets masks of that size."""
    _, y = first_batch(load_data(folder, VOID, InputSpec(((8, 8, 3),), outputs=((2, 2, 3),))).train)
    assert y.shape[1:] == (2, 2)


def test_splits_and_folders_below(folder, tmp_path):
    """images/ and masks/ below train/ and test/ are splits; partners are found in folders below, too."""
    for split in ("train", "test"):
        shutil.copytree(folder, tmp_path / "split" / split)
    for kind in ("images", "masks"):
        drive = tmp_path / "split" / "train" / kind / "drive1"
        drive.mkdir()
        for name in ("00.png", "01.png"):
            (drive.parent / name).rename(drive / name)
    data = load_data(tmp_path / "split", VOID, SPEC)
    assert (data.train.size, data.validation.size, data.test.size) == (18, 2, 20)


def test_numbers_of_the_recipe_are_the_classes(tmp_path):
    """values = [0, 255] makes a mask of black and white one of two classes; numbers of 16 bits are taken whole."""
    for i in range(12):
        _write(tmp_path / "a", str(i), np.where(np.arange(64).reshape(8, 8) < 8 + i, 0, 255))
        _write(tmp_path / "b", str(i), np.where(np.arange(64).reshape(8, 8) < 8 + i, 300, 7))
    one = InputSpec(((8, 8, 3),), outputs=((8, 8, 1),))
    for name, values in (("a", (0, 255)), ("b", (300, 7))):
        data = load_data(tmp_path / name, DataConfig(masks=MasksConfig(values=values)), one)
        for path, _, y in _samples(data):
            np.testing.assert_array_equal(y, np.arange(64).reshape(8, 8) >= 8 + int(os.path.basename(path)[:-4]))
    with pytest.raises(DataError, match=r"values = \[0, 255\]"):
        load_data(tmp_path / "a", DataConfig(), one)


def test_all_that_is_wrong_with_masks_is_one_message(folder):
    """A missing mask, one of another size, a class that the model does not have, colours, and a mask without an image:
    each names its file."""
    (folder / "masks" / "00.png").unlink()
    Image.new("L", (4, 4)).save(folder / "masks" / "01.png")
    Image.fromarray(np.full(SIZE, 9, np.uint8)).save(folder / "masks" / "02.png")
    Image.new("RGB", SIZE[::-1]).save(folder / "masks" / "03.png")
    Image.new("L", SIZE[::-1]).save(folder / "masks" / "other.png")
    with pytest.raises(DataError) as error:
        load_data(folder, VOID, SPEC)
    message = str(error.value)
    for words in (
        "do not fit, in 5 places",
        "images/00.png: no mask masks/00.png",
        "masks/01.png: 4 x 4 pixels (height x width), and images/01.png has 12 x 10",
        "masks/02.png: has 9",
        "masks/03.png: it holds colours (RGB)",
        "masks/other.png: no image of this name",
        "0 to 2 and 3 (void)",
    ):
        assert words in message, message


def test_a_number_above_the_classes_may_be_void(folder):
    """The message has the line to write, and lists ten files of many."""
    with pytest.raises(DataError, match=r"in 20 places, the first 10 of them(?s:.*)void = 3") as error:
        load_data(folder, DataConfig(), SPEC)
    assert str(error.value).count(": has 3") == 10


def test_broken_masks_are_broken_images(folder):
    """A mask that cannot be read is listed with its reason, or left out together with its image."""
    path = folder / "masks" / "04.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"1 of 40 image files cannot be read:\n.*masks/04\.png"):
        load_data(folder, VOID, SPEC)
    data = load_data(folder, VOID.model_copy(update={"broken": "skip"}), SPEC)
    assert [note for note in data.notes if "images/04.png" in note]
    assert data.train.size + data.validation.size + data.test.size == 19


def test_turned_images_have_upright_masks(tmp_path):
    """The mask of an image that the camera noted as turned is as large as the image is shown."""
    for i in range(10):
        _write(tmp_path / "a", str(i), np.full(SIZE, 1), noted=6)
    assert load_data(tmp_path / "a", DataConfig(), SPEC).train.size > 0


def test_folders_named_images_and_masks_beside_others_are_asked_about(folder):
    """They could be classes; a section [data.masks] says that they are not."""
    _write(folder, "x", np.zeros(SIZE, int), split="third")
    shutil.rmtree(folder / "third" / "masks")
    with pytest.raises(DataError, match="masks, or class folders"):
        load_data(folder, DataConfig(), SPEC)
    assert load_data(folder, VOID, SPEC).train.size == 14
    shutil.rmtree(folder / "masks")
    with pytest.raises(DataError, match=r"has no folders images/ and masks/, and the recipe has \[data\.masks\]"):
        load_data(folder, VOID, SPEC)


def test_names_of_classes_are_those_of_the_model(folder):
    """[data] classes of another number than the model's is an error, so that no name shifts."""
    with pytest.raises(DataError, match="names 4 classes, and the model gives 3 for every pixel"):
        load_data(folder, VOID.model_copy(update={"classes": ("a", "b", "c", "void")}), SPEC)


def test_the_fingerprint_follows_the_masks(folder):
    """Another meaning of their numbers, or another file, makes stages run again."""
    first = load_data(folder, VOID, SPEC).fingerprint
    assert first == load_data(folder, VOID, SPEC).fingerprint
    other = DataConfig(masks=MasksConfig(void=3, values=(1, 0, 2)))
    assert first != load_data(folder, other, SPEC).fingerprint
    os.utime(folder / "masks" / "00.png", ns=(1, 1))
    assert first != load_data(folder, VOID, SPEC).fingerprint


def test_a_number_is_of_one_class():
    """values that repeat a number, or have that of void, are refused."""
    for given in ({"values": (0, 0)}, {"values": (0, 3), "void": 3}):
        with pytest.raises((ValueError, RecipeError), match="twice"):
            MasksConfig(**given)


def test_groups_of_masks_stay_together(folder):
    """As those of other files: no drive is in two splits."""
    data = load_data(folder, VOID.model_copy(update={"group": r"(\d)\.png"}), SPEC)
    parts = [set(split.groups) for split in (data.train, data.validation, data.test)]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_masks_without_any_pixel_that_counts_are_refused(folder):
    """Nothing could be measured."""
    for path in (folder / "masks").iterdir():
        Image.fromarray(np.full(SIZE, 3, np.uint8)).save(path)
    with pytest.raises(DataError, match=r"All pixels of the masks of .* are 3, which does not count"):
        load_data(folder, VOID, SPEC)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_gray_of_few_bits_is_class_numbers_as_they_are_stored(bits, tmp_path):
    """Tools that make PNG files small store masks of few classes so, and Pillow would stretch them to 0..255."""
    mask = np.arange(16).reshape(4, 4) % 2**bits
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 4, 4, bits, 0, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + _packed(row, bits) for row in mask)),
        b"IEND": b"",
    }
    framed = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks.items()
    ]
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    assert read_mask(str(tmp_path / "mask.png")).tolist() == mask.tolist()


def _packed(row, bits):
    """Numbers of so many bits each, one after the other, filled up to whole bytes."""
    text = "".join(format(int(value), f"0{bits}b") for value in row)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
