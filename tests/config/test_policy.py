"""Options and YAML of a calibration."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinlesion_cli.config.policy import load_policy
from skinlesion_cli.decisions.policies.cost import matrix_of
from skinlesion_cli.decisions.policies.registry import policy_of, targets_of
from skinlesion_cli.decisions.settings import FitSettings, Target, TriageSettings
from skinlesion_cli.errors import UsageError
from tests.support.class_lists import ISIC2018


def test_defaults():
    found = load_policy(None)
    assert (found.policy, found.targets, found.priority) == ("guaranteed", None, ())
    assert (policy_of(found, ISIC2018).method(found), found.guarantee.confidence) == ("vector", 0.95)
    assert targets_of(found, ISIC2018) == (Target("MEL", 0.85),)
    published = load_policy(None, overrides={"policy": "published"})
    assert policy_of(published, ISIC2018).method(published) == "none"
    assert targets_of(published, ISIC2018) == (Target("MEL", 0.85, 0.85), Target("AKIEC", 0.75, 0.70))
    assert found.triage == FitSettings().triage == TriageSettings(0.70, None, 0.01, 0.90)


def test_triage_from_options():
    found = load_policy(None, overrides={"refer_share": 0.15, "routine_risk": 0.005, "coverage": 0.8})
    assert found.triage == TriageSettings(0.70, 0.15, 0.005, 0.8)


def test_targets_from_options():
    found = load_policy(None, targets=["MEL:sensitivity=0.9,specificity=0.7", "BCC:sensitivity=0.8"])
    assert found.targets == (Target("MEL", 0.9, 0.7), Target("BCC", 0.8, None))


@pytest.mark.parametrize(
    "text",
    ["MEL", "MEL:0.9", "MEL:sens=0.9", "MEL:specificity=0.9", "MEL:sensitivity=x",
     "MEL:sensitivity=0.9,sensitivity=0.8",
     "MEL:sensitivity=1.5", "MEL:sensitivity=1"],
)  # fmt: skip
def test_targets_that_are_none(text: str):
    with pytest.raises(UsageError):
        load_policy(None, targets=[text])


def test_file_then_options(tmp_path: Path):
    file = tmp_path / "p.yaml"
    file.write_text(
        "policy: cost\ntargets: {BKL: {sensitivity: 0.6}}\npriority: [BCC, MEL]\nconfidence: 0.9\n"
        "costs: {missed: {MEL: 20, BCC: 5, AKIEC: 6}, unneeded: 2}\n"
    )
    found = load_policy(file, overrides={"confidence": 0.8, "horizon": None})
    assert (found.policy, found.targets, found.priority) == ("cost", (Target("BKL", 0.6),), ("BCC", "MEL"))
    assert found.guarantee.confidence == 0.8
    costs = matrix_of(found.costs, ISIC2018)
    assert (costs[0, 1], costs[3, 1], costs[1, 0]) == (20, 6, 2)
    changed = load_policy(file, costs=["MEL=9", "BCC=1", "AKIEC=1", "unneeded=3"])
    assert matrix_of(changed.costs, ISIC2018)[1, 0] == 3


def test_misspelt_keys_and_files(tmp_path: Path):
    file = tmp_path / "p.yaml"
    file.write_text("polcy: cost\nconfidence: 2\n")
    with pytest.raises(UsageError) as error:
        load_policy(file)
    assert "polcy" in str(error.value)
    assert "confidence" in str(error.value)
    with pytest.raises(UsageError, match="YAML"):
        load_policy(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="CLASS=COST"):
        load_policy(None, costs=["MEL"])
