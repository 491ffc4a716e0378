"""Sound: the front end against other packages, folders of WAV files, what is refused."""

import itertools
import os
import re
import shutil
import tomllib

import librosa
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from matrix import representatives

import edgeprune.data.sound.folder
from edgeprune.data import InputSpec, data_errors, load_data
from edgeprune.data.sound.folder import front_end, front_shape, read_sound
from edgeprune.data.sound.front_end import front_end as numpy_front_end
from edgeprune.data.sound.wav import read_wav
from edgeprune.errors import DataError
from edgeprune.recipe.config import DataConfig, SoundConfig

FRONTS = {
    "default": {},
    "raw": {"front": "raw"},
    "mfcc": {"front": "mfcc"},
    "librosa": {"front": "mfcc", "like": "librosa", "center": True, "log": "db", "floor": 1e-10, "top_db": 80.0},
    "torchaudio": {"like": "torchaudio", "center": True, "log": "db", "floor": 1e-10, "top_db": 80.0},
    "magnitude": {"power": 1, "transpose": True, "frame": 401, "fft": 800, "hop": 159, "high": 8000.0},
    "odd, centered": {"like": "librosa", "center": True, "frame": 401, "hop": 160},
}


@pytest.fixture(scope="module")
def sounds():
    """Float32 [4, 16000]: noise, a loud tone with noise 120 dB below, a click in silence, silence."""
    rng, t = np.random.default_rng(0), np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 440 * t) + 1e-6 * rng.standard_normal(16000)
    return np.stack([rng.uniform(-1, 1, 16000), tone, t == 0.5, np.zeros(16000)]).astype(np.float32)


@pytest.mark.parametrize("name", FRONTS)
def test_numpy_and_tensorflow_compute_the_same_front_end(sounds, name):
    """To 1e-5, also where the spectrum is quiet beside a loud tone, in batches and inside tf.data; the shape is known
    before."""
    sound = SoundConfig(**FRONTS[name])
    expected = np.stack([numpy_front_end(one, sound.resolved()) for one in sounds])
    dataset = tf.data.Dataset.from_tensors(sounds).map(lambda x: front_end(x, sound))
    (actual,) = dataset.as_numpy_iterator()
    assert expected.dtype == actual.dtype == np.float32
    assert expected.shape[1:] == front_shape(sound)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def features(sounds, **keys):
    sound = SoundConfig(**keys).resolved()
    return np.stack([numpy_front_end(one, sound) for one in sounds])


@pytest.mark.parametrize(
    ("frame", "center"), representatives(itertools.product([400, 401, 512], [False, True]), (401, False), (512, True))
)
def test_mfcc_is_that_of_librosa(sounds, frame, center):
    """librosa.feature.mfcc with its defaults; without center its window stands in the middle of the transform."""
    fft = 512 if center or frame == 512 else frame
    keys = {"n_fft": fft, "hop_length": 160, "win_length": frame, "center": center, "fmin": 20, "fmax": 8000}
    expected = np.stack([librosa.feature.mfcc(y=x, sr=16000, n_mfcc=13, n_mels=64, **keys) for x in sounds])
    same = {"frame": frame, "fft": fft, "hop": 160, "center": center, "high": 8000, "mels": 64, "coefficients": 13}
    same |= {"like": "librosa", "log": "db", "floor": 1e-10, "top_db": 80, "front": "mfcc", "transpose": True}
    # librosa computes in float32, and adds 64 bands of up to 100 dB.
    np.testing.assert_allclose(features(sounds, **same)[[0, 2, 3]], expected[[0, 2, 3]], rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("like", "options", "padding"),
    [("librosa", {}, "constant"), ("torchaudio", {"htk": True, "norm": None}, "reflect")],
)
def test_log_mel_is_that_of_librosa_and_torchaudio(sounds, like, options, padding):
    """librosa.feature.melspectrogram, with its defaults and with what torchaudio's are in its words."""
    keys = {"n_fft": 400, "hop_length": 200, "n_mels": 40, "fmin": 0, "fmax": 8000, "pad_mode": padding, **options}
    mel = np.stack([librosa.feature.melspectrogram(y=x, sr=16000, **keys) for x in sounds[:1].astype(np.float64)])
    same = {"frame": 400, "fft": 400, "hop": 200, "low": 0, "high": 8000, "center": True, "like": like}
    actual = features(sounds[:1], **same, transpose=True, log="db", floor=1e-10)
    np.testing.assert_allclose(actual, librosa.power_to_db(mel, top_db=None), rtol=0, atol=1e-4)


