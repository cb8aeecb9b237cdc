"""What a count on some lesions says about lesions not seen yet. Exact, and no distribution is assumed.

Two questions are told apart. What is the rule's share in the population that the lesions come from
(binomial)? And what will its share be among the next `horizon` lesions, which are chance too (negative
hypergeometric, the law of how many new scores fall below an order statistic of the old ones)?
"""

from __future__ import annotations

import math
from functools import lru_cache

# A share such as 0.85 of 20 lesions must not lose a lesion to rounding of 1 - 0.85.
_ROUNDING = 1e-9
_MOST_LESIONS = 100_000


@lru_cache(maxsize=4096)
def allowed_misses(n: int, share: float, confidence: float, horizon: int | None = None) -> int:
    """How many of `n` lesions may be missed for `share` to be guaranteed; -1 where `n` is too small for any.

    With θ the (j+1)-th smallest of `n` exchangeable scores, and a lesion missed where its score is below θ:
    the population's share is at least `share` with this confidence where P(Binomial(n, 1-share) <= j) is at
    most 1-confidence (Clopper & Pearson, 1934); and T, the misses among `horizon` new lesions, has
    P(T > r) = P(Hypergeometric(n+horizon, n, r+1+j) <= j). The largest j that fulfils it is returned.

    Parameters
    ----------
    n : lesions of the class seen.
    share : what is to be guaranteed, 0 to 1.
    confidence : of the guarantee, 0 to 1.
    horizon : for so many new lesions; None: for the population.
    """
    low, high = -1, n
    while high - low > 1:
        j = (low + high) // 2
        low, high = (j, high) if _holds(j, n, share, confidence, horizon) else (low, j)
    return low


def _holds(misses: int, n: int, share: float, confidence: float, horizon: int | None) -> bool:
    """Whether so many misses of `n` guarantee `share`."""
    from scipy import stats  # loaded late: completing the name of a policy must not load it

    doubt = 1.0 - confidence
    if horizon is None:
        return bool(stats.binom.cdf(misses, n, 1.0 - share) <= doubt)
    allowance = math.floor((1.0 - share) * horizon + _ROUNDING)
    # Where all of them may be missed, no sample breaks it.
    if allowance >= horizon:
        return True
    return bool(stats.hypergeom.cdf(misses, n + horizon, n, allowance + 1 + misses) <= doubt)


def guaranteed_share(n: int, misses: int, confidence: float, horizon: int | None = None) -> float:
    """The largest share, in steps of 0.001, that `misses` of `n` still guarantee; 0 where none."""
    if n == 0:
        return 0.0
    low, high = 0, 1000
    while high - low > 1:
        middle = (low + high) // 2
        fits = _holds(misses, n, middle / 1000, confidence, horizon)
        low, high = (middle, high) if fits else (low, middle)
    return low / 1000


def lesions_needed(miss_rate: float, share: float, confidence: float) -> int | None:
    """The fewest lesions from which on `share` can be guaranteed of a rule with this miss rate.

    None where the rule itself falls short: no number of lesions would do.
    """
    if miss_rate >= 1.0 - share:
        return None

    def enough(n: int) -> bool:
        return allowed_misses(n, share, confidence) >= math.ceil(miss_rate * n - _ROUNDING)

    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST_LESIONS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def binomial_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a share (Clopper & Pearson, 1934); NaN, NaN without trials."""
    if n == 0:
        return float("nan"), float("nan")
    from scipy import stats

    interval = stats.binomtest(int(hits), int(n)).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)
