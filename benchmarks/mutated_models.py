"""Load damaged and hostile model files: each is a model or one message, in bounded memory and time.

python benchmarks/mutated_models.py --count 2000 --seed 0 [--keep FOLDER] [--tflite FOLDER] [--log FILE]

Small models of Keras 2 and 3 are saved in every format and mutated: cut, overwritten, their members swapped or removed,
values of their descriptions replaced, links and claims put into their HDF5 files, operators into their functions. A
child process that stays warm loads one after the other. A failure is: anything else than a model or an EdgepruneError
with exit code 2 and one message; a signal; more than GROWTH of memory or LIMIT seconds; a weight out of a file that
lies beside the model; and any file that appears in the working folder or among the temporary ones.

With --tflite, the .tflite files of a folder are mutated instead, those below half a megabyte: in their bytes, and in
their tables (``tflite_mutations.py``). With --log, what became of each file is a line there, and a run that ended
early goes on where it was.
"""

import argparse
import collections
import functools
import gc
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tflite_mutations import TABLES

GROWTH_BYTES = 3 << 29  # the largest tensors of a .tflite are compared in two processes
LIMIT_S = 120
LOADS_PER_CHILD = 400
CANARY = 12345.678
ROOT = Path(__file__).parents[1]


# --- the child ---------------------------------------------------------------------------------------------------


def serve() -> None:
    """Load the paths that come line by line on standard input; answer each with a line of JSON."""
    from edgeprune._tensorflow import import_tf
    from edgeprune.errors import EdgepruneError
    from edgeprune.models import load_model

    import_tf()
    import keras
    import tf_keras

    gc.freeze()  # what is imported need not be looked through after each file
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        before = _reset_peak()
        try:
            model = load_model(line.strip())
            stolen = any(np.any(np.isclose(np.float64(weight), CANARY)) for weight in model.get_weights())
            answer = {"kind": "stolen" if stolen else "loaded"}
        except EdgepruneError as error:
            text = str(error)
            fine = error.exit_code == 2 and error.expected and "Traceback" not in text and len(text) < 3000
            answer = {"kind": "refused" if fine else "bad message", "text": error.what[:400], "fix": error.fix}
        except BaseException as error:
            answer = {"kind": "raised", "text": f"{type(error).__name__}: {str(error)[:400]}"}
            import traceback

            answer["fix"] = traceback.format_exc()[-1500:]
        print(json.dumps({**answer, "growth": _peak() - before}), file=answers, flush=True)
        model = None
        tf_keras.backend.clear_session()
        keras.backend.clear_session()