@pytest.mark.parametrize("frame", [480, 481])
@pytest.mark.parametrize("power", [1, 2])
def test_mfcc_is_that_of_tensorflow(sounds, frame, power):
    """tf.signal with its defaults, in the order of its tutorials."""
    spectra = tf.abs(tf.signal.stft(sounds, frame, 320)) ** power
    filters = tf.signal.linear_to_mel_weight_matrix(40, spectra.shape[-1], 16000, 20, 4000)
    logarithms = tf.math.log(spectra @ filters + 1e-6)
    expected = tf.signal.mfccs_from_log_mel_spectrograms(logarithms)[..., :10]
    # TensorFlow's float32 is not exact in the quiet bands beside the tone.
    some = [0, 2, 3]
    np.testing.assert_allclose(
        features(sounds, frame=frame, power=power)[some], logarithms.numpy()[some], rtol=0, atol=1e-3
    )
    actual = features(sounds, frame=frame, power=power, front="mfcc")
    np.testing.assert_allclose(actual[some], expected.numpy()[some], rtol=0, atol=1e-3)


SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]


@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
def test_the_reader_for_devices_reads_what_soundfile_reads(tmp_path, subtype, form):
    """Whole numbers and floats of every width, bit for bit, with one channel and with three."""
    for channels in (1, 3):
        path, samples = tmp_path / "a.wav", np.random.default_rng(0).uniform(-1, 1, (101, channels))
        soundfile.write(path, samples, 22050, subtype, format=form)
        rate, values = read_wav(path)
        assert rate == 22050
        np.testing.assert_array_equal(values, soundfile.read(path, dtype="float32", always_2d=True)[0])


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize(("subtype", "step"), [("PCM_U8", 1 / 128), ("PCM_24", 1e-3), ("FLOAT", 1e-3)])
def test_sounds_of_any_rate_width_and_channels_become_the_same_samples(tmp_path, rate, subtype, step):
    """A tone with its middle channel upside down: a third of it is left, at the recipe's rate; zeros come after it."""
    t = np.arange(rate // 2) / rate
    tone = 0.9 * np.sin(2 * np.pi * 300 * t)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, -tone, tone], 1), rate, subtype)
    samples = read_sound(str(tmp_path / "a.wav"), SoundConfig())
    expected = 0.3 * np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)
    assert samples.shape == (16000,)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples[400:7600], expected[400:7600], atol=step)
    assert not samples[8000:].any()


def test_the_end_of_a_long_file_does_not_depend_on_what_is_left_unread(tmp_path):
    """Only a little more than the stated length is resampled, with the same result to 1e-6."""
    soxr = pytest.importorskip("soxr")
    long = np.random.default_rng(0).uniform(-1, 1, 5 * 44100).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", long, 44100, "FLOAT")
    expected = soxr.resample(long, 44100, 16000, quality="HQ")[:16000]
    np.testing.assert_allclose(read_sound(str(tmp_path / "a.wav"), SoundConfig()), expected, atol=1e-6)


def write(path, value=0.5, rate=8000, count=800):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(count, value), rate, "FLOAT")


RAW = DataConfig(sound=SoundConfig(rate=8000, samples=800, front="raw"))
SPEC = InputSpec(((800,),))


