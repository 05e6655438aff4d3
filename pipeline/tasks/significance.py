"""Whether a test split shows that a bound is broken, or whether chance alone explains what is seen.

Both tests are one-sided and reject where a network that just keeps the bound would look so bad in fewer than ``CHANCE``
of all test splits of that size. Shares of images are counted exactly, by the binomial distribution. An accuracy that is
lost is a paired difference: of n images, ``lost`` are right in the trained network alone and ``gained`` in the other
alone, and images that both get right or wrong say nothing. Its standard error is that of the score test of Tango
(Statistics in Medicine 17, 1998, 891 to 908), estimated where the bound holds; for a bound of 0 it is McNemar's test.
The plain standard error of what is found would pass 7 of 359 images lost where 0.5% may be.
"""

import math

import numpy as np

STANDARD_ERRORS = 2.0
CHANCE = math.erfc(STANDARD_ERRORS / math.sqrt(2)) / 2
"""That a normal variable lies more than two standard errors above its mean: 2.3%."""


def most_exceptions(count: int, share: float) -> int:
    """Return how many of ``count`` images may be exceptions where ``share`` of all images may be."""
    if not 0 < share < 1:
        return 0 if share <= 0 else count
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])  # of factorials
    exceptions = np.arange(count + 1)
    log_choices = logs[-1] - logs - logs[::-1]
    probabilities = np.exp(log_choices + exceptions * math.log(share) + (count - exceptions) * math.log1p(-share))
    more = 1 - np.cumsum(probabilities)  # the chance of more exceptions than that
    return int(np.flatnonzero(more < CHANCE)[0])


def standard_errors_above(lost: float, gained: float, count: int, allowed: float) -> float:
    """Return by how many standard errors the drop (``lost`` - ``gained``) / ``count`` exceeds ``allowed``, at least 0.

    ``lost`` and ``gained`` are numbers of images, or sums of shares of them.
    """
    excess = lost - gained - count * allowed
    if excess <= 0:
        return 0.0
    # q: the likeliest share of images that are gained, were the drop exactly what is allowed
    a, c = 2 * count, -gained * allowed * (1 - allowed)
    b = (2 * count - lost + gained) * allowed - lost - gained
    q = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)
    return excess / math.sqrt(count * (2 * q + allowed * (1 - allowed)))


def share_error(share: float, count: int) -> float:
    """Return the standard error of the ``share`` of ``count`` images."""
    return math.sqrt(share * (1 - share) / count)
