"""``edgeprune sensitivity``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeprune.cli.options import model_options


def _rates(context: click.Context, parameter: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers, such as 0.1,0.5.") from None


@click.command()
@click.argument("model", type=click.Path())
@click.option("--data", required=True, help="Class folders, .npz, module:function, file.py:function, or demo.")
@click.option(
    "--rates",
    default="0.1,0.3,0.5,0.7,0.9",
    show_default=True,
    callback=_rates,
    help="Fractions of each group to remove, separated by commas.",
)
@click.option(
    "--criterion", help="How filters are ranked; the lowest are removed.  [default: the recipe's, else taylor]"
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=1024, show_default=True, help="Validation samples to evaluate on."
)
@click.option(
    "--recipe", help="A built-in recipe or a TOML file, for its [data] and [task].  [default: ./edgeprune.toml]"
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: runs/MODEL-sensitivity]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random choice.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print sensitivity.json, and nothing else.")
def sensitivity(model: str, as_json: bool, out: Path | None, **options: Any) -> None:
    """Prune each group of filters of MODEL alone at several rates, without training, and evaluate on validation data.

    Writes a table, a plot, and a recipe with a rate per group. A run that was interrupted continues where it stopped.
    """
    import json

    from edgeprune._tensorflow import import_tf
    from edgeprune.cli.progress import TerminalProgress

    import_tf()
    from edgeprune.analysis import analyse_sensitivity

    out = out or Path("runs") / f"{Path(model).stem}-sensitivity"
    with TerminalProgress() as progress:
        document = analyse_sensitivity(model, out=out, progress=progress, **options)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    from rich.console import Console

    from edgeprune.cli.tables import sensitivity_table

    Console().print(sensitivity_table(document))
    click.echo(f"{out / 'sensitivity.html'} and .png show the curves.")
    if (out / "recipe.toml").is_file():
        click.echo(
            f"{out / 'recipe.toml'} holds the recommended rates: name it under `extends` in a recipe that has no other "
            "budget of [filters]. Or let each build measure them itself, with:"
        )
        click.echo('[filters] allocation = "sensitivity"')
