"""What a newcomer meets first: an empty folder, a wrong suffix, a model that is too weak to use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion_cli.artifacts.ensemble import Ensemble, Member
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.inference import tta
from skinlesion_cli.result import counted
from tests.support.class_lists import ISIC2018
from tests.support.command_line import assert_refused, run

pytestmark = pytest.mark.command_line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--arch", "tiny", "--dry-run"), "skinlesion download --from DIR"),
        (("calibrate",), "skinlesion calibrate --model builtin --on labels.csv"),
    ],
    ids=["train", "calibrate"],
)
def test_in_an_empty_folder_the_way_to_start_is_said_before_anything_heavy_is_loaded(
    arguments: tuple[str, ...], words: str, skinlesion, tmp_path: Path
) -> None:
    done = skinlesion(*arguments, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    lines = done.stderr.splitlines()
    loaded = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    said = " ".join(line for line in lines if not line.startswith("import time:"))
    assert done.returncode == 4
    assert "is not there" in said
    assert words in said
    assert "skinlesion_cli.artifacts.workspace" in loaded
    assert not loaded & {"torch", "timm", "sklearn", "albumentations"}
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_suffix_is_refused_before_the_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the model was read")

    monkeypatch.setattr("skinlesion_cli.artifacts.bundle.Bundle.load", read)
    assert_refused(
        run("predict", tmp_path, "-o", tmp_path / "x.xlsx", "-w", tmp_path), 2, "x.xlsx", ".parquet"
    )


def test_a_calibration_that_leaves_all_to_review_says_so_and_does_not_lead_to_predict(tmp_path: Path) -> None:
    """Four lesions of every class, and probabilities that say nothing."""
    names = [ISIC2018.codes[number % 7] for number in range(28)]
    table = pd.DataFrame(
        {
            "id": [f"i{number}" for number in range(28)],
            "lesion_id": [f"l{number}" for number in range(28)],
            "label": names,
            "fold": "",
        }
    )
    views = tta.MODES["d4"]
    ensemble = Ensemble((Member("other", None, 1.0, None),), "equal", views, classes=ISIC2018)
    made = ensemble.save(tmp_path / "ensemble" / "ensemble.json")
    even = np.full((28, len(views), 7), 1 / 7, np.float32)
    Predictions(table, even, views, "ensemble", "val", classes=ISIC2018).save(
        tmp_path / "ensemble" / "predictions-val.json", inputs={"ensemble": made}
    )
    done = run("calibrate", "-w", tmp_path)
    assert done.exit_code == 0, done.output
    assert "too weak to triage: every image would go to review" in done.output
    assert "next: skinlesion predict" not in done.output


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs"), (1200, "1,200 epochs")]
)
def test_counts_have_their_noun(count: int, words: str) -> None:
    assert counted(count, "epoch") == words
