"""The command line: each command has a file of its own, which is imported when the command is called.

A new command is a file whose function has the command's name, and a line in ``COMMANDS``. It reads options, calls what
does the work in the package of its subject, and prints; only these files print. Options of several commands are in
``options``, tables of several commands in ``tables``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import traceback
from collections.abc import Iterator

import click

from edgeprune._version import __version__

# Command, which is also the name of its module → its line in --help, which thus imports none of the modules.
COMMANDS = {
    "build": "Prune, fine-tune, quantize, convert and measure a model.",
    "search": "The recipes with the best accuracy, latency and size for a board, and the one that meets a goal.",
    "inspect": "Layers, parameters, MACs, and what can be pruned from a model.",
    "convert": "The Keras model that a .tflite file was made of, or could have been.",
    "sensitivity": "Accuracy against pruning rate, for each group of filters alone.",
    "profile": "Size, memory and operators of a .tflite file.",
    "check": "What in a model will not run, or not run fast, on a target, and how to fix it.",
    "encode": "Encode the int8 weights of a .tflite for microcontrollers: pruned, look-up tables or Huffman.",
    "report": "The report of a run folder once more, or one page that compares several.",
    "compare": "Two .tflite files side by side.",
    "bench": "Measure .tflite files on this machine, a board over ssh, an Android device, or an emulated board.",
    "emulator": "An emulated Raspberry Pi that counts instructions.",
    "targets": "The boards that edgeprune knows.",
    "init": "Write a commented edgeprune.toml.",
    "doctor": "What is installed, what is missing, and how to get it.",
}

# What an interrupted command leaves behind.
KEPT = {
    "build": "Finished stages and training epochs are kept: the same command goes on from there.",
    "search": "What is finished is kept, and the front so far, if there is one, is in the run folder: the same command "
    "goes on from there.",
    "sensitivity": "Finished stages and points are kept: the same command goes on from there.",
    "bench": "Files that were measured completely have their rows in the table of --append; the device keeps nothing.",
    "emulator": "What is downloaded and unpacked is kept: the same command goes on from there.",
}
# Commands that run native code in their own process.
HEAVY = ("build", "inspect", "convert", "sensitivity", "check", "compare")


class LazyGroup(click.Group):
    """A group that knows the names of its commands, and imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"edgeprune.cli.{name}"), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeprune")
@click.option("--debug", is_flag=True, help="Show a traceback with an error, and what native code wrote.")
def edgeprune(debug: bool) -> None:
    """Prune, quantize and convert Keras models for edge boards, and measure every artifact.

    Try it without a model: edgeprune build --target rpi4
    """


def main() -> None:
    """The entry point: every error becomes one message and an exit code (2 usage, 3 missing, 130 interrupted)."""
    from edgeprune.cli.supervisor import supervised

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may not know every character
    debug = "--debug" in sys.argv
    if debug:
        # Move it to the front, so that it is allowed after the command, too.
        sys.argv = [sys.argv[0], "--debug", *[argument for argument in sys.argv[1:] if argument != "--debug"]]
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    run = functools.partial(_run, command, debug)
    sys.exit(supervised(command, KEPT.get(command, ""), run) if command in HEAVY else run())


def _run(command: str, debug: bool) -> int:
    from edgeprune.cli import interrupts
    from edgeprune.errors import EdgepruneError

    interrupts.remember()
    try:
        with _log_shown() if debug else contextlib.nullcontext():
            code = edgeprune.main(standalone_mode=False)
    except EdgepruneError as error:
        code = _fail("\n".join([str(error), *getattr(error, "__notes__", [])]), error.exit_code, debug)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = _fail(f"Interrupted. {KEPT.get(command, '')}".strip(), 130, debug)
    except BrokenPipeError:
        code = 0
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def _log_shown() -> Iterator[None]:
    """What edgeprune logs is shown, down to the details."""
    import logging

    log, handler = logging.getLogger("edgeprune"), logging.StreamHandler()
    before = log.level, log.propagate
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"edgeprune: {message}", err=True)
    return code
