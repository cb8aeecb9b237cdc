"""Paths of all artifacts: the only place that knows the layout of a workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skinlesion_cli.errors import ArtifactError, name_items

DEFAULT_FOLDER = "skinlesion-workspace"
_WITH_METADATA = "-metadata"


def with_metadata(part: str) -> str:
    """Name of the predictions of the same part that were made with patient metadata."""
    return part + _WITH_METADATA


@dataclass(frozen=True)
class Workspace:
    """One folder with everything from the dataset to the calibrated ensemble."""

    root: Path

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    @property
    def images(self) -> Path:
        return self.dataset / "images"

    @property
    def manifest(self) -> Path:
        return self.dataset / "manifest.json"

    @property
    def classes(self) -> Path:
        """The class list of the dataset."""
        return self.dataset / "classes.json"

    @property
    def split(self) -> Path:
        return self.dataset / "split.json"

    @property
    def duplicates(self) -> Path:
        return self.dataset / "duplicates.json"

    @property
    def class_distribution(self) -> Path:
        """The picture of the dataset's classes."""
        return self.dataset / "class-distribution.png"

    @property
    def archives(self) -> Path:
        """Downloaded archives, unchanged."""
        return self.dataset / "archives"

    @property
    def attribution(self) -> Path:
        return self.dataset / "ATTRIBUTION.txt"

    @property
    def cache(self) -> Path:
        return self.dataset / "cache"

    @property
    def models(self) -> Path:
        return self.root / "models"

    def model(self, name: str) -> Path:
        """Folder of one trained network."""
        return self.models / name

    def checkpoint(self, name: str) -> Path:
        return self.model(name) / "checkpoint.json"

    def training_state(self, name: str) -> Path:
        """State of an unfinished training of one network."""
        return self.model(name) / "state" / "state.json"

    def predictions(self, name: str, part: str) -> Path:
        """Predictions of one network on one part (`val`, `test`) of the split; see `with_metadata`."""
        return self.model(name) / f"predictions-{part}.json"

    def history(self, name: str) -> Path:
        """One row per epoch, rewritten during training."""
        return self.model(name) / "history.csv"

    def curves(self, name: str) -> Path:
        """The picture of the history."""
        return self.model(name) / "curves.png"

    def tensorboard(self, name: str) -> Path:
        """Folder of TensorBoard's event files."""
        return self.model(name) / "tensorboard"

    def tracking_runs(self, name: str) -> Path:
        """The runs of other clients that record the training of one network."""
        return self.model(name) / "tracking.json"

    @property
    def mlflow_store(self) -> Path:
        """MLflow's database, where the environment names no server."""
        return self.root / "mlflow.db"

    def trained(self) -> list[str]:
        """Names of the networks that have a checkpoint."""
        return sorted(path.parent.name for path in self.models.glob("*/checkpoint.json"))

    def folds(self, name: str) -> list[int]:
        """Numbers of the folds of one architecture that have a checkpoint."""
        paths = self.models.glob(f"{name}-fold*/checkpoint.json")
        numbers = [path.parent.name.removeprefix(f"{name}-fold") for path in paths]
        return sorted(int(number) for number in numbers if number.isdigit())

    def members(self) -> list[str]:
        """Possible members of an ensemble: single networks, and architectures trained in folds."""
        folded = {path.parent.name for path in self.models.glob("*/predictions-oof.json")}
        of_folds = {f"{name}-fold{fold}" for name in folded for fold in self.folds(name)}
        return sorted(folded | (set(self.trained()) - of_folds))

    def require_dataset(self) -> None:
        """Say that there is no dataset before anything heavy is loaded to work on one.

        Raises
        ------
        ArtifactError : there is no manifest.
        """
        if not self.manifest.exists():
            raise ArtifactError(
                f"{self.manifest} is not there", "Run `skinlesion download --from DIR` first."
            )

    def next_step(self) -> str | None:
        """What to run so that this workspace gets a finished model; None where it has one."""
        if not self.trained() and not self.ensemble.exists():
            unfinished = sorted(path.parent.name for path in self.models.glob("*/state"))
            if unfinished:
                return f"Run the `skinlesion train` of {name_items(unfinished)} again: it resumes."
            if not self.manifest.exists():
                return "Run `skinlesion download --from DIR`, then `skinlesion train --arch NAME`."
            return "Run `skinlesion train --arch NAME`."
        if not self.ensemble.exists():
            return "Run `skinlesion ensemble`, then `skinlesion calibrate`."
        return None if self.calibration.exists() else "Run `skinlesion calibrate`."

    def require_ensemble(self, otherwise: str = "") -> None:
        """The same for an ensemble; the hint names what to run first, and `otherwise` what to do instead
        where nothing was trained.

        Raises
        ------
        ArtifactError : there is no ensemble.
        """
        if self.ensemble.exists():
            return
        hint = self.next_step() or ""
        if not self.trained() and otherwise:
            hint += f" {otherwise}"
        raise ArtifactError(f"{self.ensemble} is not there", hint)

    def begun(self) -> bool:
        """Whether this workspace holds a model, finished or not."""
        return any(self.models.glob("*/*")) or self.ensemble.exists() or self.calibration.exists()

    @property
    def ensemble(self) -> Path:
        return self.root / "ensemble" / "ensemble.json"

    def ensemble_predictions(self, part: str) -> Path:
        return self.root / "ensemble" / f"predictions-{part}.json"

    @property
    def calibration(self) -> Path:
        return self.root / "calibration" / "calibration.json"

    @property
    def metadata_calibration(self) -> Path:
        """The calibration of predictions that were made with patient metadata."""
        return self.root / "calibration" / "calibration-metadata.json"

    @property
    def gate(self) -> Path:
        return self.root / "calibration" / "gate.json"

    @property
    def cases(self) -> Path:
        """The compact table of labelled lesions for `--similar`."""
        return self.root / "calibration" / "cases.json"

    @property
    def case_ids(self) -> Path:
        """Which lesions the rows of that table are; not packed."""
        return self.root / "calibration" / "case-ids.json"

    @property
    def training_images(self) -> Path:
        """Fingerprints of the images that the model has seen in training."""
        return self.root / "calibration" / "training-images.json"
