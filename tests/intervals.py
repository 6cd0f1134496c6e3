"""An interval by another road than the package's: the equation of its ends, solved numerically."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import t


def halls(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """95 % interval of a mean by Hall (JRSS B 54, 1992, equation 2.1): with S the mean's error over
    the standard deviation and g the skewness, S + g S^2 / 3 + g^2 S^3 / 27 + g / 6n, times the root
    of n, is as good as symmetric; at the ends it is a quantile of Student's t."""
    sample = np.asarray(values, dtype=float)
    count, mean, deviation = len(sample), sample.mean(), sample.std(ddof=1)
    skewness = np.mean((sample - mean) ** 3) / sample.std() ** 3

    def straightened(end: float) -> float:
        error = (mean - end) / deviation
        cubic = error + skewness * error**2 / 3 + skewness**2 * error**3 / 27
        return float(np.sqrt(count) * (cubic + skewness / (6 * count)))

    limit = t.ppf((1 + level) / 2, count - 1)
    far = 100 * deviation
    low, high = (
        brentq(lambda end, at=at: straightened(end) - at, mean - far, mean + far)
        for at in (limit, -limit)
    )
    return low, high
