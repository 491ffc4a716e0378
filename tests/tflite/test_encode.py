import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import ModelError
from edgeprune.tflite import decode
from edgeprune.tflite.encode import encode, encoded
from edgeprune.tflite.flatbuffer import parse, read
from edgeprune.tflite.graph import Quantization, Tensor

HEADERS = {"lut": 0, "huffman": 1, "pruned": 2}


def tensor(weights, axis=None, zero_points=None):
    """A constant int8 tensor, with one scale, or one for each index along an axis."""
    weights = np.asarray(weights, np.int8)
    channels = 1 if axis is None else weights.shape[axis]
    points = tuple(zero_points or [0] * channels)
    quantization = Quantization((0.5,) * channels, points, axis or 0)
    stored = memoryview(weights.tobytes())
    return Tensor(0, "w", weights.shape, weights.shape, "int8", quantization, None, False, True, stored)


def header(code, parameters=0, stride=0):
    return bytes([HEADERS[code], 1, 0, 0, 1, parameters, stride, *[0] * 9])


KINDS = {
    "normal": lambda generator, shape: generator.normal(0, 20, shape).clip(-128, 127),
    "sparse": lambda generator, shape: generator.integers(-128, 128, shape) * (generator.random(shape) < 0.2),
    "few": lambda generator, shape: generator.choice([-90, -3, 0, 7, 55], shape),
    "zeros": lambda generator, shape: np.zeros(shape),
    "skewed": lambda generator, shape: np.floor(generator.geometric(0.5, shape) * 1.0).clip(0, 127),
}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(st.integers(1, 7), min_size=1, max_size=4),
    st.sampled_from([None, 0, -1]),
    st.integers(0, 999),
)
def test_every_code_gives_the_weights_back(kind, shape, axis, seed):
    """Weights of any kind, shape and axis come back from each code that holds them, per channel or not."""
    weights = KINDS[kind](np.random.default_rng(seed), shape)
    one = tensor(weights, None if axis is None or shape[axis] == 1 else axis % len(shape))
    found = decode.encodings(one)
    assert "pruned" in {code.code for code in found}
    assert [code.bytes for code in found] == sorted(code.bytes for code in found)
    for code in found:
        np.testing.assert_array_equal(decode.decode(one, code.data, code.ancillary), one.data(), code.code)


@pytest.mark.parametrize(
    ("data", "ancillary", "axis", "expected"),
    [
        pytest.param([0b01000010, 0], header("pruned") + b"\x05\xff", None,
                     [[0, 5, 0], [0, 0, 0], [-1, 0, 0]], id="pruned"),
        pytest.param([0b00011011, 0b00011011, 0], header("lut", 2) + bytes([9, 8, 7, 6]), None,
                     [[9, 8, 7], [6, 9, 8], [7, 6, 9]], id="lut"),
        pytest.param([0b01001001, 0], header("lut", 1, 2) + bytes([1, 2, 3, 4, 5, 6]), 1,
                     [[1, 4, 5], [1, 4, 5], [1, 4, 5]], id="lut-last-axis"),
        pytest.param([0b01001001, 0], header("lut", 1, 2) + bytes([1, 2, 3, 4, 5, 6]), 0,
                     [[1, 2, 1], [3, 4, 3], [5, 6, 5]], id="lut-first-axis"),
        # 0 → 7; 1 leads to a table one entry on: 10 → 8, 11 → 9
        pytest.param([0b01011010, 0b11010110, 0, 0],
                     header("huffman", 0) + np.array([0x8807, 1, 0x8808, 0x8809], "<u2").tobytes(),
                     None, [[7, 8, 9], [7, 8, 9], [7, 8, 9]], id="huffman"),
    ],
)  # fmt: skip
def test_the_layout(data, ancillary, axis, expected):
    """Bytes written by hand after the documented layout are read as it says."""
    one = tensor(np.zeros((3, 3)), axis)
    np.testing.assert_array_equal(decode.decode(one, bytes(data), ancillary), expected)


def test_pruned_weights_are_the_zero_points_of_their_channels():
    """What is not stored is the zero point of the channel, which need not be zero."""
    one = tensor([[3, 3, 5], [-2, 9, -2]], axis=0, zero_points=[3, -2])
    pruned = next(code for code in decode.encodings(one) if code.code == "pruned")
    assert pruned.ancillary[16:] == bytes([5, 9])
    np.testing.assert_array_equal(decode.decode(one, pruned.data, pruned.ancillary), one.data())


