"""``edgeprune encode``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from edgeprune.runtime.micro import Arena
    from edgeprune.tflite.encode import Encoding


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the encoded file here.  [default: only say how large it is]"
)
def encode(file: str, out: Path | None) -> None:
    """Encode the int8 weights of a .tflite FILE for TensorFlow Lite Micro, which decodes them on the device."""
    from rich.console import Console

    from edgeprune.errors import MissingError
    from edgeprune.runtime.micro import MicroSession
    from edgeprune.tflite.encode import encode as encode_file

    try:
        # Before the file is written: weights are of no use that are encoded for an interpreter which refuses the file.
        with contextlib.closing(MicroSession(file)) as session:
            before: Arena | MissingError = session.arena
    except MissingError as missing:
        before = missing
    encoding = encode_file(file, out)
    if isinstance(before, MissingError):
        memory = f"RAM is not known: {before}"
    else:
        with contextlib.closing(MicroSession(encoding.content)) as session:
            after = session.arena
        memory = (
            f"arena {before.bytes:,} → {after.bytes:,} bytes, of which {after.activations:,} are activations and "
            f"decoded weights (TensorFlow Lite Micro on this machine; a microcontroller's pointers take less)"
        )
    console = Console()
    console.print(_table(file, encoding))
    console.print(memory, highlight=False, soft_wrap=True)
    if not any(tensor.code for tensor in encoding.tensors):
        console.print("No code makes this file smaller: it stays as it is.", highlight=False)
    if out is not None:
        console.print(f"Wrote {out}", highlight=False, soft_wrap=True)


def _table(file: str, encoding: Encoding) -> Table:
    from rich.table import Table

    share = encoding.bytes / encoding.plain_bytes
    table = Table(title=f"{file}: {encoding.plain_bytes:,} → {encoding.bytes:,} bytes ({share:.1%})")
    for column in ("weights", "code", "plain bytes", "bytes"):
        table.add_column(column, justify="right" if "bytes" in column else "left")
    for tensor in encoding.tensors:
        table.add_row(tensor.name, tensor.code or "plain", f"{tensor.plain_bytes:,}", f"{tensor.bytes:,}")
    return table
