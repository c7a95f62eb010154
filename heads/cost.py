"""What a plan takes, before anything runs: arithmetic, memory and, at a measured rate, time. No torch.

Counts are of the exact algebra (`heads.engine.attend`): 2 (n d^2 + n^2 d) FLOP a sample forward and as many backward,
and 6 d^3 a step; after every epoch, the test and the inner part forward. A probe reads one mean token a sample, so its
arithmetic counts as nothing.
"""

from dataclasses import dataclass

from featurestore.featureset import FeatureSet

from .plan import Plan, PlannedRun

_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class Cost:
    """What the runs that are to do take.

    Attributes:
        runs: how many, teachers that are trained again included.
        flop: floating-point operations.
        samples: training samples times epochs.
        table_bytes: of the tokens that are held at once, as read and normalised, for the largest group of runs.
    """

    runs: int
    flop: float
    samples: int
    table_bytes: int

    def lines(self, flop_per_second: float | None = None) -> list[str]:
        """For a person."""
        told = [
            f"arithmetic  {_unit(self.flop, 'FLOP')} for {self.runs:,} runs, {self.samples:,} samples in all epochs",
            f"memory      {_unit(self.table_bytes, 'B')} of tokens at once; what does not fit is read in batches",
        ]
        if flop_per_second is not None:
            told.append(
                f"time        {_hours(self.flop / flop_per_second / 0.3)} at 0.3 of the matrix products measured here "
                f"({_unit(flop_per_second, 'FLOP/s')}); small heads take longer than their arithmetic"
            )
        return told


def plan_cost(plan: Plan) -> Cost:
    """The cost of the runs of a plan that are to do. What waits for a learning rate is not in it."""
    runs = [*plan.todo, *plan.again]
    costs = RunCosts()
    tables: dict[tuple[str, ...], int] = {}
    for run in runs:
        key = (run.rows.cohort.name, *(s.name for s in run.features.values()))
        if key not in tables:
            tables[key] = sum(_table_bytes(run, s, costs) for s in run.features.values())
    samples = sum(run.spec.n_train * run.spec.epochs for run in runs)
    return Cost(len(runs), sum(map(costs.flop, runs)), samples, max(tables.values(), default=0))


class RunCosts:
    """The arithmetic of runs; the lengths of reports are looked up once a feature set."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, float]] = {}

    def flop(self, run: PlannedRun) -> float:
        """Floating-point operations of a run, its evaluations included."""
        if run.kind.pools_means:
            return 0.0
        spec = run.spec
        evaluated = spec.n_test + spec.n_inner
        passes = {m: 2 * spec.n_train + (evaluated if m in run.method.serves else 0) for m in run.method.reads}
        total = 0.0
        for modality, samples in passes.items():
            n, n_squared = self.tokens(run, run.features[modality])
            d = run.features[modality].dim
            if spec.head == "query":
                total += samples * 4 * n * d
            else:
                steps = -(-spec.n_train // spec.batch_size)
                total += samples * 2 * (n * d * d + n_squared * d) + 6.0 * steps * d**3
        return total * spec.epochs

    def tokens(self, run: PlannedRun, feature_set: FeatureSet) -> tuple[float, float]:
        """Tokens of an item: the means of n and of n^2 over the common rows."""
        if feature_set.modality == "image":
            n = feature_set.layout.tokens
            return float(n), float(n * n)
        key = (run.rows.cohort.name, feature_set.name)
        if key not in self._known:
            rows = feature_set.committed(0, run.rows.samples[feature_set.modality].unique())
            counts = rows["tokens"].drop_nulls().to_numpy().astype(float)
            self._known[key] = (float(counts.mean()), float((counts * counts).mean()))
        return self._known[key]


def _table_bytes(run: PlannedRun, feature_set: FeatureSet, costs: RunCosts) -> int:
    n, _ = costs.tokens(run, feature_set)
    views = 1 + (run.spec.views if feature_set.modality == "image" else 0)
    return int(views * run.rows.samples.height * n * feature_set.dim * (2 + _BYTES[run.spec.precision]))


def _unit(number: float, unit: str) -> str:
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {prefix}{unit}"
    return f"{number:,.0f} {unit}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 3600 else f"{max(seconds, 1) / 60:.1f} minutes"