def test_the_smallest_code_wins():
    """Zeros are pruned, few values are looked up, and values of uneven frequency have Huffman codes."""
    generator = np.random.default_rng(0)
    many = (4000,)
    sparse = generator.integers(1, 128, many) * (generator.random(many) < 0.1)
    few = generator.integers(0, 8, many) * 9
    uneven = np.floor(generator.laplace(0, 3, many))
    assert [decode.encodings(tensor(one))[0].code for one in (sparse, few, uneven)] == ["pruned", "lut", "huffman"]


def test_axes_in_the_middle_are_not_encoded():
    """The decoders know channels along the first and the last axis only."""
    assert decode.encodings(tensor(np.zeros((2, 3, 4)), axis=1)) == []
    with pytest.raises(ModelError, match="along axis 1"):
        decode.channel_axis(tensor(np.zeros((2, 3, 4)), axis=1))


SYMBOL = np.array([0x8000 | 1 << 11, 0x8000 | 1 << 11], "<u2").tobytes()


@pytest.mark.parametrize(
    ("data", "ancillary", "message"),
    [
        (bytes(2), header("pruned")[:9], "9 bytes"),
        (bytes(2), b"\x07" + header("pruned")[1:], "code 7 is not known"),
        (bytes(2), header("pruned")[:1] + b"\x02" + header("pruned")[2:], "versions 2 and 1"),
        (bytes(2), header("pruned")[:4] + b"\x03" + header("pruned")[5:], "versions 1 and 3"),
        (bytes(1), header("pruned"), "1 bytes are encoded, and 2 are needed"),
        (b"\xff\xff", header("pruned") + bytes(8), "9 weights are marked as kept, and 8 values are stored"),
        (b"\x00\x00", header("pruned") + bytes(1), "0 weights are marked as kept, and 1 values are stored"),
        (bytes(9), header("lut", 0) + bytes(8), "0 bits instead of 1 to 7"),
        (bytes(9), header("lut", 2, 200) + bytes(8), "tables of 200 values"),
        (bytes(2), header("lut", 2) + bytes(4), "2 bytes are encoded, and 3 are needed"),
        (b"\xff" * 3, header("lut", 2) + bytes(3), "outside of its table"),
        (bytes(4), header("huffman", 1) + SYMBOL, "32 bits instead of 16"),
        (bytes(3), header("huffman") + SYMBOL, "whole words"),
        (b"", header("huffman") + SYMBOL, "end after 0 of 9 weights"),
        (bytes(4), header("huffman", 0x70) + bytes(4), "end after 0 of 9 weights"),
        (b"\xff" * 4, header("huffman") + SYMBOL[:2], "outside of the tables"),
        (bytes(4), header("huffman") + b"\x00\xf8" * 2, "takes 15 of 1 bits"),
    ],
)
def test_damage_is_refused(data, ancillary, message):
    """Whatever would make a device read or write outside of its memory is a message that says what is wrong."""
    with pytest.raises(ModelError, match=message):
        decode.decode(tensor(np.zeros((3, 3))), data, ancillary)


def _mutated(block, generator):
    """A bit flipped, a byte replaced, some cut off, some added, or a part moved to another place."""
    start, other = sorted(generator.integers(0, len(block), 2))
    return [
        block[:start] + bytes([block[start] ^ 1 << generator.integers(8)]) + block[start + 1 :],
        block[:start] + bytes([generator.integers(256)]) + block[start + 1 :],
        block[:start],
        block + generator.bytes(int(generator.integers(1, 9))),
        block[:start] + block[other:] + block[start:other],
    ][generator.integers(5)]


@pytest.mark.parametrize("code", ["pruned", "lut", "huffman"])
def test_mutated_ancillary_blocks_are_refused_or_decoded(code):
    """Of 400 damaged blocks of each code none ends in anything but a message or whole weights, which differ unless the
    damage lies where nothing is read; most are refused, and all whose type or version is another."""
    generator = np.random.default_rng(7)
    values = {
        "pruned": np.where(generator.random((16, 40)) < 0.8, 0, generator.integers(-127, 128, (16, 40))),
        "lut": generator.integers(0, 16, (16, 40)) * 8 - 64,
        "huffman": np.floor(generator.laplace(0, 3, (16, 40))),
    }[code]
    plain = tensor(values)
    (one,) = (one for one in decode.encodings(plain) if one.code == code)
    counts = dict.fromkeys(("refused", "same", "other"), 0)
    for _ in range(400):
        block = _mutated(one.ancillary, generator)
        try:
            found = decode.decode(plain, one.data, block)
        except ModelError:
            counts["refused"] += 1
            continue
        assert (block[1], block[4]) == (1, 1)
        assert (found.shape, found.dtype) == (plain.shape, np.int8)
        counts["same" if np.array_equal(found, plain.data()) else "other"] += 1
    assert sum(counts.values()) == 400
    assert counts["refused"] > 100


