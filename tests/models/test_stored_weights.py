"""Files in layouts of older versions of Keras 2: made by writing today's files anew, as those versions wrote them."""

import io
import itertools
import json
import re
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import ModelError
from edgeprune.models import load_model
from edgeprune.models.stored_weights import load_saved_variables


def _shared(keras):
    layers = keras.layers
    inputs = [keras.Input((4,), name=name) for name in ("left", "right")]
    dense = layers.Dense(3, name="both")
    joined = layers.Concatenate()([dense(part) for part in inputs])
    return keras.Model(inputs, [layers.Dense(2)(joined), layers.Dense(1)(joined)])


def _branches(keras):
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    body = keras.Sequential([layers.Conv2D(4, 3, input_shape=(8, 8, 3)), layers.BatchNormalization()], name="body")
    x = layers.Dropout(0.5)(layers.Conv2D(4, 3)(inputs))
    x = layers.Add()([x, body(inputs)])
    x = layers.SeparableConv2D(5, 3, padding="same")(layers.Conv2D(4, 1)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling2D()(x)))


def _recurrent(keras):
    layers = keras.layers
    inputs = keras.Input((6, 5))
    x = layers.Bidirectional(layers.SimpleRNN(4, return_sequences=True))(inputs)
    return keras.Model(inputs, layers.GRU(2)(layers.TimeDistributed(layers.Dense(3))(x)))


BUILDERS = [_shared, _branches, _recurrent]


def _random(model):
    random = np.random.default_rng(3)
    model.set_weights([random.uniform(0.1, 1.0, weight.shape) for weight in model.get_weights()])
    return model


def _same(one, other, outputs):
    for found, expected in zip(outputs(one), outputs(other), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def _numbered_twice(names, container):
    """Groups in the order of the layers → their names in Keras 2.13, which counted layers with weights twice."""
    counts, renamed = {}, {}
    for name in sorted(
        names, key=lambda name: int(re.search(r"_(\d+)$", name + "_0")[1]) if name[-1:].isdigit() else 0
    ):
        kind = re.sub(r"_\d+$", "", name)
        number = counts.get(kind, 0)
        renamed[name] = f"{kind}_{number}" if number else kind
        has_weights = []
        container[name].visititems(lambda _, item, found=has_weights: found.append(isinstance(item, h5py.Dataset)))
        counts[kind] = number + (2 if any(has_weights) else 1)
    return renamed


def _rewrite(path, version, numbering):
    """A ``.keras`` file with its layers under ``_layer_checkpoint_dependencies``."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    content = io.BytesIO()
    with h5py.File(io.BytesIO(members["model.weights.h5"]), "r") as old, h5py.File(content, "w") as new:
        _copy(old, new, numbering)
    members["model.weights.h5"] = content.getvalue()
    members["metadata.json"] = json.dumps({**json.loads(members["metadata.json"]), "keras_version": version}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _copy(old, new, numbering):
    for name in old:
        if not isinstance(old[name], h5py.Group):
            new[name] = old[name][()]
        elif name == "layers":
            renamed = numbering(list(old[name]), old[name])
            group = new.create_group("_layer_checkpoint_dependencies")
            for key in old[name]:
                _copy(old[name][key], group.create_group(renamed[key]), numbering)
        else:
            _copy(old[name], new.create_group(name), numbering)


def _numbered_once(names, _):
    return {name: name for name in names}


@pytest.mark.parametrize(
    ("build", "numbering"),
    representatives(
        itertools.product(BUILDERS, [_numbered_twice, _numbered_once]),
        *((build, _numbered_twice) for build in BUILDERS), (_shared, _numbered_once),
    ),
)  # fmt: skip
def test_keras_files_of_2_13_and_2_14(build, numbering, keras, outputs, tmp_path):
    """A .keras file with its layers where Keras 2.13 put them, in either numbering, computes what it did."""
    model = _random(build(keras))
    model.save(tmp_path / "model.keras")
    _rewrite(tmp_path / "model.keras", "2.13.1", numbering)
    _same(load_model(tmp_path / "model.keras"), model, outputs)


def _metadata_into_graph(folder, change=lambda metadata: metadata):
    """A SavedModel as TensorFlow 2.0 to 2.4 wrote it: what Keras says of its objects stands in the graph."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    beside = folder / "keras_metadata.pb"
    for node in SavedMetadata.FromString(beside.read_bytes()).nodes:
        changed = json.dumps(change(json.loads(node.metadata)))
        saved.meta_graphs[0].object_graph_def.nodes[node.node_id].user_object.metadata = changed
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    beside.unlink()


def _of_2_0(metadata):
    """What TensorFlow 2.0 called things, and did not say."""
    kept = {key: value for key, value in metadata.items() if key not in ("full_save_spec", "save_spec")}
    if kept.get("class_name") == "Functional":
        kept |= {"class_name": "Model", "keras_version": "2.2.4-tf"}
    return kept


def _no_config(metadata):
    return {key: value for key, value in metadata.items() if key not in ("config", "model_config")}


def _only_model_config(metadata):
    return {key: value for key, value in metadata.items() if key != "config" or "model_config" not in metadata}


def test_saved_models_of_2_0_to_2_4(keras, outputs, tmp_path):
    """A SavedModel that keeps its Keras metadata in saved_model.pb opens with weights and loss, whatever it leaves out.

    One without any configuration is refused for that reason.
    """
    model = _random(_shared(keras))
    model.compile("sgd", "mse")
    model.save(tmp_path / "model")
    for number, change in enumerate((lambda metadata: metadata, _of_2_0, _only_model_config, _no_config)):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "model", folder)
        _metadata_into_graph(folder, change)
        if change is _no_config:
            with pytest.raises(ModelError, match=r"without its configuration(.|\n)*get_config"):
                load_model(folder)
            continue
        loaded = load_model(folder)
        _same(loaded, model, outputs)
        assert loaded.loss


