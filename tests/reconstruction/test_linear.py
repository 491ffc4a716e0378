"""Layers as products of a matrix."""

import numpy as np
import pytest
import tf_keras

from edgeprune.reconstruction.linear import product_of

# Layer, and the shape of its input.
LAYERS = {
    "Dense(5)": (4,),
    "Dense(5, use_bias=False) ": (3, 4),
    "EinsumDense('ab,bc->ac', 5, bias_axes='c')": (4,),
    "EinsumDense('abc,cd->abd', (None, 5), bias_axes='d', activation='relu')": (3, 4),
    "EinsumDense('abc,cde->abde', (None, 2, 3), bias_axes='de')": (3, 4),
    "EinsumDense('abcd,cde->abe', (None, 6))": (5, 2, 3),
    "EinsumDense('abcd,dce->abe', (None, 6))": (5, 2, 3),
    "EinsumDense('abc,bd->acd', (3, 6))": (5, 3),
    "Conv1D(4, 3)": (9, 3),
    "Conv1D(4, 3, padding='causal', dilation_rate=2)": (9, 3),
    "Conv1D(4, 3, padding='same', strides=2)": (8, 3),
    "Conv2D(4, 3)": (7, 6, 3),
    "Conv2D(4, (3, 2), padding='same', strides=2)": (7, 6, 3),
    "Conv2D(4, 3, padding='same', strides=(2, 3))": (8, 9, 3),
    "Conv2D(4, 3, padding='same', dilation_rate=2)": (7, 6, 3),
    "Conv2D(6, 3, groups=2, activation='relu')": (7, 6, 4),
    "Conv2D(4, 1, use_bias=False)": (7, 6, 3),
    "Conv3D(4, 2, padding='same', strides=2)": (5, 4, 5, 3),
    "DepthwiseConv1D(3, padding='same')": (9, 3),
    "DepthwiseConv2D(3, strides=2, padding='same')": (8, 7, 3),
    "DepthwiseConv2D(3, depth_multiplier=2)": (8, 7, 3),
    "DepthwiseConv2D(2, dilation_rate=2, use_bias=False)": (8, 7, 3),
    "SeparableConv1D(4, 3)": (9, 3),
    "SeparableConv2D(4, 3, strides=2, padding='same', depth_multiplier=2)": (8, 7, 3),
    "Conv1DTranspose(4, 3, strides=2)": (5, 3),
    "Conv1DTranspose(4, 2, strides=3, padding='same')": (5, 3),
    "Conv2DTranspose(4, 3, strides=2)": (4, 5, 3),
    "Conv2DTranspose(4, 3, strides=2, padding='same')": (4, 5, 3),
    "Conv2DTranspose(4, 2, strides=3)": (4, 5, 3),
    "Conv2DTranspose(4, (4, 3), strides=(1, 2), padding='same')": (4, 5, 3),
    "Conv2DTranspose(4, 3, dilation_rate=2)": (4, 5, 3),
    "Conv2DTranspose(4, 3, strides=2, output_padding=1)": (4, 5, 3),
    "Conv3DTranspose(4, 3, strides=2, padding='same')": (3, 2, 3, 3),
}


@pytest.mark.parametrize("code", LAYERS)
def test_a_layer_is_the_product_of_its_rows_and_its_matrix(code):
    """Rows times matrix plus bias are the layer's outputs without the activation."""
    layer = eval(f"layers.{code}", {"layers": tf_keras.layers})
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, *LAYERS[code])).astype("float32")
    layer(x)
    layer.set_weights([generator.normal(size=weight.shape) for weight in layer.weights])
    layer.activation = None
    product = product_of(layer)
    for index in (None, np.array([1, 0])):
        found = product.rows(x, index).numpy() @ product.matrix
        if product.bias is not None:
            found += product.bias.numpy().reshape(product.parts, 1, product.columns)
        np.testing.assert_allclose(found, product.outputs(layer(x), index), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("code", LAYERS)
def test_a_matrix_goes_back_where_it_came_from(code):
    """Setting the matrix that was read changes nothing; another one is read as it was set."""
    layer = eval(f"layers.{code}", {"layers": tf_keras.layers})
    layer.build((None, *LAYERS[code]))
    product = product_of(layer)
    before, matrix = product.weight.numpy(), product.matrix
    product.assign(matrix)
    np.testing.assert_array_equal(product.weight.numpy(), before)
    other = np.random.default_rng(0).normal(size=matrix.shape).astype("float32")
    product.assign(other)
    np.testing.assert_array_equal(product.matrix, other)


def test_a_subclass_is_no_known_product():
    """A subclass may compute anything with the kernel; a layer without weights has none."""

    class Squared(tf_keras.layers.Dense):
        def call(self, inputs):
            return super().call(inputs) ** 2

    layer = Squared(3)
    layer.build((None, 2))
    assert product_of(layer) is None
    assert product_of(tf_keras.layers.ReLU()) is None


@pytest.mark.parametrize(
    "equation", ["abc,abd->acd", "ab...,bc->ac...", "abc,bcd->abcd"], ids=["per sample", "open", "per position"]
)
def test_other_equations_are_no_products(equation):
    """Where a letter of the kernel is one of positions, or letters are left open, there is no one matrix."""
    layer = tf_keras.layers.EinsumDense("abc,cd->abd", (None, 5))
    layer(np.zeros((2, 3, 4), "float32"))
    layer.equation = equation
    assert product_of(layer) is None