def _reset_peak() -> int:
    """Let the kernel count the peak of resident memory from now on; returns what is resident."""
    for process in _processes():
        Path(f"/proc/{process}/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Of this process and its own children, in one of which an interpreter runs the file."""
    rows = [row for process in _processes() for row in Path(f"/proc/{process}/status").read_text().splitlines()]
    return sum(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmHWM"))


def _processes() -> list[str]:
    return ["self", *(pid for part in Path("/proc/self/task").glob("*/children") for pid in part.read_text().split())]


class Child:
    """The loading process, started anew when it ended."""

    def __init__(self, cwd: Path, temporary: Path):
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            cwd=cwd, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.loads = 0
        self.lines.get(timeout=300)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def load(self, path: Path) -> dict:
        self.loads += 1
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        try:
            line = self.lines.get(timeout=LIMIT_S)
        except queue.Empty:
            self.end()
            return {"kind": "time", "growth": 0}
        if line:
            return json.loads(line)
        return {"kind": f"ended with {self.process.wait()}", "growth": 0}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


# --- the models --------------------------------------------------------------------------------------------------


def makers(folder: Path) -> dict[Path, Callable[[], None]]:
    """Small models of both Kerases, each in every format that its Keras writes: path → what writes it there."""
    from edgeprune._tensorflow import import_tf

    import_tf()
    import keras
    import tf_keras

    found = {}
    for name, kind in (("two", tf_keras), ("three", keras)):
        for form in ("h5", "keras", *(["folder"] if kind is tf_keras else [])):
            for make in (_convolutional, _recurrent, _nested):
                path = folder / f"{name}_{make.__name__[1:]}{'' if form == 'folder' else '.' + form}"
                found[path] = functools.partial(_write, make, kind, path)
    return found


def _write(make: Callable[[Any], Any], kind: Any, path: Path) -> None:
    kind.backend.clear_session()  # layers have the same names whatever was made before
    make(kind).save(path)


def _convolutional(kind):
    layers = kind.layers
    inputs = kind.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(inputs))
    x = layers.Add()([layers.ReLU()(x), layers.DepthwiseConv2D(3, padding="same")(x)])
    model = kind.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def _recurrent(kind):
    layers = kind.layers
    inputs = kind.Input((6,))
    x = layers.Bidirectional(layers.LSTM(3))(layers.Embedding(7, 4)(inputs))
    return kind.Model(inputs, layers.Dense(1, kernel_regularizer="l2")(x))


def _nested(kind):
    layers = kind.layers
    inner = kind.Sequential([kind.Input((4,)), layers.Dense(4, activation="relu"), layers.LayerNormalization()])
    inputs = {"a": kind.Input((4,), name="a"), "b": kind.Input((4,), name="b")}
    x = layers.Concatenate()([inner(inputs["a"]), inner(inputs["b"])])
    return kind.Model(inputs, [layers.Dense(2)(x), layers.Dropout(0.5)(x)])


# --- bytes -------------------------------------------------------------------------------------------------------


def _bytes_of(change):
    """A mutation of one file's bytes, as a mutation of a model: in a folder, of one of its files."""

    def mutate(path: Path, draw: random.Random) -> None:
        files = [path] if path.is_file() else sorted(part for part in path.rglob("*") if part.is_file())
        file = draw.choice([part for part in files if part.stat().st_size > 8] or files)
        file.write_bytes(change(bytearray(file.read_bytes()), draw))

    mutate.__name__ = change.__name__
    return mutate


def cut(content: bytearray, draw: random.Random) -> bytearray:
    return content[: draw.randrange(1, len(content))]


def flip_bits(content: bytearray, draw: random.Random) -> bytearray:
    for _ in range(draw.choice([1, 1, 2, 5, 50])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return content


def flip_structure(content: bytearray, draw: random.Random) -> bytearray:
    """As above, at the start and the end, where formats have their structure."""
    reach = min(len(content), 2048)
    for _ in range(draw.choice([1, 2, 5])):
        at = draw.randrange(reach)
        content[at if draw.random() < 0.5 else len(content) - 1 - at] ^= 1 << draw.randrange(8)
    return content


def overwrite(content: bytearray, draw: random.Random) -> bytearray:
    at, length = draw.randrange(len(content)), draw.choice([1, 4, 8, 64, 1000])
    length = min(length, len(content) - at)
    content[at : at + length] = draw.choice([bytes(length), b"\xff" * length, draw.randbytes(length)])
    return content


def move(content: bytearray, draw: random.Random) -> bytearray:
    at, length, to = draw.randrange(len(content)), draw.choice([8, 64, 1000]), draw.randrange(len(content))
    content[to:to] = content[at : at + length]
    return content


def number(content: bytearray, draw: random.Random) -> bytearray:
    """Another value for a number, which may be a size, an index, an offset or an option."""
    for _ in range(draw.choice([1, 1, 2, 4])):
        at = draw.randrange(len(content) // 4) * 4
        value = draw.choice([0, 1, 2, 3, -1, 255, 1 << 20, 2**31 - 1, draw.randrange(64), draw.randrange(1 << 16)])
        content[at : at + 4] = value.to_bytes(4, "little", signed=True)
    return content


# --- descriptions ------------------------------------------------------------------------------------------------

HOSTILE = (
    *(0, 1, -1, 7, 10**6, 10**9, 10**12, 2**31, 2**63, 10**30, 0.5, -1e300, float("nan"), float("inf")),
    *(True, None, "", "x", "relu", "../../etc/passwd", "a" * 5000, "\0", [], {}, [[]], [1, 2, 3], [10**9] * 3),
    {"class_name": "function", "config": "system", "module": "os", "registered_name": "system"},
    {"class_name": "Popen", "config": {"args": "touch x"}, "module": "subprocess", "registered_name": "Popen"},
    {"class_name": "get_file", "config": {"origin": "x"}, "module": "keras.utils", "registered_name": None},
    {"class_name": "__lambda__", "config": {"value": "4wEAAAAA", "defaults": None, "closure": None}},
    {"class_name": "Lambda", "config": {"name": "l", "function": ["4wEAAAAA", None, None]}, "module": "keras.layers"},
    {"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}, "module": "keras.layers"},
    {"class_name": "__tensor__", "config": {"value": [1], "dtype": "resource"}},
    {"class_name": "__typespec__", "spec_name": "x", "module": "os", "registered_name": "x", "config": []},
    {"class_name": "Dense", "config": {"units": 10**9, "name": "d"}, "module": "keras.layers", "registered_name": None},
)


def _places(value, found):
    """Every (container, key) of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        _places(inner, found)
    return found


def edit_json(text: str | bytes, draw: random.Random) -> str:
    document = json.loads(text)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        places = _places(document, [])
        if not places:
            break
        box, key = draw.choice(places)
        action = draw.random()
        if action < 0.7:
            box[key] = draw.choice(HOSTILE)
        elif action < 0.85:
            del box[key]
        else:
            other, where = draw.choice(places)
            box[key] = (
                json.loads(json.dumps(other[where]))
                if where in (other if isinstance(other, dict) else range(len(other)))
                else 0
            )
    return json.dumps(document)


def description(path: Path, draw: random.Random) -> None:
    """Values of the architecture are replaced, left out or swapped."""
    if path.is_dir():
        _edit_metadata(path / "keras_metadata.pb", draw)
    elif path.suffix == ".keras":
        members = _members(path)
        members["config.json"] = edit_json(members["config.json"], draw).encode()
        _write_zip(path, members)
    else:
        with h5py.File(path, "r+") as file:
            _set_text(file, draw.choice(["model_config"] * 4 + ["training_config"]), draw)


def _set_text(file, key, draw):
    if key in file.attrs:
        text = edit_json(file.attrs[key], draw)
        del file.attrs[key]
        file.attrs[key] = text


def _edit_metadata(path, draw):
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

    metadata = SavedMetadata.FromString(path.read_bytes())
    node = metadata.nodes[0] if draw.random() < 0.8 else draw.choice(metadata.nodes)
    node.metadata = edit_json(node.metadata, draw)
    path.write_bytes(metadata.SerializeToString())


def broken_text(path: Path, draw: random.Random) -> None:
    """Text that is no JSON, or JSON of an extreme form."""
    text = draw.choice([
        "[" * 100_000, '{"a":' * 50_000, "1" * 10_000, '{"class_name": "Functional", "config": {}, "config": {}}',
        _LAYERS % ",".join(["[]"] * 100_000), _LAYERS % ",".join([_LAYER] * 20_000), " " * (40 << 20), "\udcff",
        "NaN", '"text"', "[]", '{"class_name": 3, "config": []}',
    ]).encode("utf-8", "surrogateescape")  # fmt: skip
    if path.is_dir():
        from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

        metadata = SavedMetadata.FromString((path / "keras_metadata.pb").read_bytes())
        metadata.nodes[0].metadata = text.decode(errors="replace")
        (path / "keras_metadata.pb").write_bytes(metadata.SerializeToString())
    elif path.suffix == ".keras":
        members = _members(path)
        members[draw.choice(["config.json", "config.json", "metadata.json"])] = text
        _write_zip(path, members)
    else:
        with h5py.File(path, "r+") as file:
            del file.attrs["model_config"]
            file.attrs["model_config"] = np.bytes_(text) if len(text) < 60_000 else text.decode(errors="replace")


_LAYERS = '{"class_name": "Sequential", "config": {"name": "s", "layers": [%s]}}'
_LAYER = '{"class_name": "ReLU", "config": {"name": "r"}, "module": "keras.layers", "registered_name": null}'


# --- archives ----------------------------------------------------------------------------------------------------


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def members(path: Path, draw: random.Random) -> None:
    """Members are swapped, left out, doubled, renamed, put elsewhere, or bombs."""
    if path.is_dir():
        return _files(path, draw)
    if path.suffix != ".keras":
        return links(path, draw)
    content = _members(path)
    name, other = draw.choice(sorted(content)), draw.choice(sorted(content))
    kind = draw.choice(
        ["swap", "remove", "double", "outside", "link", "bomb", "weights bomb", "many", "asset", "nested"]
    )
    if kind == "swap":
        content[name], content[other] = content[other], content[name]
    elif kind == "remove":
        del content[name]
    elif kind == "bomb":
        content[name] = content[name] + b" " * draw.choice([10**6, 10**8, 3 * 10**8])
    elif kind == "weights bomb":
        content["model.weights.h5"] = content.get("model.weights.h5", b"") + bytes(draw.choice([10**6, 10**8]))
    elif kind == "many":
        content |= {f"assets/{number}": b"" for number in range(draw.choice([100, 20_000]))}
    elif kind == "asset":
        content[draw.choice(["assets/layers/x/vocabulary.txt", "other/x", "assets"])] = b"canary"
    elif kind == "nested":
        content["inner.keras"] = path.read_bytes()
    _write_zip(path, content)
    if kind in ("double", "outside", "link"):
        with zipfile.ZipFile(path, "a") as archive:
            outside = ["../escaped", "/tmp/escaped", "assets/../../escaped", "..\\escaped", "C:\\escaped"]
            info = zipfile.ZipInfo({"double": name, "link": "assets/link"}.get(kind) or draw.choice(outside))
            info.external_attr = (0o120777 << 16) if kind == "link" else 0o600 << 16
            archive.writestr(info, b"/etc/passwd")


def _files(path: Path, draw: random.Random) -> None:
    files = sorted(part for part in path.rglob("*") if part.is_file())
    one, other = draw.choice(files), draw.choice(files)
    kind = draw.choice(["swap", "remove", "link", "empty", "operator", "operator"])
    if kind == "swap":
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
    elif kind == "operator":
        _operator(path, draw)
    else:
        one.unlink()
        if kind == "link":
            one.symlink_to(path.parent / "canary.bin")
        elif kind == "empty":
            one.touch()


def _operator(path: Path, draw: random.Random) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    function = draw.choice(model.meta_graphs[0].graph_def.library.function)
    node = function.node_def.add()
    node.name, node.op = "extra", draw.choice(["ReadFile", "WriteFile", "PyFunc", "EagerPyFunc", "TextLineDataset"])
    (path / "saved_model.pb").write_bytes(model.SerializeToString())


# --- HDF5 --------------------------------------------------------------------------------------------------------


def links(path: Path, draw: random.Random) -> None:
    """Links, references and claims in an HDF5 file, or in the one within an archive."""
    if path.is_dir():
        return _files(path, draw)
    if path.suffix == ".keras":
        content = _members(path)
        inner = path.with_name("inner.h5")
        inner.write_bytes(content["model.weights.h5"])
        _link(inner, path.parent, draw)
        content["model.weights.h5"] = inner.read_bytes()
        inner.unlink()
        return _write_zip(path, content, draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    return _link(path, path.parent, draw)


def _link(path: Path, folder: Path, draw: random.Random) -> None:
    outside, raw = str(folder / "canary.h5"), str(folder / "canary.bin")
    with h5py.File(path, "r+") as file:
        found = []
        file.visititems(lambda name, item: found.append(name))
        datasets = [name for name in found if isinstance(file[name], h5py.Dataset)]
        groups = [name for name in found if isinstance(file[name], h5py.Group)]
        name = draw.choice(datasets)
        shape, dtype = file[name].shape, file[name].dtype
        numbers = max(1, int(np.prod(shape)))
        kind = draw.choice(_KINDS)
        if kind == "cycle":
            file[f"{draw.choice(groups)}/cycle"] = file[draw.choice(["/", *groups])]
            return
        if kind == "group":
            name = draw.choice(groups)
        if kind == "name":
            file[name].attrs[draw.choice(["a" * 200, "weight_names", "dtype"])] = draw.choice([3, "x" * 10_000, b"y"])
            return
        if kind == "listed":
            owner = draw.choice([n for n in groups if "weight_names" in file[n].attrs] or groups)
            file[owner].attrs["weight_names"] = [b"/" + name.encode()] * draw.choice([1, 2, 3000])
            return
        del file[name]
        if kind in ("external", "group"):
            file[name] = h5py.ExternalLink(outside, "/values" if kind == "external" else "/")
        elif kind == "soft":
            file["out"] = h5py.ExternalLink(outside, "/values")
            file[name] = h5py.SoftLink("/out")
        elif kind == "dangling":
            file[name] = h5py.SoftLink("/nowhere")
        elif kind == "storage":
            file.create_dataset(name, shape, dtype, external=[(raw, 0, numbers * dtype.itemsize)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((numbers,), dtype)
            layout[:] = (
                h5py.VirtualSource(outside, "values", (1000,))[:numbers]
                if numbers <= 1000
                else h5py.VirtualSource(".", "x", (numbers,))
            )
            file.create_virtual_dataset(name, layout)
        elif kind == "huge":
            side = draw.choice([10**5, 10**9, 10**15])
            file.create_dataset(
                name, (side, *shape[1:]), dtype, chunks=(16, *shape[1:]) if shape else None, fillvalue=CANARY
            )
        elif kind == "chunk":
            file.create_dataset(
                name, shape or (1,), dtype, chunks=(2**24, *(shape or (1,))[1:]), maxshape=(None, *(shape or (1,))[1:])
            )
        elif kind == "bomb":
            file.create_dataset(name, data=np.zeros(10**7, "f4"), compression="gzip", chunks=(10**7,))
        elif kind == "chunk bomb":
            import zlib

            made = file.create_dataset(name, (64,), "f4", compression="gzip", chunks=(64,))
            made.id.write_direct_chunk((0,), zlib.compress(bytes(draw.choice([10**7, 10**9])), 9))
        elif kind == "reference":
            file.create_dataset(name, data=[file.ref] * numbers, dtype=h5py.ref_dtype)
        elif kind == "text":
            file.create_dataset(name, data=["x" * 1000] * numbers)
        elif kind == "type":
            file.create_dataset(
                name, shape, draw.choice(["i1", "f8", "S3", "c8", "?", "V4", [("a", "f4"), ("b", "i8")]])
            )
        elif kind == "compressed":
            file.create_dataset(
                name, shape or (1,), dtype, compression=draw.choice(["gzip", "lzf"]), shuffle=True, fletcher32=True
            )
        elif kind == "deep":
            file["/".join([name.rpartition("/")[0], *["d"] * draw.choice([10, 300])])] = 0.0
        elif kind == "many":
            for number in range(draw.choice([10, 3000])):
                file.create_group(f"many/{number}")


_KINDS = (
    *("external", "external", "group", "soft", "dangling", "storage", "storage", "virtual", "virtual", "huge", "chunk"),
    *("bomb", "chunk bomb", "cycle", "reference", "text", "type", "compressed", "deep", "many", "name", "listed"),
)

BYTES = tuple(map(_bytes_of, (cut, flip_bits, flip_bits, flip_structure, flip_structure, overwrite, overwrite, move)))
OF_TFLITE = (*BYTES, *[_bytes_of(number)] * 4, *TABLES, *TABLES)
TFLITE_BYTES = 500_000
MUTATIONS = (
    *BYTES,
    *(description, description, description, description, broken_text, members, members, links, links),
)


# --- the runs ----------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where files that fail are kept")
    parser.add_argument("--tflite", type=Path, help="a folder of .tflite files to mutate")
    parser.add_argument("--log", type=Path, help="a line per file; what it has already is not done again")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    with tempfile.TemporaryDirectory() as folder:
        failures = run(Path(folder), options.count, options.seed, options.keep, options.tflite, options.log)
    sys.exit(1 if failures else 0)


def run(
    folder: Path, count: int, seed: int, keep: Path | None, tflite: Path | None = None, log: Path | None = None
) -> int:
    """Mutate and load ``count`` files; prints what happened, and returns the number of failures."""
    made, work, cwd, temporary = (folder / name for name in ("made", "work", "cwd", "temporary"))
    for part in (made, work, cwd, temporary):
        part.mkdir()
    files = sorted(tflite.glob("*.tflite")) if tflite else []
    small = [file for file in files if file.stat().st_size < TFLITE_BYTES]
    writers = {} if small else makers(made)
    models = small or list(writers)
    mutations = OF_TFLITE if tflite else MUTATIONS
    with h5py.File(work / "canary.h5", "w") as file:
        file["values"] = np.full(1000, CANARY, "f4")
    (work / "canary.bin").write_bytes(np.full(10_000, CANARY, "f4").tobytes())
    record = Record(log)
    child, first = None, seed * 1_000_000
    for number in range(first, first + count):
        if number in record.done:
            continue
        draw = random.Random(number)
        source, mutation = draw.choice(models), draw.choice(mutations)
        if not source.exists():  # most of a short run would be the writing of models that it does not mutate
            writers[source]()
        what = {"number": number, "source": source.name, "mutation": mutation.__name__}
        path = work / f"model{source.suffix}"
        (shutil.copytree if source.is_dir() else shutil.copy)(source, path)
        try:
            mutation(path, draw)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            record.add({**what, "kind": "could not be mutated", "text": str(error)})
            _remove(path)
            continue
        if child is None or child.loads >= LOADS_PER_CHILD or child.process.poll() is not None:
            if child is not None:
                child.end()
            child = Child(cwd, temporary)
        start = time.monotonic()
        answer = child.load(path)
        left = [
            *cwd.iterdir(),
            *(p for p in temporary.iterdir() if not p.name.startswith(_TENSORFLOWS)),
            *(p for p in work.iterdir() if p.name not in _KNOWN | {path.name}),
        ]
        if answer["growth"] > GROWTH_BYTES:
            answer["kind"] = f"memory ({answer['kind']})"
        if left:
            answer["kind"] = f"files left ({answer['kind']})"
        record.add({**what, **answer, "seconds": round(time.monotonic() - start, 2)}, path)
        if keep and answer["kind"] not in FINE:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.move(path, keep / f"{number}{path.suffix}")
        for extra in left:
            _remove(extra)
        _remove(path)
    if child is not None:
        child.end()
    return record.summary()


FINE = ("loaded", "refused", "could not be mutated")


class Record:
    """What became of each file, on the screen and in a file that an earlier run may have begun."""

    def __init__(self, log: Path | None):
        self.rows = [json.loads(line) for line in log.read_text().splitlines()] if log and log.exists() else []
        self.done = {row["number"] for row in self.rows}
        self.log = log.open("a") if log else None

    def add(self, row: dict, path: Path | None = None) -> None:
        if path:
            row["text"] = row.get("text", "").replace(str(path), "PATH")
        self.rows.append(row)
        if self.log:
            print(json.dumps(row), file=self.log, flush=True)
        if row["kind"] not in FINE:
            print(f"{row['number']}: {row['source']}, {row['mutation']}: {row['kind']}: {row.get('text')} "
                  f"({row['growth'] / 1e6:.0f} MB)\n{row.get('fix')}", flush=True)  # fmt: skip
        if len(self.rows) % 100 == 0:
            print(f"{row['number']}: {self.kinds()}", file=sys.stderr, flush=True)

    def kinds(self) -> dict[str, int]:
        return dict(collections.Counter(row["kind"] for row in self.rows))

    def summary(self) -> int:
        """Print what was seen; returns the number of failures."""
        messages = collections.Counter(_general(row["text"]) for row in self.rows if row["kind"] == "refused")
        for message, times in messages.most_common(80):
            print(f"{times:6} {message}")
        growth, seconds = ([row.get(name, 0) for row in self.rows] or [0] for name in ("growth", "seconds"))
        print(f"{self.kinds()}; most memory {max(growth) / 1e6:.0f} MB, slowest {max(seconds):.1f} s, "
              f"{sum(seconds):.0f} s in all")  # fmt: skip
        return sum(row["kind"] not in FINE for row in self.rows)


_TENSORFLOWS = "__autograph_generated_file"  # until its process ends
_KNOWN = {"canary.h5", "canary.bin"}


def _general(text: str) -> str:
    """A message without what differs from file to file."""
    import re

    return re.sub(r"'[^']*'|[\d,.]*\d", "…", text)[:110]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
