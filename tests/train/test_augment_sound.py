"""Augmentation of sound: raw samples before the front end, spectrograms after it."""

import itertools

import numpy as np
import pytest
import soundfile
from matrix import representatives

from edgeprune.data import InputSpec, load_data
from edgeprune.data.sound.front_end import front_end
from edgeprune.errors import RecipeError
from edgeprune.recipe.config import AugmentConfig, DataConfig, SoundConfig
from edgeprune.train.augmentation import augment, with_changed_sound

LOG_MEL = {"rate": 8000, "samples": 800, "frame": 80, "hop": 40, "mels": 10}
RAW = {"rate": 8000, "samples": 800, "front": "raw"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 files of noise, half of the amplitude that is possible."""
    root = tmp_path_factory.mktemp("noise")
    for i in range(40):
        path = root / "ab"[i % 2] / f"{i:02}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.random.default_rng(i).uniform(-0.5, 0.5, 800), 8000, "FLOAT")
    return root


def train_split(folder, keys, shape):
    return load_data(folder, DataConfig(sound=SoundConfig(**keys)), InputSpec((shape,))).train


def samples(split):
    return np.concatenate([x for x, _ in split.batches(8).as_numpy_iterator()])


def test_shifted_sounds_are_windows_of_the_padded_sound(folder):
    """Zeros come in at either end, never more of them than was asked for; the sound is otherwise as it was."""
    split = train_split(folder, RAW, (800,))
    before, after = samples(split), samples(with_changed_sound(split, AugmentConfig(time_shift=0.01), 0))
    found = []
    for a, b in zip(before, after, strict=True):
        padded = np.pad(a, 80)
        found += [start - 80 for start in range(161) if np.array_equal(padded[start : start + 800], b)]
    assert len(found) == len(before)
    assert min(found) < -20
    assert max(found) > 20
    assert len(set(found)) > 10


def test_noise_has_up_to_the_deviation_that_was_asked_for(folder):
    """Each sound gets white noise of its own strength, and stays within -1..1."""
    split = train_split(folder, RAW, (800,))
    noise = samples(with_changed_sound(split, AugmentConfig(noise=0.1), 0)) - samples(split)
    deviations = noise.std(1)
    assert deviations.max() < 0.11
    assert deviations.max() > 2 * deviations.min()
    assert abs(np.corrcoef(noise[0, 1:], noise[0, :-1])[0, 1]) < 0.2
    assert np.abs(samples(with_changed_sound(split, AugmentConfig(noise=3.0), 0))).max() == 1


def test_raw_changes_come_before_the_front_end_and_a_seed_decides_them(folder):
    """The spectrogram is that of the changed sound; the split itself stays as it was."""
    changes = AugmentConfig(time_shift=0.01, noise=0.01)
    split = train_split(folder, LOG_MEL, (19, 10))
    raw = samples(with_changed_sound(train_split(folder, RAW, (800,)), changes, 3))
    sound = SoundConfig(**LOG_MEL).resolved()
    changed = samples(with_changed_sound(split, changes, 3))
    np.testing.assert_allclose(changed, [front_end(one, sound) for one in raw], atol=1e-4)
    np.testing.assert_array_equal(changed, samples(with_changed_sound(split, changes, 3)))
    assert not np.array_equal(changed, samples(with_changed_sound(split, changes, 4)))
    assert not np.array_equal(changed, samples(split))
    assert split.store._contents is with_changed_sound(split, changes, 4).store._contents


@pytest.mark.parametrize(
    ("flat", "key", "transpose"),
    representatives(
        itertools.product([False, True], ["time_mask", "band_mask"], [False, True]),
        (False, "time_mask", False), (False, "band_mask", True), (True, "time_mask", True),
    ),
)  # fmt: skip
def test_masked_spectrograms_have_a_strip_of_their_mean(folder, transpose, key, flat):
    """Up to so many neighbouring frames or bands, in whatever shape the model takes the spectrogram."""
    grid = (10, 19) if transpose else (19, 10)
    split = train_split(folder, {**LOG_MEL, "transpose": transpose}, (190,) if flat else (*grid, 1))
    batches = split.batches(8)
    after = augment(batches, AugmentConfig(**{key: 4}), 0, split.preprocessing.sound)
    widths = []
    for (x, _), (y, _) in zip(batches, after, strict=True):
        assert x.shape == y.shape
        for one, other in zip(x.numpy().reshape(-1, *grid), y.numpy().reshape(-1, *grid), strict=True):
            one, other = (one.T, other.T) if transpose else (one, other)
            blank = (one != other).all(1 if key == "time_mask" else 0)
            assert ((one != other) == (blank[:, None] if key == "time_mask" else blank[None])).all()
            assert np.diff(np.flatnonzero(blank)).max(initial=1) == 1
            np.testing.assert_allclose(other[one != other], one.mean(), rtol=1e-5)
            widths.append(blank.sum())
    assert set(widths) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("change", [{"time_shift": 0.1}, {"time_mask": 19}, {"flip": True}, {"band_mask": 10}])
def test_what_would_leave_nothing_or_is_for_images_is_refused(folder, change):
    """A shift by the whole sound, a mask over the whole spectrogram, and its mirror image."""
    split = train_split(folder, LOG_MEL, (19, 10, 1))

    def change_all():
        changed = with_changed_sound(split, AugmentConfig(**change), 0)
        augment(changed.batches(8), AugmentConfig(**change), 0, split.preprocessing.sound)

    with pytest.raises(RecipeError, match=next(iter(change))):
        change_all()


def test_changes_of_sound_are_for_sound(folder):
    """Masks need a spectrogram, and shifts and noise need sound files."""
    split = train_split(folder, RAW, (800,))
    with pytest.raises(RecipeError, match="time_mask is for spectrograms"):
        augment(split.batches(8), AugmentConfig(time_mask=1), 0, split.preprocessing.sound)
    x = np.zeros((20, 800), np.float32)
    arrays = load_data({"train": x, "test": x}, DataConfig(), InputSpec(((800,),)))
    with pytest.raises(RecipeError, match="noise is for sound files"):
        with_changed_sound(arrays.train, AugmentConfig(noise=0.1), 0)
