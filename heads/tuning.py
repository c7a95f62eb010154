"""Choosing a learning rate: which runs try the candidates, and which rate came out best. No torch.

Of a list of learning rates each setting (method, head, feature sets, fraction) gets one: that whose run under a seed of
its own is best on the inner validation part. These runs are stored like others, with stage "tuning", and stand in no
result. Students and controls of several lambdas or taus are tuned at the first of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING

from featurestore.featureset import FeatureSet

from .finished import FinishedRuns
from .grid import Grid
from .kinds import get_head
from .methods import Method

if TYPE_CHECKING:
    from .plan import PlannedRun

_FIRST_SEED = 1_000_000


class Rate(Enum):
    """In place of a learning rate."""

    WAITING = "not chosen yet"


@dataclass(frozen=True)
class Setting:
    """What a learning rate is tuned for.

    Attributes:
        method: name of the method.
        head: name of the head.
        features: the feature sets that its training takes, its teacher's included.
        fraction: of the training samples.
    """

    method: str
    head: str
    features: tuple[FeatureSet, ...]
    fraction: float

    def of_teacher(self, teacher: Method) -> "Setting":
        """The setting of the teacher of such runs."""
        sets = tuple(s for s in self.features if s.modality in teacher.reads)
        return Setting(teacher.name, self.head, sets, self.fraction)

    def __str__(self) -> str:
        """For a person."""
        return f"{self.method} {self.head} {'+'.join(s.name for s in self.features)} fraction {self.fraction:g}"


def tuning_seed(seeds: Iterable[int]) -> int:
    """A seed that is none of the grid's, and the same however many it has."""
    return next(seed for seed in count(_FIRST_SEED) if seed not in seeds)


class Tuning:
    """The learning rate of every setting of a cohort's grid.

    Attributes:
        failures: settings for which every candidate failed.
    """

    def __init__(
        self,
        grid: Grid,
        finished: FinishedRuns,
        failed: frozenset[str],
        candidate: "Callable[[Setting, float], PlannedRun | None]",
    ) -> None:
        """`candidate`: plans the run that tries a rate; None if it cannot be planned yet."""
        self.failures: list[str] = []
        self._grid, self._finished, self._failed, self._candidate = grid, finished, failed, candidate
        self._rates: dict[tuple[str, str, tuple[str, ...], float], float | Rate | None] = {}

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to choose."""
        return self._grid.lr is not None and len(self._grid.lr) > 1

    def rate(self, setting: Setting) -> float | Rate | None:
        """The learning rate of a setting, None for a head without one, or `Rate.WAITING`."""
        kind = get_head(setting.head)
        if kind.is_baseline:
            return None
        if self._grid.lr is None:
            return kind.lr
        if not self.is_needed:
            return self._grid.lr[0]
        key = (setting.method, setting.head, tuple(s.name for s in setting.features), setting.fraction)
        if key not in self._rates:
            self._rates[key] = self._choose(setting, self._grid.lr)
        return self._rates[key]

    def _choose(self, setting: Setting, rates: tuple[float, ...]) -> float | Rate:
        runs = [self._candidate(setting, rate) for rate in rates]
        left = [(rate, run) for rate, run in zip(rates, runs, strict=True) if run is None or not self._has_failed(run)]
        if not left:
            self.failures.append(str(setting))
            return Rate.WAITING
        known = self._finished.inner_auroc
        scored = [(rate, known[run.spec.run_id]) for rate, run in left if run and run.spec.run_id in known]
        if len(scored) < len(left):
            return Rate.WAITING
        return max(scored, key=lambda pair: pair[1])[0]

    def _has_failed(self, run: "PlannedRun") -> bool:
        return run.spec.run_id in self._failed or (run.teacher is not None and self._has_failed(run.teacher))
