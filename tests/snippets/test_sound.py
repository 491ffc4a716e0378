"""Snippets for sound: files of other rates and widths, and a microphone, which is tried on files."""

import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from edgeprune.convert.converter import convert
from edgeprune.data.sound.folder import read_sound
from edgeprune.data.sound.front_end import front_end
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.recipe.config import SoundConfig
from edgeprune.runtime.interpreter import find_runtime
from edgeprune.runtime.session import Session
from edgeprune.snippets import write_snippets
from edgeprune.target import load_target
from edgeprune.tflite.flatbuffer import read

SOUND = SoundConfig(rate=8000, seconds=0.5, front="mfcc", frame=200, hop=100, mels=20, transpose=True)
LABELS = ["low", "middle", "high"]
SCALE = {"scale": 0.5, "mean": (1.0,), "std": (2.0,)}


def tone(rate, seconds, hz=440.0):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of random weights, for raw samples and for coefficients, with snippets for a Pi and a Coral board."""
    import tf_keras

    folder, layers = tmp_path_factory.mktemp("sound"), tf_keras.layers
    for name, sound, shape in (
        ("mfcc", SOUND, (10, 39, 1)),
        ("raw", SoundConfig(rate=8000, samples=4000, front="raw"), (4000,)),
    ):
        tf_keras.utils.set_random_seed(0)
        inputs = layers.Input(shape)
        outputs = layers.Dense(3, activation="softmax")(layers.Flatten()(inputs))
        model = tf_keras.Model(inputs, outputs)
        (folder / f"{name}.tflite").write_bytes(convert(model, QuantizationPlan("float32", "float", False)))
        preprocessing = {**SCALE, "sound": sound.resolved()}
        for target in ("coral", "android"):
            names = model.input_names, model.output_names
            write_snippets(folder / f"{name}.tflite", load_target(target), preprocessing, *names, LABELS)
    soundfile.write(folder / "plain.wav", tone(8000, 0.5), 8000, "PCM_16")
    soundfile.write(folder / "other.wav", np.stack([tone(44100, 0.7), tone(44100, 0.7, 900)], 1), 44100, "PCM_24")
    soundfile.write(folder / "short.wav", tone(8000, 0.2), 8000, "FLOAT")
    np.save(folder / "samples.npy", tone(8000, 0.5).astype(np.float32))
    return folder


def call(folder, *command, **options):
    found = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, timeout=240, **options)
    return found.returncode, found.stdout.decode(), found.stderr.decode()


def expected(folder, name, samples, sound):
    x = (front_end(samples, sound.resolved()) * 0.5 - 1) / 2
    x = x.reshape(1, *((10, 39, 1) if name == "mfcc" else (4000,)))
    (signature,) = read(folder / f"{name}.tflite").signatures
    session = Session(
        folder / f"{name}.tflite", list(signature.inputs), list(signature.outputs), runtime=find_runtime()
    )
    return session.run([x])[0][0]


@pytest.mark.parametrize("name", ["mfcc", "raw"])
@pytest.mark.parametrize("file", ["plain.wav", "other.wav", "short.wav"])
def test_a_snippet_hears_what_a_build_hears(folder, name, file):
    """The same scores for the same file, whatever its rate, width, channels and length."""
    code, out, err = call(folder, f"run_{name}.py", file)
    assert code == 0, err
    sound = SOUND if name == "mfcc" else SoundConfig(rate=8000, samples=4000, front="raw")
    scores = expected(folder, name, read_sound(str(folder / file), sound), sound)
    rows = [line.split() for line in out.splitlines()]
    assert len(rows) == 3
    for score, label in rows:
        assert float(score) == pytest.approx(scores[LABELS.index(label)], abs=2e-6)


def test_a_snippet_takes_samples_as_an_array(folder):
    """A .npy with the samples of a file gives its scores."""
    assert call(folder, "run_mfcc.py", "samples.npy")[0] == 0
    code, out, _ = call(folder, "run_mfcc_coral.py", "plain.wav", "--cpu")
    assert code == 0
    assert out == call(folder, "run_mfcc.py", "plain.wav")[1]


@pytest.mark.parametrize("given", ["a file", "standard input"])
def test_a_microphone_is_answered_while_it_is_heard(folder, tmp_path, given):
    """Every step an answer about the last samples: that of a file which holds just these."""
    samples = np.rint(32767 * np.concatenate([tone(8000, 0.5), tone(8000, 0.75, 1500)])).astype("<i2")
    if given == "a file":
        soundfile.write(tmp_path / "long.wav", samples, 8000, "PCM_16")
        code, out, err = call(folder, "run_mfcc.py", tmp_path / "long.wav", "--listen")
    else:
        code, out, err = call(folder, "run_mfcc.py", "-", "--listen", input=samples.tobytes())
    assert code == 0, err
    rows = [re.fullmatch(r"([\d.]+) s  ([\d.]+)  (\w+)", line).groups() for line in out.splitlines()]
    assert [row[0] for row in rows] == ["0.50", "0.75", "1.00", "1.25"]
    for end, score, label in rows:
        last = (samples / np.float32(32768))[round(float(end) * 8000) - 4000 : round(float(end) * 8000)]
        scores = expected(folder, "mfcc", last.astype(np.float32), SOUND)
        assert float(score) == pytest.approx(scores.max(), abs=2e-6)
        assert label == LABELS[scores.argmax()]


def test_what_is_no_sound_is_one_line(folder, tmp_path):
    """Other files, compressed ones, empty ones, and a microphone that ends too early."""
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "packed.wav", tone(8000, 0.5), 8000, "ULAW")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000, "PCM_16")
    for file, reason in (("text", "no WAV"), ("packed", "compression"), ("empty", "no samples"), ("gone", "no file")):
        for options in ([], ["--listen"]):
            code, out, err = call(folder, "run_mfcc.py", tmp_path / f"{file}.wav", *options)
            assert (code, out) == (2, ""), err
            assert re.fullmatch(f".*{reason}.*\n", err), err
    code, out, err = call(folder, "run_mfcc.py", "-", "--listen", input=bytes(800))
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "0.05 s of sound came; the model takes 0.50 s at once."


def test_sound_gets_no_snippet_for_pictures(folder):
    """Coefficients [10, 39, 1] are no image: there is no Kotlin."""
    assert not list(folder.glob("*.kt"))