@pytest.fixture
def words(tmp_path):
    """no/ and yes/ with 30 files each: the value of all samples of a file is (its number + 1) / 100."""
    for i in range(60):
        write(tmp_path / "words" / ("no", "yes")[i // 30] / f"speaker{i % 6}_{i:02}.wav", (i + 1) / 100)
    return tmp_path / "words"


def numbers(split, **options):
    return [int(i) for x, _ in split.batches(7, **options) for i in np.rint(100 * x.numpy()[:, 0]) - 1]


@pytest.mark.parametrize("kept", representatives([True, False], False))
def test_labels_belong_to_their_sounds(words, kept, monkeypatch):
    """In every order, from memory as well as from files; each file is in one split."""
    monkeypatch.setattr(edgeprune.data.sound.folder, "KEEP_READ_BYTES", 2**28 * kept)
    data = load_data(words, RAW, SPEC)
    assert data.class_names == ("no", "yes")
    parts = [numbers(split) for split in (data.train, data.validation, data.test)]
    assert sorted(itertools.chain(*parts)) == list(range(60))
    for x, y in data.train.batches(16, shuffle_seed=3):
        assert ((np.rint(100 * x.numpy()[:, 0]) - 1) // 30 == y.numpy()).all()
    assert numbers(data.train, shuffle_seed=1) != numbers(data.train)
    assert (data.train.store._contents.kept is not None) is kept


def test_split_folders_and_sounds_without_labels(words, tmp_path):
    """train/ and test/ as image folders have them; files without class folders have no labels."""
    shutil.copytree(words, tmp_path / "split" / "train")
    for name in ("no", "yes"):
        write(tmp_path / "split" / "test" / name / "a.wav")
    data = load_data(tmp_path / "split", RAW, SPEC)
    assert (data.train.size, data.validation.size, data.test.size) == (54, 6, 2)
    data = load_data(words / "no", RAW, SPEC)
    assert (data.class_names, data.train.labels, data.train.size) == (None, None, 22)


def test_the_fingerprint_is_of_the_content(words):
    """The same content under a new time stamp is the same; other content of the same size and time is another."""
    before, path = load_data(words, RAW, SPEC).fingerprint, words / "no" / "speaker0_00.wav"
    os.utime(path, (1, 1))
    assert load_data(words, RAW, SPEC).fingerprint == before
    write(path, 0.7)
    os.utime(path, (1, 1))
    assert load_data(words, RAW, SPEC).fingerprint != before


def test_the_models_shape_may_have_axes_of_one_or_be_flat(words):
    """What the front end gives is put into the shape that the model takes; open sizes are filled in."""
    sound = SoundConfig(rate=8000, samples=800, frame=80, hop=40, mels=10)
    for shape in ((19, 10), (19, 10, 1), (1, 19, 10), (190,), (None, 10), (None, None, 1)):
        data = load_data(words, DataConfig(sound=sound), InputSpec((shape,)))
        (x, _), *_ = data.train.batches(4)
        full = tuple(size or own for size, own in zip(shape, (19, 10, 1), strict=False))
        assert x.shape == (4, *(shape if None not in shape else full))
        first = numpy_front_end(read_sound(data.train.store.path(data.train.index[0]), sound), sound.resolved())
        np.testing.assert_allclose(x[0].numpy().reshape(19, 10), first, atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "shape", "line"),
    [
        ({"front": "raw"}, (400,), "samples = 400"),
        ({"front": "raw"}, (19, 40), 'front = "log-mel"  # or "mfcc"'),
        ({"front": "raw"}, (400, 1), "samples = 400"),
        ({}, (20, 19, 1), "transpose = true"),
        ({"front": "mfcc"}, (19, 13), "coefficients = 13"),
        ({}, (19, 10, 1), "mels = 10"),
        ({}, (21, 20), "center = true"),
        ({}, (10, 20), "hop = 80"),
        ({"center": True}, (10, 30, 1), "center = false\n  mels = 30\n  hop = 80"),
    ],
)
def test_a_shape_that_contradicts_the_model_is_refused_with_the_line_to_write(words, keys, shape, line):
    """The lines that are named make the front end give the model's shape."""
    given = {"rate": 8000, "samples": 800, "frame": 80, "hop": 40, "mels": 20, **keys}
    with pytest.raises(DataError) as caught:
        load_data(words, DataConfig(sound=SoundConfig(**given)), InputSpec((shape,)))
    named = str(caught.value).split("[data.sound]\n")[-1]
    if "#" not in line:
        changed = SoundConfig(**{**given, **tomllib.loads(named)})
        load_data(words, DataConfig(sound=changed), InputSpec((shape,)))
    assert len(named.strip().splitlines()) <= len(line.splitlines())
    if "\n" not in line:
        assert line in named


def test_all_files_that_cannot_be_used_are_one_message(words):
    """Empty, without samples, damaged, cut off, no sound, not finite, and whole numbers as floats."""
    whole = (words / "no" / "speaker0_00.wav").read_bytes()
    bad = {
        "empty": (b"", "it is empty (0 bytes)"),
        "silent": (None, "it has no samples"),
        "half": (whole[:30], "damaged or no sound"),
        "cut": (whole[:-100], "it is cut off: 3200 bytes of samples are announced, 3100 are there"),
        "text": (b"no sound at all", "damaged or no sound"),
        "nan": (None, "NaN or infinite"),
        "flac": (None, "it is FLAC under the name of a WAV file"),
        "loud": (None, "its samples go up to 12,000"),
    }
    for name, (content, _) in bad.items():
        (words / "yes" / f"{name}.wav").write_bytes(content or b"")
    write(words / "yes" / "silent.wav", count=0)
    write(words / "yes" / "nan.wav", value=np.nan)
    soundfile.write(words / "yes" / "flac.wav", np.zeros(800), 8000, format="FLAC")
    soundfile.write(words / "yes" / "loud.wav", np.full(800, 12000.0), 8000, subtype="FLOAT")
    with pytest.raises(DataError, match="8 of 68 sound files cannot be used") as caught:
        load_data(words, RAW, SPEC)
    for name, (_, reason) in bad.items():
        assert re.search(rf"{name}\.wav: .*{re.escape(reason)}", str(caught.value)), str(caught.value)
    assert "speaker" not in str(caught.value)


def test_a_file_that_goes_missing_later_is_named(words, monkeypatch):
    """A stream that cannot go on says which file is at fault."""
    monkeypatch.setattr(edgeprune.data.sound.folder, "KEEP_READ_BYTES", 0)
    data = load_data(words, RAW, SPEC)
    path = data.train.store.path(data.train.index[3])
    os.remove(path)
    with pytest.raises(DataError, match=re.escape(path)), data_errors():
        numbers(data.train)


@pytest.mark.parametrize(
    ("config", "spec", "words_of_it"),
    [
        (DataConfig(), InputSpec(((49, 40, 1),)), 'front = "log-mel"'),
        (DataConfig(), InputSpec(((16000, 1),)), 'front = "raw"'),
        (RAW.model_copy(update={"color": "rgb"}), SPEC, "size and color"),
        (RAW, InputSpec(((800,), (800,))), "2 inputs"),
        (RAW, InputSpec(((800,),), dtypes=("int32",)), "int32"),
    ],
)
def test_what_the_recipe_does_not_say_or_cannot_mean_is_refused(words, config, spec, words_of_it):
    """Sound without [data.sound], sound with keys of images, models of other inputs."""
    with pytest.raises(DataError) as caught:
        load_data(words, config, spec)
    assert words_of_it in str(caught.value)


def test_a_sound_section_is_for_folders_of_sound(flat_folder, words):
    """Arrays come as the model takes them; a folder of images, or of MP3 files, has no WAV files."""
    x = np.zeros((10, 800), np.float32)
    with pytest.raises(DataError, match=r"remove \[data.sound\]"):
        load_data({"train": x, "test": x}, RAW, SPEC)
    with pytest.raises(DataError, match="no sound files in its class folders"):
        load_data(flat_folder, RAW, SPEC)
    (words / "no" / "a.mp3").write_bytes(b"ID3")
    with pytest.raises(DataError, match=r"a\.mp3 is in a format that is not read"):
        load_data(words, RAW, SPEC)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"rate": 8000, "high": 5000}, "half of the rate"),
        ({"seconds": 0.01}, "longer than the sound"),
        ({"fft": 256}, "shorter than frame"),
        ({"front": "mfcc", "coefficients": 41}, "more than mels"),
        ({"log": "db", "power": 1}, "power = 2"),
        ({"samples": 8000, "seconds": 1.0}, "different things"),
        ({"like": "torchaudio", "center": True, "samples": 300, "frame": 600}, "mirrors 300 samples"),
    ],
)
def test_keys_that_contradict_each_other_are_errors(keys, reason):
    """Before any file is looked at."""
    with pytest.raises(ValueError, match=reason):
        SoundConfig(**keys)


