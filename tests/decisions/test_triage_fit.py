"""Triage is fitted: whole records, with every number worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.settings import TriageSettings
from skinlesion_cli.decisions.triage_fit import conformal_minima, fit_levels
from skinlesion_cli.errors import UsageError
from tests.support.class_lists import ISIC2018


def _images(melanomas: list[float], benign: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities and lesions: MEL and NV with these probabilities of MEL, all else of NV."""
    p = np.array(melanomas + benign)
    values = np.zeros((len(p), 7))
    values[:, 0], values[:, 1] = p, 1.0 - p
    return np.array([0] * len(melanomas) + [1] * len(benign)), values, np.arange(len(p)).astype(str)


def test_the_minimum_is_the_tenth_smallest_of_ninety_nine() -> None:
    # Nine lesions of MEL: floor(0.1 * 10) = 1, the smallest. Ninety-nine of NV: floor(0.1 * 100) = 10, the
    # tenth.
    mel, nv = [0.51 + 0.01 * i for i in range(9)], [0.001 * i for i in range(1, 100)]
    labels, values, lesions = _images(mel, nv)
    minima = conformal_minima(labels, values, lesions, 0.90)
    assert minima[0] == pytest.approx(0.51)
    # NV has 1 - p; sorted from 0.901 up in steps of 0.001, the tenth is 0.910.
    assert minima[1] == pytest.approx(0.910)
    assert minima[2:] == (0.0,) * 5


def levels_of(risk: list[float], malignant: list[int], **settings: float):  # type: ignore[no-untyped-def]
    """Every image its own lesion, at confidence 0.95."""
    labels = np.where(np.array(malignant) == 1, 0, 1)
    nothing = np.zeros(len(risk), dtype=bool)
    return fit_levels(
        labels, np.array(risk), np.arange(len(risk)), nothing, TriageSettings(**settings), 0.95, ISIC2018
    )


def test_refer_begins_where_the_predictive_value_still_holds() -> None:
    # 100 malignant at 0.905, 100 benign at 0.305, 20 malignant at 0.205. Above 0.31 and more, all of 100 are
    # malignant. Above 0.30 half of 200 are: 0.7 does not hold. The last candidate that passes is 0.31.
    levels, (refer, _) = levels_of(
        [0.905] * 100 + [0.305] * 100 + [0.205] * 20, [1] * 100 + [0] * 100 + [1] * 20
    )
    assert (levels.refer_above, refer.granted, refer.guaranteed, refer.measured) == (0.31, True, 0.7, 1.0)
    assert refer.lesions == 100


def test_the_fewest_lesions_with_which_a_predictive_value_holds() -> None:
    # All malignant: Hoeffding's bound is 0.7^n, 0.7^8 = 0.0576, 0.7^9 = 0.0404. The walk begins where 0.85 of
    # the lesions above would do: KL(0.85, 0.7) = 0.0611, and exp(-49 x 0.0611) = 0.050, so 50 begin.
    assert levels_of([0.905] * 60, [1] * 60)[1][0].granted
    levels, (refer, _) = levels_of([0.905] * 20 + [0.1] * 20, [1] * 20 + [0] * 20)
    assert (refer.granted, levels.refer_above) == (False, 0.7)
    # What is guaranteed instead, of 20 of 20: 0.05^(1/20) = 0.8609, to the 2^-14 that is looked for.
    assert refer.guaranteed == pytest.approx(0.8609, abs=1e-4)


def test_routine_ends_where_the_risk_still_holds() -> None:
    # 1,000 benign at 0.0015, 50 malignant at 0.2, 100 benign at 0.4. Up to 0.2 there is no malignant one;
    # with them 50 of 1,050 are. The candidates ascend in steps of 8.2 %: the last below 0.2 is 0.1965...
    levels, (_, routine) = levels_of(
        [0.0015] * 1000 + [0.2] * 50 + [0.4] * 100, [0] * 1000 + [1] * 50 + [0] * 100, routine_risk=0.01
    )
    assert 0.2 / (500 ** (1 / 79)) < levels.routine_at_most < 0.2
    assert (routine.granted, routine.guaranteed, routine.measured) == (True, 0.01, 0.0)


def test_raised_images_are_not_counted_as_routine() -> None:
    labels = np.array([1] * 1000 + [0] * 50)
    risk, raised = np.full(1050, 0.0015), np.arange(1050) >= 1000
    levels, (_, routine) = fit_levels(labels, risk, np.arange(1050), raised, TriageSettings(), 0.95, ISIC2018)
    assert (routine.granted, routine.lesions) == (True, 1000)
    none_raised = np.zeros(1050, dtype=bool)
    levels, (_, routine) = fit_levels(
        labels, risk, np.arange(1050), none_raised, TriageSettings(), 0.95, ISIC2018
    )
    assert (levels.routine_at_most, routine.granted, routine.guaranteed) == (-1.0, False, None)


def test_capacity_refers_the_highest_and_no_more_than_they() -> None:
    risk = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    levels, (refer, _) = levels_of(risk, [1, 1, 0, 1, 0, 0, 0, 0, 0, 0], refer_share=0.3)
    assert levels.refer_above == pytest.approx(0.65)
    assert (refer.granted, refer.target) == (True, None)
    assert refer.measured == pytest.approx(2 / 3)
    tied, _ = levels_of([0.9] + [0.5] * 9, [1] * 10, refer_share=0.3)
    assert (np.array([0.9] + [0.5] * 9) > tied.refer_above).sum() == 1
    none, _ = levels_of(risk, [1] * 10, refer_share=0.05)
    assert none.refer_above > 0.9


@pytest.mark.parametrize("name", ["refer_ppv", "refer_share", "routine_risk", "coverage"])
def test_shares_lie_between_0_and_1(name: str) -> None:
    with pytest.raises(UsageError, match=name.replace("_", "-")):
        TriageSettings(**{name: 1.0})
