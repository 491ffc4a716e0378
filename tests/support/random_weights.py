"""Random weights for models of tests."""

import numpy as np


def randomize(model, seed=0):
    """Random weights everywhere; kernels keep the scale of what passes through, scales and variances are positive."""
    random = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if any(True for _ in layer._flatten_layers(include_self=False)):
            continue  # a wrapper: its parts come by themselves
        values = [_random_weight(weight, random) for weight in layer.weights]
        if values:
            layer.set_weights(values)
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def _random_weight(weight, random):
    name, shape = weight.name.rsplit("/", 1)[-1], tuple(weight.shape)
    if weight.dtype.is_integer:
        return weight.numpy()
    if any(word in name for word in ("gamma", "variance", "alpha")):
        return random.uniform(0.5, 1.5, shape)
    if len(shape) < 2:
        return random.normal(0, 0.3, shape)
    fan_in = np.prod(shape[:2]) if "depthwise" in name else np.prod(shape[:-1])
    return random.normal(0, 1.2 / np.sqrt(fan_in), shape)
