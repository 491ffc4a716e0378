"""SavedModels from strangers: operators beyond computing are refused, and damage reaches no reader of TensorFlow."""

import contextlib
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import ModelError
from edgeprune.models import load_model
from edgeprune.models.bundle import check_bundle
from edgeprune.models.saved_model import what_it_does


@pytest.fixture(scope="module")
def saved(cnn, write, tmp_path_factory):
    return write(cnn, tmp_path_factory.mktemp("saved"), "saved_model")


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize("place", ["function", "main graph", "saver"])
@pytest.mark.parametrize("name", ["ReadFile", "WriteFile", "PyFunc", "EagerPyFunc", "TFRecordDataset", "RpcCall"])
def test_operators_that_touch_the_machine_are_refused(name, place, folder):
    """An operator for files, Python or the network, in any graph, is refused by name, unless the file is trusted."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = folder / "saved_model.pb"
    model = SavedModel.FromString(path.read_bytes())
    graph = model.meta_graphs[0].graph_def
    savers = [function for function in graph.library.function if "traced_save" in function.signature.name]
    nodes = {
        "main graph": graph.node,
        "saver": savers[0].node_def,
        "function": next(function for function in graph.library.function if function not in savers).node_def,
    }[place]
    nodes.add(name="extra", op=name)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=f"operator {name}") as caught:
        load_model(folder)
    assert "--trust-model" in caught.value.fix
    assert load_model(folder, trust=True).name == "cnn"


def test_a_function_that_reads_a_file_is_refused(keras, tmp_path):
    """A SavedModel with a serving function that reads a file is refused; savers' own operators never are."""
    import tensorflow as tf

    model = keras.Sequential([keras.layers.Dense(2, input_shape=(3,))])

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def serve(name):
        return model(tf.reshape(tf.io.decode_raw(tf.io.read_file(name), tf.float32), (1, 3)))

    model.save(tmp_path / "fine")
    assert load_model(tmp_path / "fine").layers
    model.save(tmp_path / "reading", signatures=serve)
    with pytest.raises(ModelError, match=r"serve.*ReadFile"):
        load_model(tmp_path / "reading")


def test_every_operator_that_takes_a_path_is_known():
    """Of all operators that TensorFlow registers, those with a file, an address or Python among their arguments are
    refused; arithmetic is not."""
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.framework.op_def_pb2 import OpList
    from tensorflow.python.client import pywrap_tf_session as session

    registered = OpList.FromString(session.TF_GetBuffer(session.TF_GetAllOpList())).op
    words = ("filename", "file_name", "filenames", "file_pattern", "address", "server_address", "path", "debug_urls")
    words += ("new_vocab_file", "ckpt_path", "log_dir_path", "logdir", "db_uri", "directory", "snapshot_path")
    passed = [
        op.name
        for op in registered
        if not what_it_does(NodeDef(op=op.name))
        and any(argument.name in words for argument in [*op.input_arg, *op.attr])
    ]
    assert not passed
    plain = "MatMul Conv2D AddV2 ReadVariableOp AssignVariableOp Assert Identity StatefulPartitionedCall ResourceGather"
    plain += " StringJoin ShardedFilename RandomUniform LookupTableFindV2 MutableHashTableV2 TensorListReserve While"
    assert not [name for name in plain.split() if what_it_does(NodeDef(op=name))]


def test_printing_is_refused_into_files_only():
    """An operator that prints to standard error computes; one that prints into a file touches it."""
    from tensorflow.core.framework.node_def_pb2 import NodeDef

    node = NodeDef(op="PrintV2")
    node.attr["output_stream"].s = b"stderr"
    assert what_it_does(node) is None
    node.attr["output_stream"].s = b"file:///tmp/x"
    assert what_it_does(node) == "touches files"


@pytest.mark.parametrize("form", ["checkpoint", "saved_model"])
def test_whole_indexes_pass(form, folder, tmp_path):
    """The index of every checkpoint that TensorFlow writes passes, with tensors of all types and shapes."""
    import tensorflow as tf

    if form == "saved_model":
        check_bundle(folder / "variables" / "variables.index")
        return
    values = [tf.zeros((0, 3)), tf.constant(["a", "", "longer" * 50]), tf.constant(True), tf.constant(1, tf.int64)]
    values += [tf.zeros((2, 2), dtype) for dtype in (tf.float16, tf.bfloat16, tf.complex64, tf.uint8)]
    values += [tf.zeros(1)] * 300
    prefix = tf.train.Checkpoint(**{f"v{n}": tf.Variable(value) for n, value in enumerate(values)}).write(
        str(tmp_path / "all")
    )
    check_bundle(Path(f"{prefix}.index"))


def test_an_index_with_any_byte_changed_ends_without_a_crash(folder):
    """Wherever a bit of an index flips, loading gives a model or one message; the process lives."""
    index = folder / "variables" / "variables.index"
    content = index.read_bytes()
    random = np.random.default_rng(0)
    for at in [*random.integers(len(content), size=20), *range(len(content) - 48, len(content) - 8, 4)]:
        changed = bytearray(content)
        changed[at] ^= 1 << int(random.integers(8))
        index.write_bytes(changed)
        with contextlib.suppress(ModelError):
            load_model(folder)


def test_texts_that_are_longer_than_their_file_are_refused(tmp_path):
    """A checkpoint whose strings state gigabytes is refused before TensorFlow makes room for them."""
    import tensorflow as tf

    prefix = Path(tf.train.Checkpoint(text=tf.Variable("hello")).write(str(tmp_path / "text")))
    data = prefix.with_name("text.data-00000-of-00001")
    content = data.read_bytes()
    at = content.index(b"hello") - 5
    data.write_bytes(content[:at] + struct.pack("B", 250) + content[at + 1 :])
    with pytest.raises(ValueError, match=r"other lengths than stated|a number is damaged"):
        check_bundle(prefix.with_name("text.index"))
