"""The study of probability calibrations judges by folds that share no lesion, and prints a table."""

from __future__ import annotations

import probability_study as study
import pytest

from skinlesion_cli.decisions.calibration import apply_temperature
from tests.support import synthetic


def test_every_method_is_judged_and_the_best_comes_first() -> None:
    labels, values, lesions = synthetic.predictions(400, 83)
    found = study.study(labels, apply_temperature(values, 0.4), lesions)
    assert set(found) == {"vector", "temperature", "dirichlet", "beta", "isotonic", "none"}
    assert found["temperature"]["log_loss"] < found["none"]["log_loss"]
    lines = study.table(found)
    assert len(lines) == 2 + 6 + 2
    losses = [float(line.split("|")[2]) for line in lines[2:8]]
    assert losses == sorted(losses)
    assert (
        lines[-1] == f"Observed shares: MEL {(labels == 0).mean():.3f}, malignant {_malignant(labels):.3f}."
    )


def _malignant(labels) -> float:  # type: ignore[no-untyped-def]
    return sum(float((labels == index).mean()) for index in (0, 2, 3))


def test_uncalibrated_is_as_it_was() -> None:
    labels, values, lesions = synthetic.predictions(200, 84)
    found = study.study(labels, values, lesions)["none"]
    assert found["by_class"]["MEL"]["mean_predicted"] == pytest.approx(float(values[:, 0].mean()), abs=1e-6)
