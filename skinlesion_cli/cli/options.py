"""Options that several commands share, each defined once. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.artifacts.workspace import DEFAULT_FOLDER
from skinlesion_cli.cli.choices import one_of, suggested
from skinlesion_cli.errors import UsageError

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        envvar="SKINLESION_WORKSPACE",
        help="Folder with the dataset, the trained networks, the ensemble and its calibration.",
        show_default=True,
    ),
]
ModelOption = Annotated[
    str | None,
    suggested(
        "--model",
        help="builtin, or the folder of a packed model; default: the workspace's own, or where none was begun "
        "the built-in one.",
        known="artifacts.bundle.MODEL_NAMES",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result, or the error, as JSON on stdout.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notices; errors stay.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]
DeviceOption = Annotated[
    str,
    one_of(
        "--device",
        help="auto (CUDA, then Apple MPS, then CPU), cpu, cuda or mps.",
        known="models.devices.NAMES",
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Random seed; the same seed gives the same result.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Processes that prepare images; default: by the number of cores."),
]
CamStyleOption = Annotated[
    str,
    one_of(
        "--cam-style",
        help="How maps are drawn: overlay, contour or side-by-side.",
        known="explain.overlay.STYLES",
    ),
]

DEFAULT_WORKSPACE = Path(DEFAULT_FOLDER)
EXAMPLES_TITLE = "Examples"


def share(text: str | None) -> tuple[int, int] | None:
    """`i/N` as numbers, i from 1 to N.

    Raises
    ------
    UsageError : it is nothing of the kind.
    """
    if text is None:
        return None
    index, slash, count = text.partition("/")
    if slash and index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise UsageError(f"--shard {text!r}: expected i/N with i from 1 to N", "Example: --shard 3/16")


def start_of(arch: str | None, weights: str, models: Sequence[str]) -> str:
    """The architecture of a training, from --arch, --weights and the --init's.

    Raises
    ------
    UsageError : neither --arch nor --init is given, or two of them say different things.
    """
    if not models:
        if arch is None:
            raise UsageError("--arch is missing", "Example: skinlesion train --arch densenet121")
        return arch
    if weights != "auto":
        raise UsageError("--weights and --init both say where training starts")
    # Reading a model loads pandas, and `--help` must not.
    from skinlesion_cli.artifacts.bundle import architecture

    for model in models:
        own = architecture(model)
        if arch not in (None, own):
            raise UsageError(f"--init {model} has networks of {own}, not {arch}", "Leave --arch away.")
        arch = own
    assert arch is not None
    return arch
