"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.models.sizes import InputShapes

# The function of a command, with an argument for each of its options.
Command = Callable[..., None]


def _input_shape(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> InputShapes | None:
    from edgeprune.models.sizes import parse

    return parse(values)


def model_options(command: Command) -> Command:
    """Options of every command that loads a Keras model: ``trust_model``, ``custom_objects``, ``input_shape``."""
    for option in (
        click.option(
            "--input-shape",
            multiple=True,
            metavar="[NAME=]SIZES",
            callback=_input_shape,
            help="Sizes of an input that the model leaves open, without the batch: 224,224,3. Once per such input.",
        ),
        click.option(
            "--custom-objects",
            type=click.Path(path_type=Path),
            metavar="FILE.py",
            help="Python file with the model's own layer classes; needs --trust-model.",
        ),
        click.option("--trust-model", is_flag=True, help="Allow code in the model file to run, such as Lambda layers."),
    ):
        command = option(command)
    return command


class Memory(click.ParamType):  # type: ignore[type-arg]
    """An amount of memory: 65536, 64k."""

    name = "BYTES"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> int:
        from edgeprune.selection import parse_bytes

        return value if isinstance(value, int) else parse_bytes(str(value))


def memory_options(kind: str) -> Callable[[Command], Command]:
    """Limits of a file on a microcontroller: ``max_flash``, ``max_ram``; ``kind``: what the command calls a limit."""

    def decorate(command: Command) -> Command:
        for option in (
            click.option(
                "--max-ram", type=Memory(), help=f"{kind}: arena on a microcontroller.  [default: the board's RAM]"
            ),
            click.option(
                "--max-flash",
                type=Memory(),
                help=f"{kind}: file on a microcontroller, encoded; 64k is 65,536.  [default: the board's flash]",
            ),
        ):
            command = option(command)
        return command

    return decorate


# The values of a command that are limits.
LIMITS = ("max_drop", "max_size", "max_latency", "max_flash", "max_ram")


targets_option = click.option(
    "--target",
    required=True,
    multiple=True,
    help="The board: a name from `edgeprune targets list`, or a TOML file; may be given again, for several. "
    "`all`: every one that comes with edgeprune.",
)


def device_options(command: Command) -> Command:
    """Options of every command that measures on a device: ``python``, ``benchmark_binary``."""
    for option in (
        click.option(
            "--benchmark-binary",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="benchmark_model to copy to the Android device.  [default: the one in its /data/local/tmp]",
        ),
        click.option("--python", metavar="PATH", help="Path of Python on the device.  [default: python3]"),
    ):
        command = option(command)
    return command


def load_given(
    model: str, trust_model: bool, custom_objects: Path | None, input_shape: InputShapes | None
) -> tf_keras.Model:
    """Load the model that the user named, with the values of ``model_options``."""
    from edgeprune._tensorflow import import_tf

    import_tf()
    from edgeprune.context import Trust
    from edgeprune.models.load import load_model

    trust = Trust.of(trust_model, custom_objects)
    return load_model(model, trust=trust.given, custom_objects=dict(trust.custom_objects), input_shape=input_shape)
