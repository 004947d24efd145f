"""Commands on the dense model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from automl_prune.cli.options import ConfigArgument, EventsOption, SetOption, load_config, open_terminal, watched

app = typer.Typer()


@app.command()
def train(
    config: ConfigArgument,
    output: Annotated[Path | None, typer.Option(help="File to write. [default: the config's model.weights]")] = None,
    sparse: Annotated[
        Literal["bn", "kernel"] | None,
        typer.Option(help="Also drive channels to zero: their BatchNorm scales, or all their weights."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file when it exists.")] = False,
    json: EventsOption = False,
    set_: SetOption = None,
) -> None:
    """Train the dense model: deterministic, with a checkpoint after every epoch; the same command resumes.

    Example: automl-prune train experiments/fashion_mnist_resnet20/config.yaml --set data.root=/data/fashion-mnist
    """
    from automl_prune import api
    from automl_prune.events import JsonLines
    from automl_prune.redaction import command_without_secrets

    command = command_without_secrets(["automl-prune", *sys.argv[1:]])
    with watched(json=json) as view:
        weights = api.train(load_config(config, set_), output, sparse=sparse, force=force, command=command, view=view)
        if isinstance(view, JsonLines):
            view.write("result", {"weights": str(weights)})


@app.command()
def profile(config: ConfigArgument, set_: SetOption = None) -> None:
    """Show the dense model's costs, latency, slowest layers and channel groups, and what cannot be pruned and why.

    Example: automl-prune profile experiments/digits/config.yaml
    """
    from automl_prune import api

    view = open_terminal()
    view.say(api.profile(load_config(config, set_), view).explain())
