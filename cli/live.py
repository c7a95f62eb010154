"""The live table of a training: runs done, samples a second, share of the measured matrix products, time left."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from .output import LINE_EVERY_S

if TYPE_CHECKING:
    from heads.train import Progress


_QUIET_S = 1.0


@contextmanager
def training_table(*, measure: bool, device: str) -> "Iterator[Callable[[Progress], None]]":
    """A table on stderr; yields what takes progress. With `measure`, matrix products are timed for a second first."""
    from rich.console import Console
    from rich.live import Live

    speed = _Speed(device if measure else None)
    if not sys.stderr.isatty():
        yield speed.line
        return
    with Live(console=Console(stderr=True), refresh_per_second=4, get_renderable=speed.table):
        yield speed.add


@dataclass
class _Speed:
    """What a training has done so far.

    Attributes:
        measured_on: the device whose matrix products are to be timed; None: they are not.
    """

    measured_on: str | None
    started: float = field(default_factory=time.monotonic)
    latest: "Progress | None" = None
    failed: int = 0
    flop: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)
    costs: Any = None
    told: float = field(default_factory=time.monotonic)

    def add(self, progress: "Progress") -> None:
        """One run more."""
        self.latest = progress
        self.failed += progress.outcome == "failed"
        if self.measured_on is not None and progress.outcome == "trained":
            from heads.cost import RunCosts

            self.costs = self.costs or RunCosts()
            self.flop += self.costs.flop(progress.run)
            self._measure(progress.run.spec.precision)

    def line(self, progress: "Progress") -> None:
        """One run more, where stderr is no terminal: a plain line now and then, and one at the end."""
        self.add(progress)
        now = time.monotonic()
        if now - self.told >= LINE_EVERY_S or progress.finished == progress.total:
            self.told = now
            typer.echo(", ".join(f"{name}: {cell}" for name, cell in self._cells().items() if cell), err=True)

    def table(self) -> Any:
        """As it is now."""
        from rich.table import Table

        if self.latest is None and time.monotonic() - self.started < _QUIET_S:
            return ""  # it may be that nothing is to do
        table = Table(box=None, pad_edge=False, header_style="bold")
        cells = self._cells()
        for name in cells:
            table.add_column(name)
        table.add_row(*cells.values())
        return table

    def _cells(self) -> dict[str, str]:
        seconds, told = time.monotonic() - self.started, self.latest
        if told is None:
            return {"train": "loading tokens", "elapsed": _clock(seconds)}
        cells = {"train": f"{told.finished:,} of {told.total:,} runs"}
        if self.failed:
            cells["failed"] = str(self.failed)
        cells["samples/s"] = f"{told.samples / seconds:,.0f}" if seconds > 0.5 else ""
        if self.rates:
            cells["of measured products"] = f"{self.flop / seconds / max(self.rates.values()):.2f}"
        cells["elapsed"] = _clock(seconds)
        if told.samples:
            cells["left"] = _clock(seconds * (told.samples_total - told.samples) / told.samples)
        cells["last"] = told.run.label + ("" if told.auroc is None else f": AUROC {told.auroc:.3f}")
        return cells

    def _measure(self, precision: str) -> None:
        if precision not in self.rates:
            from heads.hardware import resolve_device
            from heads.rate import product_rate

            started = time.monotonic()
            self.rates[precision] = product_rate(precision, resolve_device(self.measured_on or "cpu"))
            self.started += time.monotonic() - started  # not training


def _clock(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}"
