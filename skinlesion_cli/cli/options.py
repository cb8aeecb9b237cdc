"""Options that several commands share, each defined once. Nothing heavy is imported here."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skinlesion_cli.artifacts.workspace import DEFAULT_FOLDER
from skinlesion_cli.cli.choices import one_of, suggested
from skinlesion_cli.errors import UsageError

if TYPE_CHECKING:
    from skinlesion_cli.models.timm_format import ForeignNetwork

ModelOption = Annotated[
    str | None,
    suggested(
        "--model",
        help="builtin (the bundled model), the folder of a packed model, or hf://OWNER/NAME "
        "(from the Hugging Face hub; @REVISION may follow). Default: the model of the workspace, or the "
        "bundled one if it has none yet.",
        known="artifacts.bundle.MODEL_NAMES",
    ),
]
DeviceOption = Annotated[
    str,
    one_of(
        "--device",
        help="Device to compute on: {names}. auto prefers CUDA, then Apple MPS, then the CPU.",
        known="models.devices.NAMES",
    ),
]
RuntimeOption = Annotated[
    str,
    one_of(
        "--runtime",
        help="How to run the networks: {names}. auto uses onnx if it is exported and there is no GPU.",
        known="inference.runtimes.registry.RUNTIMES",
        also=("auto",),
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Random seed; the same seed gives the same result.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, help="Processes that prepare images. Default: depends on the number of cores."
    ),
]
CamStyleOption = Annotated[
    str,
    one_of(
        "--cam-style",
        help="How maps are drawn: {names}.",
        known="explain.overlay.STYLES",
    ),
]


def _shared(name: str, kind: type, default: object, option: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


# What `@command` adds to every command.
WORKSPACE = _shared(
    "workspace",
    Path,
    Path(DEFAULT_FOLDER),
    typer.Option(
        "--workspace",
        "-w",
        envvar="SKINLESION_WORKSPACE",
        help="Folder with the dataset, the trained networks, the ensemble and its calibration.",
        show_default=True,
    ),
)
JSON = _shared(
    "as_json", bool, False, typer.Option("--json", help="Print the result, or the error, as JSON on stdout.")
)
QUIET = _shared(
    "quiet",
    bool,
    False,
    typer.Option("--quiet", "-q", help="Show only errors, no progress and no notices."),
)
DEBUG = _shared("debug", bool, False, typer.Option("--debug", help="Show a traceback if something fails."))


def named_and_listed(inputs: Sequence[str]) -> tuple[tuple[str, ...], Iterable[str]]:
    """The names given as arguments, and those to read from stdin if `-` is among them."""
    from skinlesion_cli.data.reading.inputs import lines

    # Unbuffered: a thread that waits in the buffered reader would block the end of the process.
    listed = lines(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)) if "-" in inputs else ()
    return tuple(name for name in inputs if name != "-"), listed


def share(text: str | None) -> tuple[int, int] | None:
    """`i/N` as numbers, i from 1 to N.

    Raises
    ------
    UsageError : the text has another form, or i is out of range.
    """
    if text is None:
        return None
    index, slash, count = text.partition("/")
    if slash and index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise UsageError(f"--shard {text!r}: expected i/N with i from 1 to N", "Example: --shard 3/16")


def foreign_network(arch: str | None, model: str | None) -> ForeignNetwork | None:
    """The network that `hf-hub:...` or `local-dir:...` names; None for all other architectures.

    Raises
    ------
    UsageError : there is none, or it is combined with --init.
    """
    from skinlesion_cli.models import timm_format

    if arch is None or not timm_format.is_foreign(arch):
        return None
    if model is not None:
        raise UsageError("--arch and --init both name the network", "Omit one of them.")
    return timm_format.resolve(arch)


def pretrained_px(arch: str, network: ForeignNetwork | None) -> int | None:
    """Side of the images that a network of timm was pretrained with; None for the recommended ones, whose
    sizes the recipes know. Loads timm for its own names.
    """
    from skinlesion_cli.models.backbones import STORED_PREFIX, backbone

    if network is not None:
        return network.input_size_px
    return backbone(arch).pretrained_px if arch.startswith(STORED_PREFIX) else None


def start_of(arch: str | None, weights: str, model: str | None) -> str:
    """The architecture of a training, from --arch, --weights and --init.

    Raises
    ------
    UsageError : neither --arch nor --init is given, or two of them contradict each other.
    """
    if model is None:
        if arch is None:
            raise UsageError("--arch is missing", "Example: skinlesion train --arch densenet121")
        # Loads nothing heavy.
        from skinlesion_cli.models.backbones import stored_name

        return stored_name(arch)
    if weights != "auto":
        raise UsageError("--weights and --init cannot be combined: both set the initial weights")
    # Reading a model loads pandas, and `--help` must not.
    from skinlesion_cli.artifacts.bundle import architecture_of

    own = architecture_of(model)
    if arch not in (None, own):
        raise UsageError(f"--init {model} has networks of {own}, not {arch}", "Omit --arch.")
    return own