def test_groups_stay_together_in_folders_of_sound_and_of_images(words, flat_folder):
    """[data] group: no speaker is in two splits, and all files are in one."""
    config = RAW.model_copy(update={"group": r"(speaker\d)_"})
    data = load_data(words, config, SPEC)
    parts = [set(split.groups) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 6
    assert min(map(len, parts)) >= 1
    assert data.train.size + data.validation.size + data.test.size == 60
    images = load_data(flat_folder, DataConfig(group=r"\d(?=\.png)"), InputSpec(((8, 8, 3),)))
    parts = [set(split.groups) for split in (images.train, images.validation, images.test)]
    assert sum(map(len, parts)) == 10
    assert set.union(*parts) == set("0123456789")
    assert images.test.size == 12
    assert np.bincount(images.test.labels).tolist() == [4, 4, 4]


def test_groups_that_cannot_be_kept_together_are_errors(words, tmp_path):
    """Paths without a match, one group for all, no paths, and a group in both train/ and test/ of the source."""
    with pytest.raises(DataError, match="finds nothing in the paths of 60 of 60 files"):
        load_data(words, RAW.model_copy(update={"group": "patient"}), SPEC)
    with pytest.raises(DataError, match="of one group, 'speaker'"):
        load_data(words, RAW.model_copy(update={"group": "speaker"}), SPEC)
    x = np.zeros((10, 800), np.float32)
    with pytest.raises(DataError, match="no paths to look at"):
        load_data({"train": x, "test": x}, DataConfig(group="a"), SPEC)
    shutil.copytree(words, tmp_path / "split" / "train")
    shutil.copytree(words, tmp_path / "split" / "test")
    with pytest.raises(DataError, match=r"6 of 6 groups in the test part of .* are in train as well: speaker0"):
        load_data(tmp_path / "split", RAW.model_copy(update={"group": r"speaker\d"}), SPEC)
    with pytest.raises(ValueError, match="no regular expression"):
        DataConfig(group="(")


@pytest.mark.parametrize("front", ["raw", "log-mel", "mfcc"])
def test_a_spectrogram_shows_what_is_heard(tmp_path, front):
    """Of any front end: a tone that rises goes from a low band to a high one."""
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(6):
            half = [np.sin(2 * np.pi * hertz * np.arange(4000) / 8000) for hertz in (400, 2500)]
            soundfile.write(tmp_path / name / f"{i}.wav", 0.5 * np.concatenate(half), 8000)
    config = SoundConfig(rate=8000, front=front, high=3800.0, mels=20)
    store = load_data(tmp_path, DataConfig(sound=config), InputSpec((front_shape(config),))).test.store
    shown = store.spectrogram(0)
    assert shown.shape == (20, 24)
    early, late = shown[:, :8].mean(1).argmax(), shown[:, -8:].mean(1).argmax()
    assert early < 7 < 12 < late
    assert store.heard == f"{'0 to 4,000' if front == 'raw' else '20 to 3,800'} Hz from below, over 1 s"
