"""Node data for Model Explorer: a file per figure, whose nodes are the operators of the file."""

import dataclasses
import json

import pytest
from commands import run

from edgeprune.profiling.model_explorer import node_data
from edgeprune.profiling.profile import profile


def test_each_figure_is_a_file_of_values_by_operator(artifacts, tmp_path):
    """The command writes them; values are those of the profile, nodes without one are left out."""
    done = run("profile", artifacts["int8"], "--target", "coral", "--model-explorer", "nodes", "--json", cwd=tmp_path)
    rows = json.loads(done.stdout)["operators"]
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "nodes").iterdir()}
    assert set(found) == {"estimated_ms", "macs", "placement", "weight_bytes", "weight_sparsity"}
    for figure in set(found) - {"placement"}:
        expected = {str(row["index"]): row[figure] for row in rows if row[figure] is not None}
        assert {key: one["value"] for key, one in found[figure]["main"]["results"].items()} == expected
    places = {"accelerator": True, "CPU": False}
    shown = {int(key): places[one["value"]] for key, one in found["placement"]["main"]["results"].items()}
    assert shown == {row["index"]: row["on_accelerator"] for row in rows}


def test_figures_that_are_not_known_have_no_file(artifacts):
    """Without a target nothing is estimated or placed."""
    assert set(node_data(profile(artifacts["float32"]))) == {"macs", "weight_bytes", "weight_sparsity"}


def test_its_own_classes_read_and_write_the_same(artifacts):
    """model_explorer writes the same JSON of the same values, and its graph of the file has all nodes."""
    builder = pytest.importorskip("model_explorer.node_data_builder", reason="needs ai-edge-model-explorer")
    adapter = pytest.importorskip("model_explorer.builtin_tflite_flatbuffer_adapter")
    graphs = adapter.BuiltinTfliteFlatbufferAdapter().convert(str(artifacts["int8"]), {})["graphCollections"][0].graphs
    nodes = {graph["id"]: {node["id"] for node in graph["nodes"]} for graph in graphs}
    for document in node_data(profile(artifacts["int8"], "coral")).values():
        for graph, data in document.items():
            assert set(data["results"]) <= nodes[graph]
            results = {key: builder.NodeDataResult(**one) for key, one in data["results"].items()}
            gradient = [builder.GradientItem(**item) for item in data.get("gradient", [])]
            own = builder.GraphNodeData(results=results, name=data["name"], gradient=gradient)
            written = json.loads(builder.ModelNodeData({graph: own}).to_json_string())[graph]
            fields = {field.name for field in dataclasses.fields(builder.GraphNodeData)}
            assert set(data) <= fields
            assert {key: written[key] for key in data} == data
