"""`skinlesion download`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.root import command

EXAMPLE = """
skinlesion download
skinlesion download --dry-run
skinlesion download --from ./reviewed/reviewed.csv --append
skinlesion download --from ./isic2018 --split grouped --check-duplicates
skinlesion download --from ./labels.csv --split kfold --folds 5
"""


@command("download", example=EXAMPLE, section="Pipeline")
def download(
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A copy on disk: a folder (with zips or images) or a CSV. Default: fetch."
        ),
    ] = None,
    source_format: Annotated[
        str,
        typer.Option("--format", help="What --from is: auto, isic2018, ham10000, isic2019, folders, csv."),
    ] = "auto",
    parts: Annotated[str, typer.Option(help="Parts of the official data.")] = "training,validation,test",
    split: Annotated[
        str,
        typer.Option(
            help="official (train, validation by lesion; official test set), grouped (60/20/20 by lesion), "
            "kfold (by lesion), published (by image: leaks; for comparison only)."
        ),
    ] = "official",
    folds: Annotated[int, typer.Option(min=2, max=100, help="Number of folds of --split kfold.")] = 5,
    check_duplicates: Annotated[
        bool, typer.Option("--check-duplicates", help="Look for one photograph under two lesion ids.")
    ] = False,
    move_duplicates: Annotated[
        bool, typer.Option("--move-duplicates", help="Look for them, and keep each pair on one side.")
    ] = False,
    append: Annotated[
        bool,
        typer.Option("--append", help="Add --from to the dataset that is there; new lesions go to training."),
    ] = False,
    base_url: Annotated[
        str | None, typer.Option(help="Fetch from this address (a mirror) instead of the official ones.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched and how large it is; change nothing.")
    ] = False,
    ignore_hashes: Annotated[
        bool,
        typer.Option(
            "--ignore-hashes", help="Accept files with other hashes; their content is still checked."
        ),
    ] = False,
    link: Annotated[
        bool, typer.Option("--link", help="Hard-link images instead of copying, where the disk allows it.")
    ] = False,
    scc_as_akiec: Annotated[
        bool, typer.Option("--scc-as-akiec", help="ISIC 2019: count squamous cell carcinoma as AKIEC.")
    ] = False,
    seed: options.SeedOption = 42,
    workspace: options.WorkspaceOption = options.DEFAULT_WORKSPACE,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Bring a dataset into the workspace and split it by lesion; without --from, fetch ISIC 2018 Task 3."""
    if append:
        from skinlesion_cli.errors import UsageError
        from skinlesion_cli.stages import append as adding

        if source is None:
            raise UsageError("--append needs --from", "Example: --from reviewed.csv --append")
        with render.reporter(quiet=quiet) as reporter:
            added = adding.run(adding.AppendConfig(workspace, source, source_format, link), reporter)
        render.finish(added, as_json=as_json, quiet=quiet)
        return
    from skinlesion_cli.stages import download as stage

    chosen = {key: value for key, value in locals().items() if key in stage.DownloadConfig.model_fields}
    chosen |= {"parts": tuple(name.strip() for name in parts.split(",")), "n_folds": folds}
    with render.reporter(quiet=quiet) as reporter:
        result = stage.run(stage.DownloadConfig(**chosen), reporter)
    render.finish(result, as_json=as_json, quiet=quiet)
