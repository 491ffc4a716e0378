"""``.keras`` archives from strangers: bounded when unpacked, and nothing of them leaves its place."""

import json
import shutil
import stat
import struct
import zipfile

import pytest
from matrix import representatives

from edgeprune.errors import ModelError
from edgeprune.models import load_model


@pytest.fixture(scope="module")
def saved(keras, keras3, tmp_path_factory):
    """A dense model as saved by Keras 2 and 3: {2: path, 3: path}."""
    folder = tmp_path_factory.mktemp("saved")
    for number, kind in ((2, keras), (3, keras3)):
        kind.Sequential([kind.Input((4,)), kind.layers.Dense(3, name="only")]).save(folder / f"{number}.keras")
    return {number: folder / f"{number}.keras" for number in (2, 3)}


@pytest.fixture(params=[2, 3])
def path(request, saved, tmp_path):
    return shutil.copy(saved[request.param], tmp_path / "model.keras")


def _edit(path, **changes):
    """Members by name, with "." as "_dot_": replaced, or removed where None; compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members |= {name.replace("_dot_", "."): content for name, content in changes.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)


def _refused(path, match):
    with pytest.raises(ModelError, match=match) as caught:
        load_model(path)
    assert caught.value.exit_code == 2
    assert caught.value.fix


@pytest.mark.parametrize("member", ["config.json", "metadata.json", "model.weights.h5", "assets/x"])
def test_bombs_are_not_unpacked(member, path):
    """A member of 70 MB in 70 kB is refused, whichever it is."""
    _edit(path, **{member: bytes(7 * 10**7)})
    _refused(path, "would unpack")


@pytest.mark.parametrize("member", ["config.json", "metadata.json"])
def test_descriptions_are_bounded(member, path):
    """A description of 20 MB is refused, though its archive does not expand much."""
    _edit(path, **{member: " " * (20 << 20)})
    _refused(path, f"has a {member} of 21 MB")


PATHS = ("../out", "/out", "assets/../../out", "..\\out", "assets\\..\\..\\out", "C:\\out")


@pytest.mark.parametrize("name", representatives(PATHS, "/out", "assets/../../out", "..\\out", "C:\\out"))
def test_paths_out_of_the_archive_are_refused(name, path, tmp_path):
    """A member whose name leads out of the folder it is unpacked to is refused; nothing is written."""
    before = sorted(tmp_path.parent.rglob("*"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    _refused(path, "path to somewhere else")
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_links_and_doubles_are_refused(path):
    """A symbolic link among the members, and a second member of the same name, are refused."""
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    double = shutil.copy(path, path.with_name("double.keras"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    _refused(path, "link or a device")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(double, "a") as archive:
        archive.writestr("config.json", "{}")
    _refused(double, "two members of the same name")


@pytest.mark.parametrize(("offset", "value", "match"), [(8, 1, "encrypted"), (10, 14, "unusual compression")])
def test_encrypted_members_and_odd_compressions_are_refused(offset, value, match, path):
    """A member that is encrypted, or compressed as Keras does not, is refused."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")  # the first entry of the directory
    struct.pack_into("<H", content, at + offset, value)
    path.write_bytes(content)
    _refused(path, match)


def test_members_that_claim_the_same_bytes_are_refused(path):
    """A directory that lists more bytes than the file has, as overlapping members do, is damage."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, at + 20, len(content))
    path.write_bytes(content)
    _refused(path, "longer than the file")


def test_a_million_members_are_not_listed(path):
    """An archive that states very many members is refused before they are listed."""
    _edit(path, **{f"assets/{number}": b"" for number in range(10_001)})
    _refused(path, "more than 10,000 members")


def test_other_members_are_left_alone(path):
    """Members that Keras does not write are ignored, an archive among them too."""
    _edit(path, **{"inner.keras": path.read_bytes(), "notes/readme.txt": b"hello"})
    assert load_model(path).layers


def test_missing_weights_are_named(path):
    """An archive without weights is refused by the name of the member."""
    _edit(path, model_dot_weights_dot_h5=None)
    _refused(path, "has no model.weights.h5")


DESCRIPTIONS = {
    "[" * 5000 + "]" * 5000: "levels",
    '{"class_name": "Sequential", "config": {"name": "s", "layers": ' + "[" * 300 + "]" * 300 + "}}": "levels",
    '{"class_name": "Sequential", "class_name": "Sequential", "config": {}}': "same key twice",
    '{"class_name": "Sequential", "config": {"name": "s", "layers": [' + "0," * 2_000_001 + "0]}}": "values",
    '{"class_name": "Sequential", "config": {"units": ' + "9" * 5000 + "}}": "cannot be read",
}


@pytest.mark.parametrize("text", DESCRIPTIONS, ids=range(len(DESCRIPTIONS)))
def test_extreme_descriptions_are_refused(text, path):
    """Depth, double keys, very many values and very long numbers end in one message."""
    _edit(path, config_dot_json=text)
    _refused(path, DESCRIPTIONS[text])


def test_text_that_is_no_utf8_is_refused(path):
    """A description in another encoding is damage."""
    _edit(path, config_dot_json=json.dumps({"class_name": "x", "config": {}}).encode("utf-16"))
    _refused(path, "cannot be read")
