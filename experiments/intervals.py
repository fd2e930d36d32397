"""How far a share that was counted can be trusted.

Reference: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927); L. Brown, T. Cai, A. DasGupta, Stat. Sci. 16
(2001).
"""

from __future__ import annotations

import math

Z = 1.959963984540054
"""The normal distribution's 97.5 % point: an interval of 95 %."""


def wilson(successes: int, trials: int, z: float = Z) -> tuple[float, float]:
    """Return the Wilson score interval of a share: (low, high), between 0 and 1.

    It stays inside [0, 1] and has a width where all or none succeeded, which the usual
    p ± z √(p (1 − p) / n) has not.

    Parameters
    ----------
    successes, trials
        So many of so many; of no trials nothing is known, (0, 1).
    z
        The normal quantile of the confidence.

    Raises
    ------
    ValueError
        If there are more successes than trials, or a negative number of either.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes = {successes} of {trials} trials: expected 0 to {trials}")
    if not trials:
        return 0.0, 1.0
    share, weight = successes / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    # At the ends the exact bound is 0 or 1, and rounding must not miss it.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == trials else min(1.0, middle + half)
    return low, high
