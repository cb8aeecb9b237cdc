"""The study of `--routine-risk` judges every source by levels that were fitted without the lesion."""

from __future__ import annotations

import numpy as np
import triage_study as study

from skinlesion_cli.decisions.fit import cross_fit
from skinlesion_cli.decisions.settings import FitSettings
from tests.support import synthetic
from tests.support.class_lists import ISIC2018


def test_a_larger_risk_never_sends_more_to_review_and_every_source_is_counted() -> None:
    labels, values, lesions = synthetic.predictions(3000, 12, strength=2.0)
    sources = np.where(np.arange(len(labels)) % 3 == 0, "away", "home")
    found = study.study(labels, values, lesions, FitSettings(), ISIC2018, (0.01, 0.03, 0.06), sources)
    assert list(found) == [(risk, source) for risk in (0.01, 0.03, 0.06) for source in ("away", "home")]
    for source in ("away", "home"):
        reviewed = [found[risk, source]["levels"]["review"]["images"] for risk in (0.01, 0.03, 0.06)]
        assert reviewed[0] > reviewed[1] > reviewed[2] > 0
        levels = found[0.03, source]["levels"]
        assert sum(levels[name]["images"] for name in levels) == (sources == source).sum()
    levels = cross_fit(labels, values, lesions, FitSettings(), ISIC2018).triage
    malignant = np.isin(labels, [0, 2, 3])
    home = sources == "home"
    counted = found[0.01, "home"]["levels"]["routine"]
    assert counted["images"] == ((levels == "routine") & home).sum()
    assert counted["malignant"] == ((levels == "routine") & home & malignant).sum()


def test_the_table_says_what_is_undefined() -> None:
    level = {"share": {"value": 0.5}, "risk": {"value": 0.014, "low": 0.011, "high": 0.0181}}
    whole = level | {"share_of_malignant": {"value": float("nan"), "low": float("nan"), "high": float("nan")}}
    lines = study.table({(0.02, "home"): {"levels": dict.fromkeys(("refer", "review", "routine"), whole)}})
    assert lines[2:] == ["| 0.02 | home | 0.50 | 0.50 | 0.50 | 0.014 (0.011 to 0.018) | undefined |"]
