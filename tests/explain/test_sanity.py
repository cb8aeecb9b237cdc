"""Numbers and words of `explain --check`, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.explain.sanity import Curves, centre_map, mean_of, perturbation_curves, rank_correlation
from skinlesion_cli.stages.explain.check_verdicts import ErasureTest, Finding, conclusion


def test_rank_correlation() -> None:
    one = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert rank_correlation(one, one**3) == pytest.approx(1.0)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15) = 0.6
    assert rank_correlation(one, np.array([[2.0, 1.0], [4.0, 3.0]])) == pytest.approx(0.6)
    assert np.isnan(rank_correlation(one, np.ones((2, 2))))


def test_mean_with_interval() -> None:
    found = mean_of(np.array([1.0, 2.0, 3.0, np.nan]))
    # t(0.975, 2) = 4.302653, standard error 1 / sqrt(3)
    assert (found.mean, found.n) == (2.0, 3)
    assert found.high == pytest.approx(2.0 + 4.302653 / np.sqrt(3), abs=1e-5)
    assert mean_of(np.array([])).mean is None
    assert mean_of(np.array([1.0])).low is None


def test_deletion_and_insertion_of_a_perfect_and_a_wrong_map() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    image[0] = 255  # the first row, a tenth of the pixels, is all that counts

    def score(variants: np.ndarray) -> np.ndarray:
        return (variants[:, 0, :, 0] == 255).mean(axis=1)

    right = np.linspace(1.0, 0.0, 10)[:, None].repeat(10, axis=1)
    good, wrong = perturbation_curves(image, [right, -right], score)
    # Gone after the first tenth: trapezoid of 1, 0, 0 ... = 0.05; back after the first: 0.95.
    assert (good.deletion, good.insertion) == (pytest.approx(0.05), pytest.approx(0.95))
    assert (wrong.deletion, wrong.insertion) == (pytest.approx(0.95), pytest.approx(0.05))
    assert (good.drop, wrong.drop) == (1.0, 0.0)


def test_the_drop_is_after_a_fifth_of_the_pixels() -> None:
    deleted = np.array([0.9, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1])
    assert Curves(deleted, deleted[::-1]).drop == pytest.approx(0.25)


def test_centre_map_is_highest_in_the_middle() -> None:
    assert np.unravel_index(centre_map(5).argmax(), (5, 5)) == (2, 2)


def erased(n_lower: int, n_higher: int, n_equal: int = 0) -> ErasureTest:
    """Falls of 0.4 by the map and 0.1 at random places in `n_lower` images, the reverse in `n_higher`."""
    drops = np.array([0.4] * n_lower + [0.1] * n_higher + [0.2] * n_equal)
    random_drops = np.array([0.1] * n_lower + [0.4] * n_higher + [0.2] * n_equal)
    return ErasureTest.of_drops(drops, random_drops)


def test_erasing_is_compared_by_a_sign_test() -> None:
    test = erased(15, 5)
    # Two-sided: 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 2**20
    assert test.p_value == pytest.approx(0.0413895)
    # (15 * 0.4 + 5 * 0.1) / 20 and (15 * 0.1 + 5 * 0.4) / 20
    assert (test.mean_drop, test.mean_drop_random) == (pytest.approx(0.325), pytest.approx(0.175))
    assert erased(0, 0, 12).p_value == 1.0
    # Two of twelve differ: 2 * 1 / 2**2
    assert erased(2, 0, 10).p_value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("test", "finding"),
    [
        (erased(15, 5), Finding.MORE),
        (erased(14, 6), Finding.SAME),  # 2 * 60460 / 2**20 = 0.115
        (erased(5, 15), Finding.LESS),
        (erased(2, 0, 10), Finding.SAME),
        (erased(9, 0), Finding.TOO_FEW),
        (erased(10, 0), Finding.MORE),
        # Lower in 15 of 20 images by a hair, higher in the rest by a lot: the counts alone would mislead.
        (ErasureTest(20, 15, 5, 0.10, 0.30, 0.0413895), Finding.SAME),
    ],
)
def test_findings(test: ErasureTest, finding: Finding) -> None:
    assert test.finding is finding


def test_one_sentence_concludes() -> None:
    different, alike = mean_of(np.array([0.1, 0.1])), mean_of(np.array([0.6, 0.64]))
    assert conclusion(ErasureTest(20, 17, 3, 0.31, 0.12, 0.0026), [different]) == (
        "Erasing the strongest 20 % of the map lowers the probability of the decided class more than erasing "
        "random places in 17 of 20 images (0.31 against 0.12 on average): "
        "the maps point at what the model uses."
    )
    contrary = conclusion(erased(4, 16), [different])
    assert "less than erasing random places in 16 of 20 images (0.16 against 0.34" in contrary
    assert contrary.endswith("the maps do not point at what the model uses.")
    assert "nothing shows" in conclusion(erased(11, 9), [different])
    few = conclusion(erased(4, 1), [different])
    assert "in 4 of 5 images" in few
    assert "too few to say" in few
    # A map that survives shuffling the weights is no explanation, whatever erasing it does.
    survives = conclusion(erased(17, 3), [different, alike])
    assert "0.62" in survives
    assert "point at what the model uses" not in survives
    # Where all shuffled maps are the same everywhere there is no correlation.
    assert conclusion(erased(17, 3), [mean_of(np.array([]))]).endswith("what the model uses.")