def test_a_file_becomes_smaller_and_keeps_its_weights(micro_file, tmp_path):
    """Every code is used, all weights come back, the interface stays, and buffers lie at multiples of 16 bytes."""
    plain = read(micro_file)
    encoding = encode(micro_file, tmp_path / "coded.tflite")
    assert {one.code for one in encoding.tensors} == {"pruned", "lut", "huffman", None}
    assert (tmp_path / "coded.tflite").read_bytes() == encoding.content
    assert encoding.plain_bytes == micro_file.stat().st_size
    assert encoding.bytes < 0.75 * encoding.plain_bytes
    saved = sum(one.plain_bytes - one.bytes for one in encoding.tensors)
    assert encoding.plain_bytes - encoding.bytes > saved - 300 * len(encoding.tensors)
    coded = parse(encoding.content)
    before, after = plain.subgraphs[0], coded.subgraphs[0]
    assert (before.inputs, before.outputs, plain.signatures) == (after.inputs, after.outputs, coded.signatures)
    assert coded.metadata == plain.metadata
    weights = decode.decoded_weights(after)
    names = {one.name for one in encoding.tensors if one.code}
    assert {after.tensors[index].name for index in weights} == names
    by_name = {one.name: one for one in before.tensors}
    for index, values in weights.items():
        np.testing.assert_array_equal(values, by_name[after.tensors[index].name].data())
    start = np.frombuffer(encoding.content, np.uint8).ctypes.data
    constants = [np.frombuffer(one.stored, np.uint8) for one in after.tensors if one.constant]
    assert constants
    assert {(one.ctypes.data - start) % 16 for one in constants} == {0}


def test_decoding_is_right_before_use(micro_file):
    """Each operator with encoded weights has a decoding one before it, also where two use the same weights."""
    graph = parse(encoded(micro_file.read_bytes()).content).subgraphs[0]
    writers = [one for one in graph.operators if one.name == decode.OPERATOR]
    for writer in writers:
        assert set(writer.outputs) <= set(graph.operators[writer.index + 1].inputs)
    outputs = [index for one in writers for index in one.outputs]
    assert len(outputs) == len(set(outputs)) == len(writers)
    sources = [one.inputs for one in writers]
    assert len(set(sources)) == len(sources) - 1  # the layer that is used twice is stored once


def test_files_that_do_not_shrink_stay_as_they_are(tiny_files):
    """Where operators would take more than codes save, the content is the plain file's."""
    content = tiny_files["int8"].read_bytes()
    encoding = encoded(content)
    assert encoding.content == content
    assert encoding.tensors
    assert {one.code for one in encoding.tensors} == {None}


def test_an_encoded_file_is_not_encoded_again(micro_file):
    """What is left plain was found not to pay, so a second time changes nothing."""
    once = encoded(micro_file.read_bytes()).content
    assert encoded(once).content == once


def test_files_without_int8_weights_are_refused(tiny_files):
    """Float weights have no code here; the message says what to build."""
    with pytest.raises(ModelError, match="no weights that can be encoded"):
        encode(tiny_files["float32"])


def test_damage_in_a_file_is_found(micro_file):
    """A file whose ancillary data, operator or pairs are damaged is refused by the check before it runs."""
    model = parse(encoded(micro_file.read_bytes()).content)
    decode.check(model)
    graph = model.subgraphs[0]
    place = next(i for i, one in enumerate(graph.operators) if one.name == decode.OPERATOR)
    operator = graph.operators[place]
    broken = [
        dataclasses.replace(operator, inputs=operator.inputs[:1]),
        dataclasses.replace(operator, inputs=operator.inputs[::-1]),
        dataclasses.replace(operator, inputs=(graph.inputs[0], operator.inputs[1])),
    ]
    for one in broken:
        operators = (*graph.operators[:place], one, *graph.operators[place + 1 :])
        with pytest.raises(ModelError):
            decode.check(dataclasses.replace(model, subgraphs=(dataclasses.replace(graph, operators=operators),)))
