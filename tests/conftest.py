"""Fixtures that several parts share."""

import configparser
import gc
import hashlib
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import filelock
import pytest

from edgeprune.searching.executors import thread_environment

pytest_plugins = ["artifacts", "micro_files"]  # tests/support

SHARED = Path(__file__).parents[2] / "shared"
# Files of few tests that take most of a minute or more: first, so that no worker is left alone with one in the end.
LONG = (
    "test_build", "test_emulator.py", "test_search", "test_supervisor.py", "test_explain.py", "test_compiled_costs.py",
    "test_round_trip.py", "test_replicas.py", "test_machines.py", "test_figures.py",
)  # fmt: skip


# Workers share the processors, as trials of a search do: more threads than those only wait for each other. Set before
# NumPy and TensorFlow are imported; processes that tests start inherit it.
os.environ.update(thread_environment(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
# Modules are compiled once, and not by every process that a test starts, wherever the environment is set up otherwise.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_configure(config):
    config.option.loadscopereorder = False  # xdist would begin with the files of most tests, which are short


def pytest_collection_modifyitems(items):
    # Before all others the file that trains the demo for everyone: later, both workers would wait for it.
    items.sort(key=lambda item: (item.path.name != "test_build.py", not item.path.name.startswith(LONG)))


@pytest.fixture(scope="session")
def emulated_board():
    """Skip where `edgeprune emulator setup` was not run; fail there with EDGEPRUNE_REQUIRE_EMULATOR=1."""
    from edgeprune.devices.emulator_home import Home

    _need(Home().require)


@pytest.fixture
def emulated_runtime(emulated_board, request):
    """The runtime of the emulated board that is the test's parameter; where it is not there, as ``emulated_board``."""
    from edgeprune.devices.emulator_home import Home

    _need(lambda: Home().require_runtime(request.param))
    return request.param


def _need(require):
    from edgeprune.errors import MissingError

    try:
        require()
    except MissingError as error:
        # Where the board must be there, a skip would hide that it is not.
        if os.environ.get("EDGEPRUNE_REQUIRE_EMULATOR") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def quiet_tensorflow():
    """Import TensorFlow the way the commands do, so that test output stays readable."""
    from edgeprune._tensorflow import import_tf

    import_tf()
    # A tenth of the time of tests went into looking for garbage among the million objects of TensorFlow and the tests.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def models_that_are_read_stay_as_they_are(quiet_tensorflow):
    """Whoever reads a model (`BuildContext.read`), in any test, gets it with the weights of its file."""
    from edgeprune.context import BuildContext

    read, digests = BuildContext.read, weakref.WeakKeyDictionary()

    def checked(self, artifact, role="model"):
        model = read(self, artifact, role)
        digest = hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()
        assert digests.setdefault(model, digest) == digest, f"{artifact.files[role]} was changed by who should read it"
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BuildContext, "read", checked)
        yield


@pytest.fixture(scope="session")
def shared():
    """The folder of real models and data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs the real models and data in ../shared")
    return SHARED


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory):
    """A folder that the workers of this run share."""
    root = tmp_path_factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


@pytest.fixture(scope="session")
def once(of_all_workers):
    """A function that has a folder made once for all workers: ``once(name, make)``, where ``make`` fills the folder.

    Whoever asks second waits, and gets the same files: nobody may change them.
    """
    root = of_all_workers

    def made(name, make):
        folder, part = root / name, root / f"{name}.part"
        with filelock.FileLock(root / f"{name}.lock"):
            if not folder.exists():
                shutil.rmtree(part, ignore_errors=True)  # of a worker that failed
                part.mkdir()
                make(part)
                part.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def mypy(of_all_workers):
    """A function that has mypy check the files of a folder as a user's, with lines of settings for all of them.

    Edgeprune itself has the settings of `make lint`, so that what mypy has learned there, which takes most of its time,
    is kept for here.
    """
    root = Path(__file__).parents[1]
    project = configparser.ConfigParser()
    project.read(root / "setup.cfg", "utf-8")
    ours = [f"{key} = {value}" for key, value in project["mypy"].items() if key != "files"]
    users = ["disallow_untyped_defs = False", "disallow_any_generics = False"]

    def check(folder, *settings):
        modules = ",".join(sorted(file.stem for file in folder.glob("*.py")))
        lines = ["[mypy]", *ours, f"[mypy-{modules}]", *users, *settings]
        (folder / "mypy.ini").write_text("\n".join(lines))
        command = [sys.executable, "-m", "mypy", "--cache-dir", root / ".mypy_cache", "--config-file", "mypy.ini", "."]
        with filelock.FileLock(of_all_workers / "mypy.lock"):
            return subprocess.run(
                command, cwd=folder, env={"MYPYPATH": str(root)}, capture_output=True, text=True, timeout=300
            )

    return check


@pytest.fixture(scope="session")
def begin_demo(once):
    """A function that lets a build of the demo for rpi4 begin where its model is trained and measured.

    All workers share one such build; seed 0, not deterministic. Its int8 file is that of ``quick.INT8``.
    """
    import quick

    import edgeprune

    folder = once("demo-for-all", lambda part: edgeprune.build(None, target="rpi4", recipe=quick.INT8, out=part))

    def begin(out):
        shutil.copytree(folder / "stages", Path(out) / "stages")

    return begin


@pytest.fixture(scope="session")
def tiny_model():
    """A residual CNN of 16x16x1 with batch normalization, trained for one epoch on the demo's digits."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    inputs = layers.Input([16, 16, 1])
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv2d")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv2d_1")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    x = layers.Add()([x, y])
    x = layers.Dense(10, activation="softmax", name="dense")(layers.Flatten()(x))
    model = tf_keras.Model(inputs, x, name="tiny")
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(digits(model).train.batches(32, shuffle_seed=0), epochs=1, verbose=0)
    return model


@pytest.fixture(scope="session")
def tiny_data(tiny_model):
    return digits(tiny_model)


def digits(model):
    from edgeprune.data import InputSpec, load_data
    from edgeprune.recipe.config import DataConfig

    return load_data("demo", DataConfig(scale=1 / 255), InputSpec.of(model), seed=0)
