"""TensorFlow is imported late and quietly."""

import os
import subprocess
import sys

import pytest

SESSION = """
from edgeprune._tensorflow import import_tf
tf = import_tf()
import numpy as np, tf_keras
model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
model.compile("adam", "mse")
model.fit(np.zeros((4, 3)), np.zeros((4, 2)), verbose=0)
tf.lite.TFLiteConverter.from_keras_model(model).convert()
import tensorflow_model_optimization as tfmot
tfmot.sparsity.keras.prune_low_magnitude(model)
assert tf.keras.Model is tf_keras.Model
import keras
assert keras.__version__.startswith("3.")
assert keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])(np.zeros((1, 3))).shape == (1, 2)
"""


def _python(code, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run([sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True)


def test_a_normal_session_is_silent():
    """Training, pruning with tfmot, converting, and using Keras 3 beside it leave nothing on standard error."""
    run = _python(SESSION)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.slow
def test_a_log_level_that_the_user_chose_is_kept():
    """With TF_CPP_MIN_LOG_LEVEL=0, TensorFlow says what it has to say."""
    run = _python("from edgeprune._tensorflow import import_tf; import_tf()", TF_CPP_MIN_LOG_LEVEL="0")
    assert run.returncode == 0
    assert run.stderr


def test_errors_while_importing_are_not_swallowed():
    """What is no known chatter on standard error during the import comes through, native writes included."""
    code = (
        "import os; from edgeprune import _tensorflow, chatter\n"
        "with chatter.without_lines(_tensorflow._CHATTER):\n"
        "    os.write(2, b'I0000 00:00:1 x.cc:1] chatter\\nImportError: libfoo.so\\n')"
    )
    assert _python(code).stderr == "ImportError: libfoo.so\n"


def test_importing_the_package_does_not_import_tensorflow():
    """Importing edgeprune.models, and hashing or refusing a file, costs no TensorFlow."""
    code = (
        "import sys, edgeprune.models as m\n"
        "try: m.load_model('/nonexistent.keras')\n"
        "except Exception as error: assert type(error).__name__ == 'ModelError', error\n"
        "assert not {'tensorflow', 'tf_keras', 'keras', 'h5py'} & set(sys.modules)"
    )
    run = _python(code)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.slow  # a session of the same imports is above
def test_a_build_from_python_imports_tensorflow_as_a_command_does(tmp_path):
    """edgeprune.build is as silent as `edgeprune build`, with the same kernels and the same Keras: for a model of
    Keras 2 not Keras 3, which takes seconds to import."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy", "AUC"])
    model.save(tmp_path / "model.keras")
    (tmp_path / "own.py").write_text("def data(): raise LookupError('the model is open')")
    code = (
        "import os, sys, edgeprune\n"
        "try: edgeprune.build('model.keras', data='own.py:data', recipe='float', out='run')\n"
        "except edgeprune.EdgepruneError as error: assert 'the model is open' in str(error), error\n"
        "assert 'tensorflow' in sys.modules\n"
        "assert 'keras' not in sys.modules\n"
        "assert os.environ['TF_ENABLE_ONEDNN_OPTS'] == os.environ['TF_USE_LEGACY_KERAS'] == '1'"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
