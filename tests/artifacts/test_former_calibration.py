"""A calibration of version 0.1.0, whose thresholds overrode the class, decides as it did then, to the bit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.artifacts.calibration import Calibration

DATA = Path(__file__).parent / "data"
FILE = DATA / "calibration-schema-1.json"


@pytest.fixture(scope="module")
def case() -> tuple[Calibration, np.ndarray]:
    # Of every fifth image that the bundled model of that version held out, averaged over its views.
    return Calibration.load(FILE), np.load(DATA / "probabilities-of-version-0.1.0.npy")


# As the program decided before alarms and levels of triage existed.
@pytest.mark.parametrize(
    ("every_fiftieth_flagged", "triage", "digest"),
    [(False, [227, 821, 955], "820fc51f76c125f7"), (True, [223, 845, 935], "97e87620efb7de50")],
)
def test_it_decides_as_before(
    case: tuple[Calibration, np.ndarray], every_fiftieth_flagged: bool, triage: list[int], digest: str
) -> None:
    calibration, probabilities = case
    flagged = np.arange(len(probabilities)) % 50 == 0 if every_fiftieth_flagged else None
    found = calibration.decide(probabilities, flagged)
    counts = np.bincount(found.decisions.decided, minlength=7).tolist()
    assert counts == [650, 928, 122, 61, 186, 22, 34]
    assert (found.decisions.fired >= 0).sum() == 650
    assert [int((found.triage == level).sum()) for level in ("refer", "review", "routine")] == triage
    said = (found.decisions.decided.tobytes(), "".join(found.triage).encode(), found.probabilities.tobytes())
    assert hashlib.sha256(b"".join(said)).hexdigest()[:16] == digest
    assert found.alarms == {}
    assert all(found.reasons)


def test_its_guarantees_are_read() -> None:
    calibration = Calibration.load(FILE)
    (guarantee,) = calibration.guarantees
    assert (guarantee["class_name"], guarantee["sensitivity"]) == ("MEL", 0.809)
    assert calibration.level_guarantees == ()
    assert calibration.rule.levels is None


def test_it_is_written_again_without_change(tmp_path: Path) -> None:
    calibration = Calibration.load(FILE)
    calibration.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    assert again.rule == calibration.rule
    assert again.guarantees == calibration.guarantees