def test_a_saved_model_of_a_sequential_model_that_learned_its_input_from_data(keras, tmp_path):
    """A Sequential model without an input layer opens by the shape that it was built with."""
    model = keras.Sequential([keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2)])
    sample = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = model(sample)
    model.save(tmp_path / "model")

    def without_graph(metadata):
        if metadata["class_name"] == "Sequential":
            layers = [layer for layer in metadata["config"]["layers"] if layer["class_name"] != "InputLayer"]
            for layer in layers:
                layer["config"].pop("batch_input_shape", None)
            config = {"name": "sequential", "layers": layers}
            shape = {"class_name": "TensorShape", "items": [None, 4]}
            return {**metadata, "config": config, "is_graph_network": False, "build_input_shape": shape}
        return metadata

    _metadata_into_graph(tmp_path / "model", without_graph)
    np.testing.assert_allclose(load_model(tmp_path / "model")(sample), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "optimizer", ["legacy.Adam", *(pytest.param(n, marks=pytest.mark.slow) for n in ("Adam", "legacy.SGD"))]
)
def test_saved_models_that_were_trained(optimizer, keras, outputs, tmp_path):
    """Slots of new and legacy optimizers in the object graph do not get into the way of a functional model."""
    model = _random(_branches(keras))
    space, _, name = optimizer.rpartition(".")
    chosen = getattr(getattr(keras.optimizers, space) if space else keras.optimizers, name)
    model.compile(chosen(0.01, **({"momentum": 0.9} if name == "SGD" else {})), "mse")
    random = np.random.default_rng(0)
    model.fit(random.normal(size=(8, 8, 8, 3)), random.normal(size=(8, 3)), verbose=0)
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    _same(loaded, model, outputs)
    loaded.compile("adam", "mse")
    loaded.train_on_batch(random.normal(size=(8, 8, 8, 3)), random.normal(size=(8, 3)))


def test_variables_that_have_moved_are_found_by_name(keras, tmp_path):
    """A weight that stands elsewhere in the tree of objects today is found by name; one that is in neither, told."""
    layers = keras.layers
    model = _random(keras.Sequential([layers.Dense(3, name="a", input_shape=(2,)), layers.Dense(4, name="b")]))
    model.save(tmp_path / "model")
    prefix = tmp_path / "model" / "variables" / "variables"
    part = keras.Sequential([layers.Dense(4, name="b", input_shape=(3,))])
    load_saved_variables(part, prefix)
    np.testing.assert_array_equal(part.layers[0].kernel, model.layers[1].kernel)
    other = keras.Sequential([layers.Dense(4, name="c", input_shape=(5,))])
    with pytest.raises(ValueError, match=r"no c/kernel:0 of the shape \(5, 4\)"):
        load_saved_variables(other, prefix)


def _of_theano(path):
    with h5py.File(path, "r+") as file:
        for group in (file, file["model_weights"]):
            group.attrs["backend"], group.attrs["keras_version"] = b"theano", b"2.1.3"


def test_kernels_that_theano_wrote_are_turned(keras, tmp_path):
    """Theano's convolution reads a kernel from the other end: an .h5 of that backend computes the same once turned."""
    layers = keras.layers
    stack = [
        layers.Conv2D(4, 3, input_shape=(8, 8, 3)),
        layers.Conv2DTranspose(2, 3),
        layers.Flatten(),
        layers.Dense(2),
    ]
    model = _random(keras.Sequential(stack))
    sample = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    expected = model(sample).numpy()
    for layer in model.layers[:2]:
        layer.kernel.assign(layer.kernel.numpy()[::-1, ::-1])
    model.save(tmp_path / "model.h5")
    _of_theano(tmp_path / "model.h5")
    np.testing.assert_allclose(load_model(tmp_path / "model.h5")(sample), expected, rtol=1e-5)


def test_kernels_of_theano_that_keras_did_not_turn_are_refused(keras, tmp_path):
    """A depthwise convolution on Theano means what nobody can tell: the layer and the backend are named."""
    keras.Sequential([keras.layers.DepthwiseConv2D(3, input_shape=(8, 8, 3), name="dw")]).save(tmp_path / "model.h5")
    _of_theano(tmp_path / "model.h5")
    with pytest.raises(ModelError, match=r"'dw' .* Theano"):
        load_model(tmp_path / "model.h5")
