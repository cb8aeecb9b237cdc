"""Names that earlier versions wrote into bodies are read as the present ones, and are never written again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save

from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.envelope import write_artifact
from skinlesion_cli.artifacts.predictions import Predictions

RULE: dict[str, Any] = {
    "probability_calibration": {"method": "none", "temperature": 1.0, "weights": [], "biases": []},
    "thresholds": {"MEL": 0.25},
    "priority": ["MEL"],
    "malignant_threshold": None,
    "conformal_minimum": [],
}
GUARANTEE = {
    "class_name": "MEL",
    "granted": True,
    "sensitivity": 0.85,
    "specificity": 0.7,
    "confidence": 0.95,
}


def old_calibration(path: Path, shares: str = "look_shares") -> Path:
    """A calibration as version 0.1.0 wrote it."""
    body = {
        "rule": RULE,
        "policy": "guaranteed",
        "tta_mode": "adaptive",
        "views": ["identity", "hflip"],
        "targets": [{"class_name": "MEL", "sensitivity": 0.85, "specificity": 0.7}],
        "promises": [GUARANTEE],
        "confidence": 0.95,
        "guarantee": {"confidence": 0.95, "horizon": None, "max_bacc_loss": 0.06},
        "probability_figures": {},
        "triage_figures": {},
        "support": {},
        "stopping": {
            "stopping_rule": {"rule": RULE, "reach": 1.5, "guard": "triage", "n_views": 2, "weights": [1.0]},
            "mean_looks": 1.25,
            "n_looks": 2,
            shares: [0.75, 0.25],
        },
    }
    write_artifact(path, kind="calibration", schema_version=1, body=body)
    return path


@pytest.mark.parametrize("shares", ["step_shares", "look_shares", "view_shares"])
def test_an_old_calibration_is_read_under_the_present_names(tmp_path: Path, shares: str) -> None:
    calibration = Calibration.load(old_calibration(tmp_path / "calibration.json", shares))
    assert calibration.guarantees == (GUARANTEE,)
    assert calibration.guarantee_settings == {"confidence": 0.95, "horizon": None, "max_bacc_loss": 0.06}
    rule = calibration.stopping_rule
    assert rule is not None
    assert (rule.margin_factor, rule.protects, rule.n_views, rule.weights) == (1.5, "triage", 2, (1.0,))
    assert calibration.stopping is not None
    assert (calibration.stopping["n_steps"], calibration.stopping["mean_steps"]) == (2, 1.25)
    assert tuple(calibration.stopping["step_shares"]) == (0.75, 0.25)


def test_present_names_are_written(tmp_path: Path) -> None:
    calibration = Calibration.load(old_calibration(tmp_path / "old.json"))
    calibration.save(tmp_path / "new.json")
    body = json.loads((tmp_path / "new.json").read_text())["body"]
    assert {"guarantees", "guarantee_settings"} <= set(body)
    assert not {"promises", "guarantee"} & set(body)
    assert {"margin_factor", "protects"} <= set(body["stopping"]["stopping_rule"])
    assert not {"reach", "guard"} & set(body["stopping"]["stopping_rule"])
    assert Calibration.load(tmp_path / "new.json") == calibration


def test_the_voice_of_a_member_is_its_member_group(tmp_path: Path) -> None:
    member = {"checkpoint_sha256": "0" * 64, "weight": 0.5, "validation_bacc": 0.5}
    body = {
        "members": [member | {"name": "a-fold0", "voice": "a"}, member | {"name": "a-fold1", "voice": "a"}],
        "method": "equal",
        "views": ["identity"],
        "figures": {},
        "parameters": {},
    }
    write_artifact(tmp_path / "e.json", kind="ensemble", schema_version=1, body=body)
    ensemble = Ensemble.load(tmp_path / "e.json")
    assert ensemble.member_groups == ((0, 1),)
    assert ensemble.group_weights == (1.0,)


def test_the_tensor_of_voices_is_that_of_member_groups(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["a"], "lesion_id": ["1"], "label": ["MEL"], "fold": [""]})
    groups = np.full((1, 2, 1, 7), 1 / 7, np.float32)
    tensors = {"view_probabilities": groups.mean(axis=1), "voice_probabilities": groups}
    write_artifact(
        tmp_path / "p.json",
        kind="predictions",
        schema_version=1,
        body={"source": "ensemble", "part": "val", "views": ["identity"], "images": 1},
        payloads={
            "table": (".csv", table.to_csv(index=False).encode()),
            "views": (".safetensors", save(tensors)),
        },
    )
    found = Predictions.load(tmp_path / "p.json").group_probabilities
    assert found is not None
    assert found.tolist() == groups.tolist()
