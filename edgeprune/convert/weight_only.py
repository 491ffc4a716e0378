"""Weight-only formats: kernels in 8 or 4 bits, arithmetic in float32."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io

from edgeprune.errors import MissingError

PACKAGE = "ai-edge-quantizer"
_BITS = {"int8-weights": 8, "int4-weights": 4}
# Few weights, which four bits ruin.
_EIGHT_BITS_AT_LEAST = "DEPTHWISE_CONV_2D"


def quantizer_version() -> str | None:
    """The installed release of ai-edge-quantizer, for the keys of stages; None where it is not installed."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def quantize_weights(content: bytes, mode: str) -> bytes:
    """Store the kernels of a float32 .tflite in fewer bits, each output channel with a scale of its own.

    The converter has no such mode: its ``dynamic`` also quantizes activations, at run time. Small layers stay as they
    are where the quantizer sees nothing to gain.

    Args:
        content: a float32 .tflite.
        mode: ``int8-weights`` or ``int4-weights``.

    Raises:
        MissingError: ai-edge-quantizer is not installed.
    """
    if importlib.util.find_spec("ai_edge_quantizer") is None:
        raise MissingError(
            f"The format {mode} needs {PACKAGE}, which is not installed.", fix="pip install 'edgeprune[weight-only]'"
        )
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    bits, operations, manager = _BITS[mode], qtyping.TFLOperationName, recipe_manager.RecipeManager()
    manager.add_weight_only_config(".*", operations.ALL_SUPPORTED, num_bits=bits)  # a scale per channel
    manager.add_weight_only_config(".*", operations[_EIGHT_BITS_AT_LEAST], num_bits=max(bits, 8))
    worker = quantizer.Quantizer(content)
    worker.load_quantization_recipe(manager.get_quantization_recipe())
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a summary of sizes
        return bytes(worker.quantize().quantized_model)
