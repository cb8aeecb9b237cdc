"""Calibrating a finished model on labelled images of one's own: the same networks, new decisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli import Classifier
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.errors import DataError, UsageError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.calibrate import at_home

# No search over thresholds: forty images would carry none.
SETTINGS = FitSettings(policy="none", probability_method="temperature")


@pytest.fixture
def labels_csv(images: Path, tmp_path: Path) -> Path:
    """The 40 images, MEL and NV in turn by pairs, two to a lesion, and one that cannot be read."""
    files = sorted(images.rglob("*.jpg"))
    rows = [f"{file},{('MEL', 'NV')[index // 2 % 2]},lesion-{index // 2}" for index, file in enumerate(files)]
    broken = images / "broken.jpg"
    broken.write_bytes(files[0].read_bytes()[:600])
    path = images / "labels.csv"
    relative = [row.replace(f"{images}/", "") for row in rows]
    path.write_text("\n".join(["image,label,lesion_id", *relative, "broken.jpg,NV,lesion-broken"]) + "\n")
    yield path
    path.unlink()
    broken.unlink()


def test_the_same_networks_with_decisions_of_their_own(tiny_workspace, labels_csv, images, tmp_path):
    output = tmp_path / "ours"
    settings = at_home.RecalibrateSettings(
        model=str(tiny_workspace), on=labels_csv, output=output, fit=SETTINGS, device="cpu"
    )
    result = at_home.run(settings, SilentReporter())
    assert result.figures["support"]["images"] == 40
    assert result.figures["failed"] == 1
    assert "broken" in result.warnings[-1]
    before, after = Bundle.load(Workspace(tiny_workspace)), Bundle.load(Workspace(output))
    assert [m.artifact.sha256 for m in after.members] == [m.artifact.sha256 for m in before.members]
    assert after.sha256 != before.sha256
    assert after.calibration.policy == "none"
    stored = Predictions.load(Workspace(output).ensemble_predictions("val"))
    assert stored.table["lesion_id"].nunique() == 20
    # What was fitted to is what the model predicts, before it is calibrated.
    file = sorted(images.rglob("image*.jpg"))[7]
    uncalibrated = Classifier.load(tiny_workspace, device="cpu").predict([file])[0]
    row = stored.table["id"].tolist().index(str(file.relative_to(images).with_suffix("")))
    np.testing.assert_allclose(
        stored.probabilities[row], list(uncalibrated.probabilities.values()), atol=1e-5
    )
    with pytest.raises(UsageError, match="there is a model in"):
        at_home.run(settings, SilentReporter())
    # Its own validation predictions name these images now, so they cannot be calibrated on again.
    again = settings.model_copy(update={"model": str(output), "output": tmp_path / "again"})
    with pytest.raises(DataError, match="40 of these images have the ids"):
        at_home.run(again, SilentReporter())


def test_too_few_images_are_refused_and_leave_nothing(tiny_workspace, images, tmp_path):
    path = images / "few.csv"
    names = [str(file.relative_to(images)) for file in sorted(images.rglob("image*.jpg"))[:3]]
    path.write_text("image,label\n" + "".join(f"{name},NV\n" for name in names))
    settings = at_home.RecalibrateSettings(
        model=str(tiny_workspace), on=path, output=tmp_path / "ours", fit=SETTINGS, device="cpu"
    )
    try:
        with pytest.raises(DataError, match="at least 20 labelled images, 3 could be read"):
            at_home.run(settings, SilentReporter())
    finally:
        path.unlink()
    assert not (tmp_path / "ours").exists()
