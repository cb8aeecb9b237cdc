"""What the tests of maps found, in words: one sentence that concludes, and a line for each test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import stats

from skinlesion_cli.explain.sanity import ERASED_SHARE, MeanOf
from skinlesion_cli.result import percent

# Adebayo et al. judge by eye; half of perfect agreement is this project's line.
MAX_CORRELATION = 0.5
MIN_IMAGES = 10
_SIGNIFICANCE = 0.05


class Finding(StrEnum):
    """Whether erasing the strongest part of the maps changes the decision more than erasing random places."""

    MORE = "more than random places"
    SAME = "no different from random places"
    LESS = "less than random places"
    TOO_FEW = "too few to say"


@dataclass(frozen=True)
class ErasureTest:
    """How far the decided class's probability fell when a share of each image was erased.

    Attributes
    ----------
    n_images : images compared.
    n_lower, n_higher : images in which erasing the strongest part of the map left a lower, or a higher,
        probability than erasing random places; the rest are equal.
    mean_drop, mean_drop_random : mean fall of the probability, -1 to 1.
    p_value : of a two-sided sign test of `n_lower` against `n_higher`; 1 where all are equal.
    """

    n_images: int
    n_lower: int
    n_higher: int
    mean_drop: float
    mean_drop_random: float
    p_value: float

    @classmethod
    def of_drops(cls, drops: np.ndarray, random_drops: np.ndarray) -> ErasureTest:
        """Of the falls for each image, float (n,), n at least 1, by its map and by random places."""
        n_lower, n_higher = int((drops > random_drops).sum()), int((drops < random_drops).sum())
        n_different = n_lower + n_higher
        p_value = float(stats.binomtest(n_lower, n_different).pvalue) if n_different else 1.0
        return cls(len(drops), n_lower, n_higher, float(drops.mean()), float(random_drops.mean()), p_value)

    @property
    def finding(self) -> Finding:
        """MORE or LESS only where the counts differ by more than chance explains and the means agree."""
        if self.n_images < MIN_IMAGES:
            return Finding.TOO_FEW
        if self.p_value <= _SIGNIFICANCE:
            if self.n_lower > self.n_higher and self.mean_drop > self.mean_drop_random:
                return Finding.MORE
            if self.n_lower < self.n_higher and self.mean_drop < self.mean_drop_random:
                return Finding.LESS
        return Finding.SAME


def conclusion(test: ErasureTest, shuffled: Sequence[MeanOf]) -> str:
    """One sentence: do the maps point at what the model uses?

    Parameters
    ----------
    shuffled : for each network, the correlation of its maps with those of the network with all of its
        parameters shuffled.
    """
    finding = test.finding
    less = finding is Finding.LESS
    sentence = (
        f"Erasing the strongest {percent(ERASED_SHARE, 0)} of the map lowers the probability of the "
        f"decided class {'less' if less else 'more'} than erasing random places in "
        f"{test.n_higher if less else test.n_lower} of {test.n_images} images "
        f"({test.mean_drop:.2f} against {test.mean_drop_random:.2f} on average): "
    )
    if finding is Finding.TOO_FEW:
        return sentence + f"too few to say, at least {MIN_IMAGES} images are needed."
    if finding is Finding.SAME:
        return (
            sentence
            + "chance alone could explain that, so nothing shows that the maps point at what the model uses."
        )
    if finding is Finding.LESS:
        return sentence + "the maps do not point at what the model uses."
    highest = _highest(shuffled)
    if highest is not None and highest >= MAX_CORRELATION:
        return sentence + (
            f"but with all parameters shuffled the maps still correlate {highest:.2f} with these, so they "
            "may show the image more than what the model learned."
        )
    return sentence + "the maps point at what the model uses."


def randomisation_verdict(shuffled: Sequence[MeanOf]) -> str:
    """Parameter randomisation in one sentence; `shuffled` as in `conclusion`."""
    highest = _highest(shuffled)
    if highest is None:
        return "Parameter randomisation: undefined, the shuffled networks' maps are the same everywhere."
    if highest < MAX_CORRELATION:
        return (
            f"Parameter randomisation: passed; with all parameters shuffled, maps correlate {highest:.2f} "
            "with the trained ones."
        )
    return (
        f"Parameter randomisation: FAILED; with all parameters shuffled, the maps still correlate "
        f"{highest:.2f} with the trained ones. They show the image more than what the network learned."
    )


def gain_verdict(title: str, gains: Mapping[str, MeanOf]) -> str:
    """Deletion and insertion against another order of places; `gains` by kind, positive where the map is
    better.
    """
    parts = []
    for kind, gain in gains.items():
        if gain.low is None or gain.high is None:
            parts.append(f"{kind} undefined (too few images)")
        else:
            how = "better" if gain.low > 0 else "worse" if gain.high < 0 else "no different"
            parts.append(f"{kind} {how} ({gain.mean:+.3f})")
    return f"Against {title}: " + ", ".join(parts) + "."


def _highest(correlations: Sequence[MeanOf]) -> float | None:
    means = [each.mean for each in correlations if each.mean is not None]
    return max(means, default=None)
