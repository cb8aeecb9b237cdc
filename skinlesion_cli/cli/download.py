"""`skinlesion download`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli import options
from skinlesion_cli.cli.choices import one_of, suggested
from skinlesion_cli.cli.root import StageCall, command
from skinlesion_cli.errors import unknown_name

EXAMPLE = """
skinlesion download
skinlesion download --dry-run
skinlesion download --from ./reviewed/reviewed.csv --append
skinlesion download --from ./isic2018 --split grouped --check-duplicates
skinlesion download --from ./labels.csv --split kfold --folds 5
skinlesion download --from ./isic2017 --append
skinlesion download --from ./isic2019 --classes isic2019 --split grouped
skinlesion download --show-classes melanoma
skinlesion download --from ./mine.csv --images ./photos --map "common mole=NV"
"""
SOURCE = (
    "Dataset on disk: a folder (with zip archives or images) or a table. Default: fetch ISIC 2018 Task 3."
)
FORMAT = "Layout of --from: {names}."
PARTS = "Parts of the official data, separated by commas: training, validation, test. Default: all three."
SPLIT = (
    "How to split: {names}. official keeps the official test set and splits off a validation set by "
    "lesion; grouped is 60/20/20 by lesion; kfold is by lesion; published is by image, which leaks "
    "lesions: for comparison only."
)
CHECK = "Report photographs that occur under two lesion ids."
MOVE = "As --check-duplicates, and keep each pair on the same side of the split."
APPEND = "Add --from to the existing dataset; new lesions go to the training part, or are assigned to folds."
BASE_URL = "Fetch from this address (a mirror) instead of the official ones."
DRY_RUN = "Show what would be fetched and how large it is; change nothing."
IGNORE = "Accept downloaded files whose hashes differ; their content is still checked."
LINK = "Hard-link images instead of copying them, where the file system allows it."
SCC = "Count squamous cell carcinoma as AKIEC. Default: drop its images."
MAP = "Class of a label in --from: NAME=CLASS, or NAME=skip to drop its images. Repeatable."
IMAGES = "Folder with the images, if it is not the folder of the table."
MISSING = "Skip rows whose image file is missing, and report how many."
TYPES = "Image types to import from the ISIC archive: {names}."
SOURCE_NAME = (
    "Name of this dataset in the manifest. Default: its layout, or for your own data the name of its folder."
)

CLASSES = (
    "Class list of the dataset: {names}, or a YAML file of your own. Default: isic2018; with --append, that "
    "of the dataset."
)
SHOW_CLASSES = "Print this class list as YAML, to start your own from, and exit: {names}."


def _show_classes(ctx: typer.Context, name: str | None) -> None:
    """Print a class list instead of running the command."""
    if name is None or ctx.resilient_parsing:
        return
    from skinlesion_cli.taxonomy.shipped import SHIPPED, shipped_text

    if name not in SHIPPED:
        raise typer.BadParameter(unknown_name(name, SHIPPED))
    typer.echo(shipped_text(name), nl=False)
    raise typer.Exit


def _show_classes_option() -> Any:
    option = suggested("--show-classes", help=SHOW_CLASSES, known="taxonomy.shipped.SHIPPED")
    option.callback, option.is_eager = _show_classes, True
    return option


@command("download", example=EXAMPLE, section="Pipeline")
def download(
    source: Annotated[Path | None, typer.Option("--from", help=SOURCE)] = None,
    source_format: Annotated[
        str, one_of("--format", help=FORMAT, known="data.sources.registry.SOURCES", also=["auto"])
    ] = "auto",
    parts: Annotated[str, typer.Option(help=PARTS, show_default=False)] = "training,validation,test",
    split: Annotated[str, one_of("--split", help=SPLIT, known="data.splits.STRATEGIES")] = "official",
    folds: Annotated[int, typer.Option(min=2, max=100, help="Number of folds of --split kfold.")] = 5,
    check_duplicates: Annotated[bool, typer.Option("--check-duplicates", help=CHECK)] = False,
    move_duplicates: Annotated[bool, typer.Option("--move-duplicates", help=MOVE)] = False,
    append: Annotated[bool, typer.Option("--append", help=APPEND)] = False,
    base_url: Annotated[str | None, typer.Option(help=BASE_URL)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=DRY_RUN)] = False,
    ignore_hashes: Annotated[bool, typer.Option("--ignore-hashes", help=IGNORE)] = False,
    link: Annotated[bool, typer.Option("--link", help=LINK)] = False,
    scc_as_akiec: Annotated[bool, typer.Option("--scc-as-akiec", help=SCC)] = False,
    class_map: Annotated[list[str] | None, typer.Option("--map", help=MAP)] = None,
    images: Annotated[Path | None, typer.Option("--images", help=IMAGES)] = None,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help=MISSING)] = False,
    image_types: Annotated[
        str, one_of("--image-types", help=TYPES, known="data.sources.base.IMAGE_TYPES")
    ] = "dermoscopic",
    source_name: Annotated[str | None, typer.Option("--source-name", help=SOURCE_NAME)] = None,
    classes: Annotated[
        str | None, suggested("--classes", help=CLASSES, known="taxonomy.shipped.SHIPPED")
    ] = None,
    show_classes: Annotated[str | None, _show_classes_option()] = None,
    seed: options.SeedOption = 42,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Import a dataset into the workspace and split it by lesion. Without --from, fetch ISIC 2018 Task 3."""
    from skinlesion_cli.stages.download import append as appending
    from skinlesion_cli.stages.download import stage

    settings = stage.DownloadSettings(
        workspace=workspace,
        source=source,
        source_format=source_format,
        parts=tuple(name.strip() for name in parts.split(",")),
        base_url=base_url,
        dry_run=dry_run,
        ignore_hashes=ignore_hashes,
        link=link,
        scc_as_akiec=scc_as_akiec,
        class_map=tuple(class_map or ()),
        images=images,
        allow_missing=allow_missing,
        image_types=image_types,
        source_name=source_name,
        classes=classes,
        split=split,
        n_folds=folds,
        seed=seed,
        check_duplicates=check_duplicates,
        move_duplicates=move_duplicates,
    )
    return StageCall(appending.run if append else stage.run, settings)
