"""Sound → what a model takes, in NumPy: the definition of the front end, which also becomes a part of the snippets.

``edgeprune.data.sound.folder`` computes the same in TensorFlow. ``sound`` is ``SoundConfig.resolved()``. All is
computed in float64, so that quiet bands, of which a logarithm is taken, are the same wherever it is done.
"""

# mypy: allow-untyped-defs

import numpy as np

# Hz → mel and back; Slaney's scale is linear up to 1 kHz, which is 15 mel.
HTK = (lambda hz: 2595 * np.log10(1 + hz / 700), lambda mel: 700 * (10 ** (mel / 2595) - 1))
SLANEY = (
    lambda hz: np.where(hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4)),
    lambda mel: np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27)),
)


def mel_filters(sound):
    """Triangles, float64 [fft // 2 + 1, mels]."""
    to_mel, to_hz = SLANEY if sound["like"] == "librosa" else HTK
    places = np.fft.rfftfreq(sound["fft"], 1 / sound["rate"])
    low, high = to_mel(np.array([sound["low"], sound["high"]], np.float64))
    edges = np.linspace(low, high, sound["mels"] + 2)
    if sound["like"] == "tensorflow":  # sides that are straight over mel, not over Hz
        places = to_mel(np.linspace(0, sound["rate"] / 2, len(places)))  # other ones, if the transform is odd
    else:
        edges = to_hz(edges)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (places[:, None] - low) / (middle - low), (high - places[:, None]) / (high - middle)
    filters = np.maximum(0, np.minimum(rising, falling))
    if sound["like"] == "tensorflow":
        filters[0] = 0
    return filters * (2 / (high - low)) if sound["like"] == "librosa" else filters


def cosines(sound):
    """DCT of type II, float64 [mels, coefficients]: orthonormal; in TensorFlow the first coefficient is not."""
    mels = sound["mels"]
    places = np.arange(mels)[:, None] + 0.5
    matrix = np.cos(np.pi / mels * places * np.arange(sound["coefficients"])) * np.sqrt(2 / mels)
    if sound["like"] != "tensorflow":
        matrix[:, 0] /= np.sqrt(2)
    return matrix


def window(sound):
    """Hann, float64 [frame]; periodic, but symmetric for odd frames in TensorFlow."""
    frame = sound["frame"]
    period = frame - 1 if sound["like"] == "tensorflow" and frame % 2 else frame
    return 0.5 - 0.5 * np.cos(2 * np.pi / period * np.arange(frame))


def padding(sound):
    """What center adds: samples before and after, and how they are made, in the words of ``np.pad``.

    It is half a frame; where frame or transform are odd, what librosa does for a window in the middle of its transform.
    """
    if not sound["center"]:
        return 0, 0, "constant"
    frame, fft = sound["frame"], sound["fft"]
    before = fft // 2 - (fft - frame) // 2
    return before, frame - fft % 2 - before, "reflect" if sound["like"] == "torchaudio" else "constant"


def fitted(samples, sound):
    """Cut at the end, or filled up with zeros there: float32 [samples]."""
    samples = np.asarray(samples, np.float32)[: sound["samples"]]
    return np.pad(samples, (0, sound["samples"] - len(samples)))


def front_end(samples, sound):
    """float32 [samples] of -1..1 → the same for raw; else float32 [frames, mels or coefficients], or transposed."""
    if sound["front"] == "raw":
        return samples
    *margins, mode = padding(sound)
    x = np.pad(np.asarray(samples, np.float64), margins, mode=mode)
    starts = np.arange(0, len(x) - sound["frame"] + 1, sound["hop"])
    frames = x[starts[:, None] + np.arange(sound["frame"])] * window(sound)
    mel = np.abs(np.fft.rfft(frames, sound["fft"])) ** sound["power"] @ mel_filters(sound)
    if sound["log"] == "ln":
        bands = np.log(mel + sound["floor"])
    else:
        bands = 10 * np.log10(np.maximum(mel, sound["floor"]))
        if sound["top_db"]:
            bands = np.maximum(bands, bands.max() - sound["top_db"])
    if sound["front"] == "mfcc":
        bands = bands @ cosines(sound)
    return (bands.T if sound["transpose"] else bands).astype(np.float32)
