"""Bytecode of Lambda layers: of this Python, of others, damaged; in files of both Kerases."""

import base64
import json
import marshal
import zipfile

import numpy as np
import pytest

from edgeprune.errors import ModelError
from edgeprune.models import load_model
from edgeprune.models.bytecode import is_of_this_python

FUNCTIONS = [
    lambda x: x * 2,
    lambda x, y=3: [x.sum(axis=i) for i in range(y)] if x is not None else {"a": x},
    lambda x: (lambda z: z + x)(1) + sum(i for i in x[1:, ..., 0]),
]
# lambda x: x.sum(axis=1) + abs(x), without the names of files, as these versions compile it.
LOAD_ATTR_312 = bytes.fromhex("97007c006a0100000000000000000000000000000000000064019c015300")


def _changed(function, code):
    return marshal.dumps(function.__code__.replace(co_code=code))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_code_of_this_python_is_recognised(function):
    """What the compiler here makes fits, with functions in it, defaults and closures."""
    assert is_of_this_python(marshal.dumps(function.__code__))


@pytest.mark.parametrize(
    "raw",
    [
        _changed(FUNCTIONS[0], LOAD_ATTR_312),
        _changed(FUNCTIONS[0], b"\x09\x00|\x00d\x01\x14\x00S\x00"),  # Python 3.10: no RESUME, BINARY_MULTIPLY
        _changed(FUNCTIONS[0], bytes([151, 0, 255, 0, 83, 0])),
        marshal.dumps(FUNCTIONS[0].__code__)[:40],
        marshal.dumps(42),
        b"",
    ],
)
def test_other_code_is_not(raw):
    """Other instructions, other cache entries, cut bytes, and what is no code do not fit."""
    assert not is_of_this_python(raw)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("version", [2, 3])
def test_a_lambda_of_another_python_is_refused_before_it_runs(version, ending, keras, keras3, tmp_path):
    """With trust, a Lambda of this Python works; one of another is refused by name, whatever holds it."""
    kind = keras if version == 2 else keras3
    path = tmp_path / f"model{ending}"
    model = kind.Sequential([kind.Input((3,)), kind.layers.Lambda(lambda x: x * 2.0, name="twice")])
    model.save(path)
    with pytest.raises(ModelError, match=r"'twice'.*code") as caught:
        load_model(path)
    assert "--trust-model" in caught.value.fix
    assert np.array_equal(load_model(path, trust=True)(np.ones((1, 3), "float32")), [[2, 2, 2]])
    own = model.layers[-1].function.__code__
    foreign = marshal.dumps(own.replace(co_code=LOAD_ATTR_312))
    _replace(path, marshal.dumps(own), foreign)
    with pytest.raises(ModelError, match=r"'twice'.*another version of Python"):
        load_model(path, trust=True)


def _replace(path, old, new):
    """Change the bytecode in a model's configuration."""
    texts = [json.dumps(base64.encodebytes(code).decode())[1:-1] for code in (old, new)]
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path, "a") as file:
            changed = file.attrs["model_config"].replace(*texts)
            assert texts[1] in changed
            file.attrs["model_config"] = changed
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = members["config.json"].decode().replace(*texts).encode()
    assert texts[1].encode() in members["config.json"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
