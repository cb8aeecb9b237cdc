"""The official table scores with the official scorer to the figures of `evaluate`.

Needs `pip install "skinlesion[challenge]"`; skipped, saying so, without.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion_cli.artifacts.evaluation import challenge_csv
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.evaluate import stage
from tests.support import synthetic
from tests.support.class_lists import ISIC2018

# The scorer uses what pandas has deprecated since.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def scorer():
    classification = pytest.importorskip(
        "isic_challenge_scoring.classification", reason='needs: pip install "skinlesion[challenge]"'
    )
    if not hasattr(pd.DataFrame, "applymap"):
        # The scorer calls what pandas 3 renamed.
        pd.DataFrame.applymap = pd.DataFrame.map
    return classification


def official_score(scorer, truth: Path, table: Path):
    metric = scorer.ClassificationMetric.BALANCED_ACCURACY
    return scorer.ClassificationScore.from_file(truth, table, metric)


@pytest.mark.parametrize("thresholded", [False, True])
def test_same_figures(scorer, tmp_path: Path, thresholded: bool):
    labels, values, lesions = synthetic.predictions(400, 71)
    # Ties, which the scorer counts as wrong, and the image that it does not score.
    values[:20] = np.round(values[:20] * 3) / 3
    values[:20, 1] += 1.0 - values[:20].sum(axis=1)
    values[3], values[4] = [0.5, 0.5, 0, 0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25, 0, 0, 0]
    ids = [f"ISIC_{number:07d}" for number in range(len(labels))]
    ids[10] = "ISIC_0035068"
    decided = np.where(values[:, 0] > 0.2, 0, values.argmax(axis=1))
    source = pd.DataFrame({"image": ids, "label": np.array(ISIC2018.codes)[labels], "lesion_id": lesions})
    for index, name in enumerate(ISIC2018.codes):
        source[f"p_{name}"] = values[:, index]
    if thresholded:
        source["decision"] = np.array(ISIC2018.codes)[decided]
    source.to_csv(tmp_path / "predictions.csv", index=False)
    truth = tmp_path / "truth.csv"
    truth.write_bytes(challenge_csv(ids, np.eye(7, dtype=np.float32)[labels], ISIC2018.codes))
    result = stage.run(
        stage.EvaluateSettings(
            workspace=Workspace(tmp_path / "ws").root,
            source=str(tmp_path / "predictions.csv"),
            thresholded=thresholded,
            n_resamples=0,
            output=tmp_path / "out",
        ),
        SilentReporter(),
    )
    score = official_score(scorer, truth, tmp_path / "out" / "challenge.csv")
    found = result.figures["figures"]
    assert score.overall == pytest.approx(found["bacc"]["value"], abs=1e-6)
    if thresholded:
        # 2/3 and more against 1/3 and less: the scorer's p > 0.5 is the decision.
        for name in ISIC2018.codes:
            row = score.per_category.loc[name]
            assert row["sensitivity"] == pytest.approx(found[f"sensitivity/{name}"]["value"], abs=1e-6)
            assert row["specificity"] == pytest.approx(found[f"specificity/{name}"]["value"], abs=1e-6)
    else:
        for name in ISIC2018.codes:
            assert score.per_category.loc[name, "auc"] == pytest.approx(
                found[f"auc/{name}"]["value"], abs=1e-6
            )
            assert score.per_category.loc[name, "ap"] == pytest.approx(found[f"ap/{name}"]["value"], abs=1e-5)
