"""Building the emulated board, with a local archive for apt and a local folder for pip; no network, no emulation."""

import base64
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import zipfile

import pytest
from click.testing import CliRunner
from matrix import representatives

from edgeprune.cli.doctor import doctor
from edgeprune.devices import emulator_download as download
from edgeprune.devices.emulator_home import (
    Debian,
    EmulatedCpu,
    Home,
    Parts,
    Wheel,
    cache_folder,
    default_parts,
    require_tools,
)
from edgeprune.devices.emulator_setup import _unpack, add_runtime, setup
from edgeprune.errors import MissingError, UsageError
from edgeprune.progress import Progress

needs_apt = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("apt-get", "dpkg-deb", "gpg", "gpgv")), reason="needs apt, dpkg and gpg"
)


needs_qemu = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("qemu-aarch64", "gcc")), reason="needs QEMU and gcc"
)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Archive:
    """A Debian archive in a folder, with packages of one file each, signed by a key of its own."""

    def __init__(self, folder, names):
        self.folder, self._names = folder, names
        self._gpg = ["gpg", "--homedir", str(folder / "keys"), "--batch", "--quiet", "--yes", "--passphrase", ""]
        (folder / "keys").mkdir(mode=0o700)
        self._sign("--quick-generate-key", "test@localhost", "default", "sign")
        self._sign("--output", str(folder / "keyring.gpg"), "--export")
        for name in names:
            tree = folder / "trees" / name
            (tree / "DEBIAN").mkdir(parents=True)
            (tree / "DEBIAN/control").write_text(
                f"Package: {name}\nVersion: 1.0\nArchitecture: arm64\nMaintainer: nobody\nDescription: test\n"
            )
            (tree / name).write_text(name)
            subprocess.run(["dpkg-deb", "-b", tree, self.deb(name)], check=True, stdout=subprocess.DEVNULL)
        self.index()

    def deb(self, name):
        return self.folder / f"{name}_1.0_arm64.deb"

    def index(self):
        """Write and sign the index, as the archive is now."""
        index = self.folder / "dists/test/main/binary-arm64/Packages"
        index.parent.mkdir(parents=True, exist_ok=True)
        entries = [
            (self.folder / f"trees/{name}/DEBIAN/control").read_text()
            + f"Filename: {deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha256(deb)}\n"
            for name, deb in ((name, self.deb(name)) for name in self._names)
        ]
        index.write_text("\n".join(entries))
        release = self.folder / "dists/test/Release"
        listed = f" {sha256(index)} {index.stat().st_size} main/binary-arm64/Packages\n"
        release.write_text(
            "Codename: test\nSuite: test\nArchitectures: arm64\nComponents: main\n"
            f"Date: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n{listed}"
        )
        self._sign("--output", str(release.with_name("InRelease")), "--clearsign", str(release))

    def _sign(self, *words):
        subprocess.run([*self._gpg, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def debian(self):
        archives = (f"file:{self.folder} test main",)
        return Debian("Test", str(self.folder / "keyring.gpg"), archives, tuple(self._names))


@pytest.fixture
def archive(tmp_path):
    # Short, as gpg's agent listens on a socket below it.
    folder = tmp_path / "a"
    folder.mkdir()
    yield Archive(folder, ["one", "two"])
    for keys in tmp_path.glob("*/keys"):
        subprocess.run(["gpgconf", "--homedir", keys, "--kill", "gpg-agent"], check=False)


@needs_apt
def test_packages_are_fetched_once_and_then_need_no_archive(archive, tmp_path):
    """All packages arrive with the hashes of the signed index; a second call works with the archive gone."""
    there = tmp_path / "downloads"
    found = download.debs(archive.debian, there, Progress())
    assert {one.name: one.sha256 for one in found} == {name: sha256(archive.deb(name)) for name in ("one", "two")}
    assert all(sha256(there / one.file) == one.sha256 for one in found)
    archive.folder.rename(tmp_path / "gone")  # its agent may take its sockets away at any time
    assert download.debs(archive.debian, there, Progress()) == found


@needs_apt
def test_a_broken_download_goes_on_where_it_ended(archive, tmp_path):
    """What was downloaded whole is not fetched again; what is damaged on disk is."""
    there = tmp_path / "downloads"
    hidden = archive.deb("two").rename(tmp_path / "hidden")
    with pytest.raises(MissingError, match="run the same command again"):
        download.debs(archive.debian, there, Progress())
    kept = (there / archive.deb("one").name).stat().st_mtime_ns
    hidden.rename(archive.deb("two"))
    download.debs(archive.debian, there, Progress())
    assert (there / archive.deb("one").name).stat().st_mtime_ns == kept
    (there / archive.deb("one").name).write_bytes(b"damaged")
    found = download.debs(archive.debian, there, Progress())
    assert sha256(there / archive.deb("one").name) == found[0].sha256


@needs_apt
@pytest.mark.parametrize("tampered", ["package", "index"])
def test_what_was_tampered_with_is_refused(archive, tmp_path, tampered):
    """A package that is not the signed one, or an index that the key did not sign: exit code 3, and nothing stays."""
    if tampered == "package":
        content = archive.deb("one").read_bytes()
        archive.deb("one").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        index = archive.folder / "dists/test/main/binary-arm64/Packages"
        index.write_text(index.read_text().replace("test", "evil"))
    with pytest.raises(MissingError) as caught:
        download.debs(archive.debian, tmp_path / "downloads", Progress())
    assert caught.value.exit_code == 3
    assert not list((tmp_path / "downloads").glob("*.deb"))


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel for aarch64 in a folder that is pip's only source."""
    folder = tmp_path / "index"
    folder.mkdir()
    path = folder / "tinything-1.0-cp311-cp311-manylinux2014_aarch64.whl"
    metadata = {
        "tinything/__init__.py": "",
        "tinything-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinything\nVersion: 1.0\n",
        "tinything-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux2014_aarch64\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},\n"
        for name, text in metadata.items()
    )
    with zipfile.ZipFile(path, "w") as file:
        for name, text in {**metadata, "tinything-1.0.dist-info/RECORD": record}.items():
            file.writestr(name, text)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return Wheel("tinything", "1.0", "manylinux2014_aarch64", path.name, sha256(path)), path


def test_a_wheel_is_fetched_once(wheel, tmp_path):
    """pip brings the wheel of another architecture; with the file there, its source is not needed any more."""
    wanted, path = wheel
    download.wheel(wanted, tmp_path / "downloads")
    assert sha256(tmp_path / "downloads" / wanted.file) == wanted.sha256
    path.unlink()
    download.wheel(wanted, tmp_path / "downloads")


def test_a_wheel_with_another_hash_is_refused(wheel, tmp_path):
    """A file that does not have the pinned hash never takes its place in the downloads."""
    wanted, _ = wheel
    with pytest.raises(MissingError, match=r"(?i)hash"):
        download.wheel(dataclasses.replace(wanted, sha256="0" * 64), tmp_path / "downloads")
    assert not (tmp_path / "downloads" / wanted.file).exists()


def test_a_download_that_is_another_file_is_refused(tmp_path):
    """The hash is checked here as well, whatever the tool that downloads has checked."""
    wanted = download.File("x", "x.deb", "0" * 64)
    with pytest.raises(MissingError, match="has another SHA-256 than expected"):
        download._fetch(tmp_path, wanted, lambda there: (there / "x.deb").write_text("other") and None)
    assert not (tmp_path / "x.deb").exists()


def test_a_folder_is_whole_or_not_there(tmp_path):
    """Unpacking that breaks off leaves the old content; the same content is not unpacked twice."""
    folder, calls = tmp_path / "sysroot", []

    def fill(to, text="new"):
        calls.append(text)
        (to / "file").write_text(text)

    _unpack(folder, "1", fill)
    _unpack(folder, "1", fill)
    assert calls == ["new"]
    with pytest.raises(RuntimeError):
        _unpack(folder, "2", lambda to: (_ for _ in ()).throw(RuntimeError))
    assert (folder / "file").read_text() == "new"
    _unpack(folder, "2", lambda to: fill(to, "newer"))
    assert (folder / "file").read_text() == "newer"
    assert list(tmp_path.iterdir()) == [folder]


def test_the_error_names_the_line_for_apt(monkeypatch, tmp_path):
    """Without QEMU and gcc, the error has exit code 3 and the command that installs them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="sudo apt install qemu-user gcc libc6-dev") as caught:
        require_tools()
    assert caught.value.exit_code == 3


def test_what_is_not_set_up_is_said(tmp_path, monkeypatch):
    """A board that is not there, half there, or made of other parts is not ready."""
    home = Home(tmp_path)
    assert home.ready() is None
    home.ready_file.write_text('{"parts": "other"}')
    assert home.ready() is None
    home.ready_file.write_text("{")
    assert home.ready() is None
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "given"))
    assert cache_folder() == tmp_path / "given"
    monkeypatch.delenv("EDGEPRUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/edgeprune"


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    """A colon, which separates folders for Python, is an error that names the variable to set."""
    with pytest.raises(MissingError, match="EDGEPRUNE_CACHE"):
        Home(tmp_path / "a:b").require()


@needs_apt
@needs_qemu
@pytest.mark.parametrize("damage", representatives(["lost", "cut short", "changed"], "lost", "changed"))
def test_setup_repairs_a_damaged_board(archive, wheel, tmp_path, monkeypatch, damage):
    """A file that is gone, shorter, or different and so ends the start of a runtime: setup makes the board whole."""
    home = Home(tmp_path / "home", Parts(archive.debian, EmulatedCpu(1, "BogoMIPS\t: 1\n"), {"tinything": wheel[0]}))
    file = home.sysroot / "one"

    def start(home, runtime):
        if file.read_text() != "one":
            raise MissingError("it does not start")

    monkeypatch.setattr("edgeprune.devices.emulator_setup._try", start)
    document = setup(home)
    assert home.ready() == setup(home) == document
    assert (home.sysroot / "proc/cpuinfo").read_text() == "processor\t: 0\nBogoMIPS\t: 1\n\n"
    if damage == "lost":
        file.unlink()
    else:
        file.write_text("o" if damage == "cut short" else "two")
    if damage != "changed":
        with pytest.raises(MissingError, match=r"(?s)is damaged.*edgeprune emulator setup"):
            home.require()
    setup(home)
    assert file.read_text() == "one"
    assert home.ready()


def test_a_release_is_added_without_building_anew(wheel, tmp_path, monkeypatch):
    """A runtime that was not there is named with the command that adds it; it is no part of what other boards are."""
    parts = default_parts()
    mine = dataclasses.replace(parts, others=(wheel[0],))
    assert mine.digest == parts.digest
    home, started = Home(tmp_path / "home", mine), []
    with pytest.raises(MissingError, match=r'emulator setup --runtime "tinything 1\.0"'):
        home.require_runtime("tinything 1.0")
    monkeypatch.setattr("edgeprune.devices.emulator_setup._try", lambda home, runtime: started.append(runtime))
    add_runtime(home, "tinything 1.0")
    home.require_runtime("tinything 1.0")
    assert started == ["tinything 1.0"]
    assert (home.wheels / "tinything-1.0/tinything/__init__.py").is_file()
    with pytest.raises(UsageError, match="no runtime 'tinything 2"):
        add_runtime(home, "tinything 2.0")


def test_another_processor_is_another_board():
    """What a program finds about the processor decides about kernels, and so belongs to what the board is made of."""
    parts = default_parts()
    other = dataclasses.replace(parts, cpu=dataclasses.replace(parts.cpu, cores=2))
    assert other.digest != parts.digest
    assert "CPU part\t: 0xd08" in parts.cpu.info


def test_every_wheel_is_pinned():
    """Wheels are named by version and SHA-256, for aarch64 and Python 3.11, and the file name agrees."""
    parts = default_parts()
    assert set(parts.wheels) == {"numpy", "ai-edge-litert", "tflite-runtime"}
    assert len(parts.others) >= 2
    for name, wheel in [*parts.wheels.items(), *((one.name, one) for one in parts.others)]:
        assert re.fullmatch("[0-9a-f]{64}", wheel.sha256)
        assert wheel.file.startswith(f"{name.replace('-', '_')}-{wheel.version}-cp311-")
        assert wheel.platform in wheel.file
    assert "libc6" in parts.debian.packages


@needs_qemu
@pytest.mark.parametrize("ready", [True, False])
def test_doctor_shows_the_state(tmp_path, monkeypatch, ready):
    """The doctor says where the board is and with which QEMU, or how to set it up."""
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    if ready:
        monkeypatch.setattr(Home, "ready", lambda home: {"qemu": "0.0"})
    lines = CliRunner().invoke(doctor).output.splitlines()
    (line,) = [line.strip() for line in lines if "emulated" in line]
    if ready:
        assert re.fullmatch(rf"ok +emulated Raspberry Pi, QEMU [1-9][\d.]+: {tmp_path}/emulator", line)
    else:
        assert re.match(r"missing .*edgeprune emulator setup", line)


@needs_qemu
@pytest.mark.parametrize("name", ["cache", "a,b=c d"])
def test_the_plugin_compiles_once(tmp_path, name):
    """The plugin is a shared library that QEMU can load, wherever it is; it is not compiled again."""
    home = Home(tmp_path / name)
    built = home.plugin()
    assert built.read_bytes()[:4] == b"\x7fELF"
    stamp = built.stat().st_mtime_ns
    assert home.plugin() == built
    assert built.stat().st_mtime_ns == stamp
    command = home.command("ai-edge-litert", [], os.devnull)
    option = command[command.index("-plugin") + 1]
    loaded = subprocess.run(
        ["qemu-aarch64", "-plugin", option, "/nowhere"], capture_output=True, text=True, check=False
    )
    assert "plugin" not in loaded.stderr.lower()
