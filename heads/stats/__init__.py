"""Statistics of results, as pure functions on arrays: intervals, tests, what a number of seeds can show. numpy and
scipy.

They know no run, no store and no table; `heads.compare` brings them their arrays. Which of them hold what they promise
was found by simulation: docs/statistics.md.
"""

from .bootstrap import crossed_bootstrap
from .influence import INFLUENCES, by_subject, influence
from .intervals import Interval, population_interval, resampled_interval, seeds_interval, subjects_interval
from .significance import (
    delong,
    detectable_difference,
    holm,
    least_sign_flip_p,
    seeds_needed,
    sign_flip,
)

__all__ = [
    "INFLUENCES",
    "Interval",
    "by_subject",
    "crossed_bootstrap",
    "delong",
    "detectable_difference",
    "holm",
    "influence",
    "least_sign_flip_p",
    "population_interval",
    "resampled_interval",
    "seeds_interval",
    "seeds_needed",
    "sign_flip",
    "subjects_interval",
]
