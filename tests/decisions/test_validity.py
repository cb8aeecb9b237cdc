"""Do all guarantees of a calibration hold together? A thousand calibrations on lesions of a known
population.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from skinlesion_cli.decisions.policies.guaranteed import find
from skinlesion_cli.decisions.settings import FitSettings, GuaranteeSettings, Target, TriageSettings
from skinlesion_cli.decisions.statistics.lesions import votes
from skinlesion_cli.decisions.triage import alarm_scores, malignant_probability
from skinlesion_cli.decisions.triage_fit import fit_levels
from tests.support.class_lists import ISIC2018

N_POPULATION, N_SEEN, N_DRAWS = 20_000, 1_500, 1_000
SETTINGS = FitSettings(
    targets=(Target("MEL", 0.80),),
    malignant_sensitivity=0.85,
    guarantee=GuaranteeSettings(0.95),
    triage=TriageSettings(refer_ppv=0.6, routine_risk=0.03),
)


class Population:
    """Lesions of one to three photographs, alike but not the same: melanomas, basal cell carcinomas and
    nevi.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        classes = rng.choice([0, 2, 1], N_POPULATION, p=[0.12, 0.10, 0.78])
        self.sizes = rng.choice([1, 2, 3], N_POPULATION, p=[0.6, 0.3, 0.1])
        self.codes = np.repeat(np.arange(N_POPULATION), self.sizes)
        self.first = np.r_[0, np.cumsum(self.sizes)[:-1]]
        self.labels = classes[self.codes]
        own = rng.normal(0, 1.1, (N_POPULATION, 7))[self.codes]
        logits = 2.6 * np.eye(7)[self.labels] + own + rng.normal(0, 0.7, own.shape)
        logits[:, 1] += 1.0
        logits[:, 3:] -= 6.0
        self.values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        self.malignant = malignant_probability(self.values, ISIC2018).astype(np.float64)
        self.ill = ISIC2018.is_malignant[self.labels]
        self.weight = 1.0 / self.sizes[self.codes]

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Photographs of lesions drawn at random, and the number of the draw that each belongs to."""
        drawn = rng.integers(0, N_POPULATION, N_SEEN)
        rows = np.concatenate([self.first[drawn] + k for k in range(3)])
        codes = np.tile(np.arange(N_SEEN), 3)
        there = np.concatenate([self.sizes[drawn] > k for k in range(3)])
        return rows[there], codes[there]


@pytest.mark.slow
def test_all_guarantees_of_a_calibration_hold_together(
    record_property: Callable[[str, object], None],
) -> None:
    """With confidence 0.95, at most 50 of 1,000 calibrations may break any of their six statements.

    It was 12 when this was written; targets were granted in 1.000 (both alarms), 1.000 (refer) and 0.978
    (routine).
    """
    population, rng = Population(), np.random.default_rng(1)
    scores = {
        name: alarm_scores(population.values, population.malignant, name, ISIC2018)
        for name in ("MEL", "malignant")
    }
    positive = {"MEL": population.labels == 0, "malignant": population.ill}
    by_vote = {
        name: np.sort(votes(scores[name][mine], population.codes[mine])) for name, mine in positive.items()
    }
    broken, granted, guaranteed = 0, np.zeros(4), np.zeros((N_DRAWS, 6))
    for draw in range(N_DRAWS):
        rows, codes = population.sample(rng)
        labels, values = population.labels[rows], population.values[rows]
        alarms = find(labels, values, codes, SETTINGS, ISIC2018)
        raised = np.any([scores[name][rows] > theta for name, theta in alarms.alarms.items()], axis=0)
        confidence = SETTINGS.each_confidence(len(alarms.guarantees))
        malignant = population.malignant[rows]
        levels, level_guarantees = fit_levels(
            labels, malignant, codes, raised, SETTINGS.triage, confidence, ISIC2018
        )
        statements = []
        for each in alarms.guarantees:
            name, theta = each.class_name, each.threshold
            missed = np.searchsorted(by_vote[name], theta, side="right") / len(by_vote[name])
            fires = scores[name][positive[name]] > theta
            weight = population.weight[positive[name]]
            statements.append((each.sensitivity or 0.0, 1.0 - missed))
            statements.append((each.photograph_sensitivity or 0.0, (fires * weight).sum() / weight.sum()))
        above = population.malignant > levels.refer_above
        quiet = np.all([scores[name] <= theta for name, theta in alarms.alarms.items()], axis=0)
        routine = quiet & (population.malignant <= levels.routine_at_most)
        w, ill = population.weight, population.ill
        refer, calm = level_guarantees
        statements.append((refer.guaranteed or 0.0, (w * (above & ill)).sum() / max((w * above).sum(), 1e-9)))
        risk = (w * (routine & ill)).sum() / max((w * routine).sum(), 1e-9)
        statements.append((1.0 - (1.0 if calm.guaranteed is None else calm.guaranteed), 1.0 - risk))
        broken += any(said > true + 1e-12 for said, true in statements)
        granted += [*(each.granted for each in alarms.guarantees), refer.granted, calm.granted]
        guaranteed[draw] = [said for said, _ in statements]
    record_property("broken", int(broken))
    names = ("MEL", "malignant", "refer", "routine")
    record_property("granted", dict(zip(names, (granted / N_DRAWS).tolist(), strict=True)))
    record_property("mean_guaranteed", guaranteed.mean(axis=0).round(3).tolist())
    assert broken <= 50
    # And they are worth something: with some 180 melanomas, 330 malignant and 1,170 benign lesions.
    assert (granted / N_DRAWS >= [0.99, 0.99, 0.95, 0.5]).all()
