"""The file that a microcontroller gets."""

from __future__ import annotations

from edgeprune.artifact import Artifact
from edgeprune.context import Context
from edgeprune.errors import ModelError
from edgeprune.files import write_bytes
from edgeprune.pipeline import stage
from edgeprune.target import Target


@stage("target", "micro")
def encode_weights(artifact: Artifact, config: None, context: Context) -> Artifact:
    """Encode weights where that saves flash, leave out what is not read on the device, and see what memory it takes.

    Decoded weights lie in RAM. Where only the plain file fits on the board, it stays plain.
    """
    from edgeprune.runtime.micro import footprint
    from edgeprune.tflite.compact import compact
    from edgeprune.tflite.encode import encoded
    from edgeprune.tflite.flatbuffer import parse
    from edgeprune.tflite.micro import resolver_methods, unregistered

    context.require("micro")
    content = artifact.files["tflite"].read_bytes()
    if names := unregistered(parse(content)):
        raise ModelError(
            f"TensorFlow Lite Micro does not have {', '.join(names)}.",
            fix=f"`edgeprune check` names the layers: --target {context.target.name}.",
        )
    encoding = encoded(content)
    chosen, plain = compact(encoding.content), compact(content)
    took, plain_took = footprint(chosen), footprint(plain)
    if not _fits(took.flash_bytes, took.ram_bytes, context.target) and _fits(
        plain_took.flash_bytes, plain_took.ram_bytes, context.target
    ):
        chosen, took = plain, plain_took
    path = context.folder / "model_micro.tflite"  # the ending of copies
    write_bytes(path, chosen)
    context.progress.note(f"{took.flash_bytes:,} bytes of flash, {plain_took.flash_bytes:,} without encoded weights")
    return artifact.with_(
        {"micro": path},
        micro={
            "flash_bytes": took.flash_bytes,
            "ram_bytes": took.ram_bytes,
            "activation_bytes": took.activation_bytes,
            "persistent_bytes": took.persistent_bytes,
            "scratch_bytes": took.scratch_bytes,
            "recorded_by": took.recorded_by,
            "plain_bytes": plain_took.flash_bytes,
            "plain_ram_bytes": plain_took.ram_bytes,
            "codes": {one.name: one.code for one in encoding.tensors if one.code and chosen is not plain},
            "methods": list(resolver_methods(parse(chosen))),
        },
    )


def _fits(flash: int, ram: int, target: Target) -> bool:
    assert target.micro is not None
    limits = (flash, target.micro.flash_bytes), (ram, target.micro.ram_bytes)
    return all(most is None or value <= most for value, most in limits)
