"""Commands for studies with several workers, on one machine or many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from automl_prune.cli.options import HereOption, StorageOption, TrustOption, open_terminal

app = typer.Typer()


@app.command()
def worker(
    run_dir: Annotated[Path | None, typer.Argument(help="Of the search, e.g. on a shared disk.")] = None,
    storage: StorageOption = None,
    study: Annotated[
        str | None, typer.Option(help="Its name in a database. [default: the run directory's, else the only one]")
    ] = None,
    artifacts: Annotated[
        str | None, typer.Option(help="Folder or s3://bucket/prefix of its files. [default: where the study says]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="E.g. cuda:1. [default: the config's]")] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a study that is not ready yet, or whose search is gone.")
    ] = 0.0,
    trust: TrustOption = None,
    set_: HereOption = None,
) -> None:
    """Join a running study from this or another machine: all it needs comes with the study, except the data.

    It works on the trials, then on the fine-tuning of the finalists, and leaves when the search has concluded.

    Example: automl-prune worker --storage postgresql://me@host/prune --study flowers --set data.root=/data/flowers
    """
    from automl_prune import api

    api.worker(
        run_dir,
        storage=storage,
        study=study,
        artifacts=artifacts,
        overrides=set_ or (),
        trusted=trust or (),
        device=device,
        wait=wait,
        view=open_terminal(),
    )


@app.command("storage-proxy")
def storage_proxy(
    storage: Annotated[str, typer.Option(help="The database's URL; $NAME for what the environment holds.")],
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 is reachable from everywhere.")] = "localhost",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 13000,
) -> None:
    """Serve a database to hundreds of workers, which give --storage grpc://HOST:PORT; runs until interrupted.

    Example: automl-prune storage-proxy --storage 'postgresql://me:$DB_PASSWORD@db/prune'
    """
    from automl_prune import api

    api.storage_proxy(storage, host, port, open_terminal())
