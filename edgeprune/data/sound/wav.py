"""WAV files in NumPy, for devices: this file becomes a part of the snippets. Data sources are read by ``soundfile``."""

# mypy: allow-untyped-defs

import numpy as np

# Format codes of WAV.
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
# What a program that could not know the length writes in its place.
UNKNOWN_LENGTH = 0xFFFFFFFF


def chunks(file):
    """(name, place of its content, its length as the file says) of each chunk of an open RIFF file."""
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise ValueError("it is no WAV file")
    while len(head := file.read(8)) == 8:
        place, size = file.tell(), int.from_bytes(head[4:], "little")
        yield head[:4], place, size
        file.seek(place + size + size % 2)


def read_wav(path):
    """(rate in Hz, float32 [samples, channels] of -1..1) of a WAV file of whole numbers or floats of any width."""
    with open(path, "rb") as file:
        found = {name: (place, size) for name, place, size in chunks(file)}
        if b"fmt " not in found or b"data" not in found:
            raise ValueError("it is no whole WAV file")
        file.seek(found[b"fmt "][0])
        header = file.read(found[b"fmt "][1])
        code, channels = np.frombuffer(header[:4], "<u2").tolist()
        (rate,) = np.frombuffer(header[4:8], "<u4").tolist()
        (bits,) = np.frombuffer(header[14:16], "<u2").tolist()
        if code == EXTENSIBLE:
            code = int.from_bytes(header[24:26], "little")
        place, size = found[b"data"]
        file.seek(place)
        content = file.read() if size == UNKNOWN_LENGTH else file.read(size)
    width = bits // 8
    if code not in (PCM, FLOAT) or bits % 8 or width not in ((1, 2, 3, 4) if code == PCM else (4, 8)):
        raise ValueError(f"it has a compression (format {code}, {bits} bits) that is not read here")
    content = content[: len(content) // (width * channels) * width * channels]
    if code == FLOAT:
        values = np.frombuffer(content, f"<f{width}")
    elif width == 1:
        values = (np.frombuffer(content, "u1") - 128.0) / 128
    else:  # as the upper bytes of 32-bit numbers
        wide = np.zeros((len(content) // width, 4), np.uint8)
        wide[:, 4 - width :] = np.frombuffer(content, np.uint8).reshape(-1, width)
        values = wide.view("<i4")[:, 0] / 2.0**31
    return rate, values.astype(np.float32).reshape(-1, channels)
