"""``edgeprune convert``."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.errors import UsageError


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--keras", "out", required=True, type=click.Path(path_type=Path), help="The .keras file to write.")
def convert(model: Path, out: Path) -> None:
    """Write MODEL, a .tflite file, as a tf_keras model.

    Its constants become weights of layers, its quantized values real ones. The model is compared with the file on
    random inputs before it is written.
    """
    if out.suffix != ".keras":
        raise UsageError(f"{out} does not end in .keras.", expected="the name of a .keras file.")
    from edgeprune._tensorflow import import_tf
    from edgeprune.files import output_errors
    from edgeprune.models.formats import is_tflite_file

    if not model.exists():
        raise UsageError(f"{model} does not exist.", expected="a .tflite file.", fix="check the path.")
    if not is_tflite_file(model):
        raise UsageError(f"{model} is not a .tflite file.", expected="a .tflite file; others are Keras models already.")
    import_tf()
    from edgeprune.models.load import open_model
    from edgeprune.models.save import save_model

    opened = open_model(model)
    with output_errors(out):
        save_model(opened.model, out)
    checked = opened.imported
    assert checked is not None
    click.echo(
        f"{out}: {len(opened.model.layers)} layers, {opened.model.count_params():,} parameters; outputs differ from "
        f"those of the file by {checked.difference:.1e} of the largest."
    )
    for note in checked.notes:
        click.echo(f"{note[:1].upper()}{note[1:]}.")
