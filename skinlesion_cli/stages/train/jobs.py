"""The jobs of a command: one network, or one per fold, on the dataset of the workspace."""

from __future__ import annotations

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import DataError, UsageError
from skinlesion_cli.models.training.distributed import join_processes
from skinlesion_cli.progress import Reporter, SilentReporter
from skinlesion_cli.stages.train.job import Dataset, Job, TrainSettings


def make_jobs(settings: TrainSettings, reporter: Reporter) -> list[Job]:
    """The job of the split into train and val, or one for each of the folds; of several processes, one
    reports.

    Raises
    ------
    UsageError : the split has other folds than the settings.
    DataError : the split has no training or no validation images.
    """
    distributed, device = join_processes(settings.device)
    workspace = Workspace(settings.workspace)
    manifest = Manifest.load(workspace.manifest)
    split = Split.load(workspace.split, manifest)
    data = Dataset(manifest, split)
    own_reporter = reporter if distributed.is_first else SilentReporter()

    def job(fold: int | None, train_ids: list[str], validation_ids: list[str]) -> Job:
        if not train_ids or not validation_ids:
            raise DataError(
                f"the split has {len(train_ids)} training and {len(validation_ids)} validation images",
                f"The split has folds: train them with --folds {split.n_folds}."
                if split.n_folds
                else "Create another one with `skinlesion download`.",
            )
        return Job(settings, data, fold, train_ids, validation_ids, device, distributed, own_reporter)

    if settings.fold is not None and not 0 <= settings.fold < (settings.folds or 0):
        raise UsageError(
            f"--fold {settings.fold} is not one of --folds {settings.folds or 0}",
            "Folds are counted from 0: --folds 5 --fold 4 is the last of five.",
        )
    if settings.folds is None:
        return [job(None, split.ids("train"), split.ids("val"))]
    if split.n_folds != settings.folds:
        raise UsageError(
            f"{settings.folds} folds were asked for, but the split of the workspace has "
            f"{split.n_folds or 'no'} folds",
            f"Create one: skinlesion download --from DIR --split kfold --folds {settings.folds}",
        )
    return [job(fold, *split.fold_ids(fold)) for fold in range(settings.folds)]
