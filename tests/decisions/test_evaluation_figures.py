"""Figures of an evaluation against scikit-learn and by hand; the lesion-clustered bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.evaluation.figures import Labelled, evaluate, thresholded
from skinlesion_cli.decisions.evaluation.summary import summarise
from skinlesion_cli.decisions.evaluation.targets_met import targets_met
from skinlesion_cli.decisions.settings import Target
from skinlesion_cli.decisions.statistics.lesions import group
from skinlesion_cli.decisions.statistics.metrics import scored_argmax
from skinlesion_cli.decisions.statistics.resampling import Ranking, Resamples, lesion_sums
from skinlesion_cli.errors import DataError
from tests.support import synthetic
from tests.support.class_lists import ISIC2018


@pytest.fixture(scope="module")
def data() -> Labelled:
    labels, values, lesions = synthetic.predictions(500, 41)
    return Labelled(labels, values, scored_argmax(values), lesions, ISIC2018)


@pytest.fixture(scope="module")
def figures(data):
    return evaluate(data, n_resamples=300, seed=1)


def test_values_are_scikit_learns(data, figures):
    from sklearn import metrics

    found = figures.values
    y, p = data.labels, data.probabilities.astype(np.float64)
    p = p / p.sum(axis=1, keepdims=True)
    assert found["bacc"] == pytest.approx(metrics.balanced_accuracy_score(y, data.decided), abs=1e-6)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, data.decided), abs=1e-6)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, p, labels=range(7)), abs=1e-5)
    assert found["macro_auc"] == pytest.approx(metrics.roc_auc_score(y, p, multi_class="ovr"), abs=1e-6)
    for index, name in enumerate(ISIC2018.codes):
        mine, said = y == index, data.decided == index
        assert found[f"auc/{name}"] == pytest.approx(metrics.roc_auc_score(mine, p[:, index]), abs=1e-6)
        assert found[f"ap/{name}"] == pytest.approx(
            metrics.average_precision_score(mine, p[:, index]), abs=1e-5
        )
        assert found[f"sensitivity/{name}"] == pytest.approx(metrics.recall_score(mine, said))
        assert found[f"specificity/{name}"] == pytest.approx(metrics.recall_score(~mine, ~said))
        assert found[f"ppv/{name}"] == pytest.approx(metrics.precision_score(mine, said))
        assert found[f"npv/{name}"] == pytest.approx(metrics.precision_score(~mine, ~said))
    ill, called = np.isin(y, [0, 2, 3]), np.isin(data.decided, [0, 2, 3])
    assert found["malignant/sensitivity"] == pytest.approx(metrics.recall_score(ill, called))
    assert found["malignant/ppv"] == pytest.approx(metrics.precision_score(ill, called))


def test_ties_rank_as_in_scikit_learn():
    from sklearn import metrics

    generator = np.random.default_rng(0)
    scores, positive = generator.integers(0, 4, 60) / 4, generator.random(60) < 0.4
    lesions = group(np.arange(60))
    auc, ap = Ranking.of(scores, positive, lesions).figures(np.ones((1, 60), np.float32))
    assert auc[0] == pytest.approx(metrics.roc_auc_score(positive, scores))
    assert ap[0] == pytest.approx(metrics.average_precision_score(positive, scores))


def test_weights_are_repetitions():
    from sklearn import metrics

    generator = np.random.default_rng(1)
    scores, positive = generator.random(40), generator.random(40) < 0.5
    ids = generator.integers(0, 15, 40)
    lesions = group(ids)
    weights = generator.integers(0, 3, (1, lesions.n)).astype(np.float32)
    repeats = weights[0][lesions.codes].astype(int)
    auc, ap = Ranking.of(scores, positive, lesions).figures(weights)
    assert auc[0] == pytest.approx(metrics.roc_auc_score(positive.repeat(repeats), scores.repeat(repeats)))
    assert ap[0] == pytest.approx(
        metrics.average_precision_score(positive.repeat(repeats), scores.repeat(repeats))
    )


def test_net_benefit_by_hand():
    # Malignant probabilities 0.9 (ill), 0.3 (ill), 0.6 (well), 0.02 (well); t = 0.2: TP 2, FP 1.
    values = np.zeros((4, 7))
    values[:, 0] = [0.9, 0.3, 0.6, 0.02]
    values[:, 1] = 1 - values[:, 0]
    found = evaluate(
        Labelled(np.array([0, 0, 1, 1]), values, scored_argmax(values), np.arange(4), ISIC2018), n_resamples=0
    ).values
    assert found["net_benefit/0.20"] == pytest.approx(2 / 4 - 1 / 4 * 0.2 / 0.8)
    assert found["net_benefit_all/0.20"] == pytest.approx(2 / 4 - 2 / 4 * 0.25)
    assert found["net_benefit/0.50"] == pytest.approx(1 / 4 - 1 / 4)


def test_resamples_draw_whole_lesions_within_their_class():
    labels, _, lesion_ids = synthetic.predictions(60, 42)
    lesions = group(lesion_ids, labels)
    of_lesion = labels[lesions.first]
    weights = np.concatenate(list(Resamples(lesions, of_lesion, 250, 3).weights()))
    assert weights.shape == (250, 60)
    for label in np.unique(of_lesion):
        assert (weights[:, of_lesion == label].sum(axis=1) == (of_lesion == label).sum()).all()
    again = np.concatenate(list(Resamples(lesions, of_lesion, 250, 3).weights()))
    assert (weights == again).all()


def test_sums_by_lesion():
    lesions = group(np.array(["b", "a", "b"]))
    assert lesion_sums(np.array([[1.0], [2.0], [4.0]]), lesions).tolist() == [[2.0], [5.0]]


def test_intervals_agree_with_a_plain_bootstrap(data, figures):
    """The same thing the slow way: draw lesions, copy images, take the figure."""
    lesions = group(data.lesion_ids, data.labels)
    of_lesion = data.labels[lesions.first]
    images = [np.flatnonzero(lesions.codes == lesion) for lesion in range(lesions.n)]
    generator = np.random.default_rng(5)
    drawn = []
    for _ in range(400):
        rows = np.concatenate(
            [
                images[lesion]
                for label in np.unique(of_lesion)
                for lesion in generator.choice(np.flatnonzero(of_lesion == label), (of_lesion == label).sum())
            ]
        )
        recalls = [(data.decided[rows] == c)[data.labels[rows] == c].mean() for c in np.unique(data.labels)]
        drawn.append(np.mean(recalls))
    found = figures.estimate("bacc")
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_clustering_widens_the_interval():
    """Every lesion photographed four times over says no more than once."""
    labels, values, lesions = synthetic.predictions(300, 43)
    once = Labelled(labels, values, scored_argmax(values), lesions, ISIC2018)
    four = Labelled(
        np.tile(labels, 4), np.tile(values, (4, 1)), np.tile(once.decided, 4), np.tile(lesions, 4), ISIC2018
    )
    naive = Labelled(four.labels, four.probabilities, four.decided, np.arange(len(four.labels)), ISIC2018)

    def width(case: Labelled) -> float:
        found = evaluate(case, n_resamples=400, ranking=False).estimate("bacc")
        return found.high - found.low

    assert width(four) == pytest.approx(width(once), rel=0.02)
    assert width(naive) < 0.7 * width(four)


def test_paired_differences(data, figures):
    same = figures.difference(figures, "bacc")
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    worse = data.decided.copy()
    flipped = np.flatnonzero((data.labels == 0) & (data.decided == 0))[:10]
    worse[flipped] = 1
    other = evaluate(
        Labelled(data.labels, data.probabilities, worse, data.lesion_ids, ISIC2018), n_resamples=300, seed=1
    )
    found = figures.difference(other, "bacc")
    assert found.value == pytest.approx(10 / (data.labels == 0).sum() / 7, abs=1e-6)
    assert 0 < found.low < found.value < found.high
    unpaired = figures.estimate("bacc")
    assert found.high - found.low < unpaired.high - unpaired.low


def test_what_is_undefined_stays_so():
    labels = np.array([1, 1, 1, 0])
    values = np.eye(7)[[1, 1, 0, 0]]
    found = evaluate(Labelled(labels, values, np.array([1, 1, 0, 0]), np.arange(4), ISIC2018), n_resamples=20)
    assert np.isnan(found.values["sensitivity/BCC"])
    assert np.isnan(found.values["auc/BCC"])
    assert np.isnan(found.values["ap/BCC"])
    assert np.isnan(found.values["ppv/BCC"])
    assert found.values["specificity/BCC"] == 1.0
    assert found.values["bacc"] == pytest.approx((2 / 3 + 1) / 2)
    estimate = found.estimate("sensitivity/BCC")
    assert np.isnan([estimate.value, estimate.low, estimate.high]).all()


def test_one_class_only():
    labels, values = np.array([1, 1]), np.full((2, 7), 1 / 7)
    found = evaluate(
        Labelled(labels, values, np.array([1, 0]), np.arange(2), ISIC2018), n_resamples=10
    ).values
    assert found["bacc"] == 0.5
    assert np.isnan(found["malignant/auc"])
    assert np.isnan(found["macro_auc"])
    assert np.isnan(found["specificity/NV"])
    assert np.isnan(found["malignant/sensitivity"])


def test_no_images_are_an_error():
    empty = Labelled(np.empty(0, int), np.empty((0, 7)), np.empty(0, int), np.empty(0), ISIC2018)
    with pytest.raises(DataError, match="no labelled predictions"):
        evaluate(empty)


def test_subgroups_by_hand(data):
    mask = np.zeros(len(data.labels), dtype=bool)
    mask[:120] = True
    found = evaluate(data, subgroups={"half": mask, "none": ~(mask | ~mask)}, n_resamples=50).values
    y, d = data.labels[mask], data.decided[mask]
    assert found["subgroup/half/bacc"] == pytest.approx(
        np.mean([(d == c)[y == c].mean() for c in np.unique(y)]), abs=1e-6
    )
    ill, called = np.isin(y, [0, 2, 3]), np.isin(d, [0, 2, 3])
    assert found["subgroup/half/malignant_sensitivity"] == pytest.approx(called[ill].mean(), abs=1e-6)
    assert found["subgroup/half/malignant_specificity"] == pytest.approx((~called[~ill]).mean(), abs=1e-6)
    assert np.isnan(found["subgroup/none/bacc"])


def test_targets_met_count_lesions():
    # Melanoma lesions: a (2 of 3 images right), b (1 of 2), c (1 of 1), d (0 of 1): a and c are caught.
    labels = np.array([0] * 7 + [1] * 4)
    decided = np.array([0, 0, 1, 0, 1, 0, 1, 1, 1, 1, 0])
    lesions = np.array(list("aaabbcd") + list("wxyz"))
    found = targets_met(
        labels, decided, lesions, [Target("MEL", 0.5, 0.7), Target("AKIEC", 0.75, 0.7)], ISIC2018
    )
    assert (found[0].sensitivity.hits, found[0].sensitivity.n) == (2, 4)
    assert (found[0].specificity.hits, found[0].specificity.n) == (3, 4)
    assert found[0].met is True
    assert (found[0].sensitivity.low, found[0].sensitivity.high) == pytest.approx((0.0676, 0.9324), abs=1e-4)
    assert found[1].met is None
    assert np.isnan(found[1].sensitivity.value)


def test_thresholded_rows_have_the_decision_as_their_only_maximum():
    generator = np.random.default_rng(2)
    values = np.r_[generator.dirichlet(np.ones(7), 50), np.eye(7)].astype(np.float32)
    decided = generator.integers(0, 7, 57)
    found = thresholded(values, decided)
    assert (scored_argmax(found) == decided).all()
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert found.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    assert ((found > 0.5).argmax(axis=1) == decided).all()


def test_the_summary_names_support_and_missing_classes(data, figures):
    found = summarise(data, figures, [Target("MEL", 0.85, 0.85)], [], np.full(len(data.labels), "routine"))
    assert found["support"]["images"] == len(data.labels)
    assert sum(found["support"]["lesions_by_class"].values()) == 500
    assert found["triage"]["routine"]["share_of_malignant"] == 1.0
    assert found["triage"]["malignant_lesions_seen"]["value"] == 0.0
    assert found["targets"][0]["sensitivity"]["n"] == found["support"]["lesions_by_class"]["MEL"]
