"""HDF5 files from strangers: nothing outside of them is read, and no more memory is taken than they hold."""

import shutil
import zipfile
import zlib

import h5py
import numpy as np
import pytest

from edgeprune.errors import ModelError
from edgeprune.models import load_model

SECRET = 12345.5


@pytest.fixture(scope="module")
def dense(keras):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="last")(keras.layers.Dense(5, name="first")(inputs)))
    model.compile("adam", "mse")
    return model


@pytest.fixture(scope="module")
def dense3(keras3):
    inputs = keras3.Input((4,))
    return keras3.Model(inputs, keras3.layers.Dense(3, name="last")(keras3.layers.Dense(5, name="first")(inputs)))


def _external(file, name, outside):
    file[name] = h5py.ExternalLink(str(outside / "secret.h5"), "/values")


def _external_group(file, name, outside):
    parent = name.rpartition("/")[0]
    del file[parent]
    file[parent] = h5py.ExternalLink(str(outside / "secret.h5"), "/")


def _soft_to_external(file, name, outside):
    file["elsewhere"] = h5py.ExternalLink(str(outside / "secret.h5"), "/values")
    file[name] = h5py.SoftLink("/elsewhere")


def _dangling(file, name, outside):
    file[name] = h5py.SoftLink("/nowhere")


def _unused(file, name, outside):
    file[name] = np.zeros((5, 3), "f4")
    file["deep/er/unused"] = h5py.ExternalLink(str(outside / "secret.h5"), "/values")


def _storage(file, name, outside):
    file.create_dataset(name, (5, 3), "f4", external=[(str(outside / "secret.bin"), 0, 60)])


def _virtual(file, name, outside):
    layout = h5py.VirtualLayout((5, 3), "f4")
    layout[:] = h5py.VirtualSource(str(outside / "secret.h5"), "values", (5, 3))
    file.create_virtual_dataset(name, layout)


OUTSIDE = {
    _external: "a link to another file",
    _external_group: "a link to another file",
    _soft_to_external: "is a link",
    _dangling: "a link by name",
    _unused: "a link to another file",
    _storage: "values in another file",
    _virtual: "put together from datasets elsewhere",
}


def _reference(file, name, outside):
    file.create_dataset(name, data=np.array([file.ref] * 15).reshape(5, 3), dtype=h5py.ref_dtype)


def _huge(file, name, outside):
    file.create_dataset(name, (10**9, 3), "f4", chunks=(16, 3), fillvalue=1.0)


def _huge_chunk(file, name, outside):
    file.create_dataset(name, (5, 3), "f4", chunks=(10**8, 3), maxshape=(None, 3))


def _zeros(file, name, outside):
    file.create_dataset(name, data=np.zeros(2 * 10**7, "f4"), compression="gzip", chunks=(10**7,))


def _bomb(file, name, outside):
    made = file.create_dataset(name, (5, 3), "f4", compression="gzip", chunks=(5, 3))
    made.id.write_direct_chunk((0, 0), zlib.compress(bytes(10**7), 9))


def _cycle(file, name, outside):
    file[name] = np.zeros((5, 3), "f4")
    file[name.rpartition("/")[0] + "/again"] = file["/"]


def _two_names(file, name, outside):
    file[name] = np.zeros((5, 3), "f4")
    file[f"{name}_too"] = file[name]


def _deep(file, name, outside):
    file[name + "/d" * 300] = 0.0


def _filter(file, name, outside):
    file.create_dataset(name, (5, 3), "f4", chunks=(5, 3), scaleoffset=2)


HOSTILE = {
    _reference: "references",
    _huge: "claims",
    _huge_chunk: "claims",
    _zeros: "claims",
    _bomb: "expands",
    _cycle: "under two names",
    _two_names: "under two names",
    _deep: "deep",
    _filter: "filters",
}


@pytest.mark.parametrize("form", ["2.h5", "2.keras", "3.h5", "3.keras"])
@pytest.mark.parametrize("change", [*OUTSIDE, *HOSTILE], ids=lambda change: change.__name__.strip("_"))
def test_what_keras_never_writes_is_refused(change, form, dense, dense3, tmp_path, monkeypatch):
    """Links, outside storage, claims and bombs, in any format of either Keras, are refused and not followed."""
    monkeypatch.chdir(tmp_path)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["values"] = np.full((5, 3), SECRET, "f4")
    (tmp_path / "secret.bin").write_bytes(np.full(15, SECRET, "f4").tobytes())
    path = tmp_path / f"model{form[1:]}"
    (dense if form[0] == "2" else dense3).save(path)
    _change_weights(path, lambda file: _replace(file, change, tmp_path))
    with pytest.raises(ModelError, match={**OUTSIDE, **HOSTILE}[change]) as caught:
        load_model(path)
    assert str(path) in caught.value.what
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({path.name, "secret.h5", "secret.bin"})


def _replace(file, change, folder):
    names = []
    file.visititems(lambda name, item: names.append(name) if getattr(item, "shape", None) == (5, 3) else None)
    del file[names[0]]
    change(file, names[0], folder)


def _change_weights(path, change):
    """Apply ``change`` to the open HDF5 file that holds the weights."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            change(file)
        return
    inner = path.with_name("inner.h5")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    inner.write_bytes(members["model.weights.h5"])
    with h5py.File(inner, "r+") as file:
        change(file)
    members["model.weights.h5"] = inner.read_bytes()
    inner.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("names", [[b"/model_weights/last/last/kernel:0"], [b"last/kernel:0", b"last/./kernel:0"]])
def test_weights_are_not_read_again_and_again(names, dense, tmp_path):
    """A list of weights that leads to another group, or to one weight twice, is refused."""
    path = tmp_path / "model.h5"
    dense.save(path)
    with h5py.File(path, "r+") as file:
        file["model_weights/first"].attrs["weight_names"] = names
    with pytest.raises(ModelError, match="twice, or those of another group"):
        load_model(path)


def test_texts_that_claim_to_be_long_are_refused(dense3, tmp_path):
    """A name in an attribute that states gigabytes for itself takes none: the file is damaged."""
    path = tmp_path / "model.h5"
    dense3.save(path)
    content = path.read_bytes()
    with h5py.File(path) as file:
        names = file["model_weights/first"].attrs["weight_names"]
    assert isinstance(names[0], str)  # of open length, whose bytes lie elsewhere
    at = content.index(b"weight_names\0")
    while len(names[0]) != int.from_bytes(content[at : at + 4], "little"):
        at += 1
    path.write_bytes(content[:at] + (3 << 30).to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(ModelError, match="longer than the file"):
        load_model(path)


def test_compressed_weights_load(dense, outputs, tmp_path):
    """Weights that their author compressed, with any usual filters, load as they are."""
    path = tmp_path / "model.h5"
    dense.save(path)
    for options in ({"compression": "gzip"}, {"compression": "lzf", "shuffle": True, "fletcher32": True}):
        copy = shutil.copy(path, tmp_path / "copy.h5")
        with h5py.File(copy, "r+") as file:
            names = []
            file.visititems(
                lambda name, item, names=names: names.append(name) if getattr(item, "size", 0) > 1 else None
            )
            for name in names:
                values = file[name][()]
                del file[name]
                file.create_dataset(name, data=values, **options)
        for one, other in zip(load_model(copy).get_weights(), dense.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
