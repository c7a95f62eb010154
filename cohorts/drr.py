"""Radiographs of a folder of CT volumes: many side by side, resumed where it stopped, failures on record.

<out>/<the volume's own path>.jpg    one for each volume; it is whole or absent
<out>/drr.json                       how they were made: other settings are refused
<out>/failures.csv                   volumes that gave none, and why; tried again the next time
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from featurestore.errors import DataError, ItemError
from featurestore.fsio import make_folder, write_atomic

from .radiograph import SUFFIXES, Projection, check_libraries, make_radiograph

_RECIPE = "drr.json"
_FAILURES = "failures.csv"


@dataclass(frozen=True)
class DrrReport:
    """What came of a run.

    Attributes:
        made: radiographs that were made.
        already: radiographs that were there.
        failures: volume and reason, where none could be made.
        out: the folder.
    """

    made: int
    already: int
    failures: tuple[tuple[str, str], ...]
    out: Path

    def lines(self) -> list[str]:
        """The report for printing."""
        lines = [f"{self.made:,} radiographs made, {self.already:,} were there, in {self.out}"]
        lines += [f"failed: {volume}: {reason}" for volume, reason in self.failures[:10]]
        if self.failures:
            lines.append(f"{len(self.failures):,} volumes failed, all listed in {self.out / _FAILURES}")
        return lines


@dataclass(frozen=True)
class DrrPlan:
    """Which volumes there are, and which of them lack a radiograph."""

    ct: Path
    out: Path
    volumes: tuple[Path, ...]
    todo: tuple[Path, ...]

    def image(self, volume: Path) -> Path:
        """Where the radiograph of a volume goes."""
        return _image(self.ct, self.out, volume)


def plan_radiographs(ct: str | os.PathLike[str], out: str | os.PathLike[str]) -> DrrPlan:
    """Look for volumes below `ct`, and for their radiographs below `out`. Writes nothing.

    Raises:
        DataError: no folder, no volume, or two volumes that would have one radiograph.
    """
    ct, out = Path(ct).expanduser(), Path(out).expanduser()
    if not ct.is_dir():
        raise DataError(f"--ct {ct} is not a folder. Name the folder of the CT volumes.")
    volumes = tuple(sorted(path for path in ct.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file()))
    if not volumes:
        raise DataError(f"--ct {ct} holds no volume: no file below it ends in {', '.join(SUFFIXES)}.")
    owner: dict[Path, Path] = {}
    for volume in volumes:
        first = owner.setdefault(_image(ct, out, volume), volume)
        if first != volume:
            raise DataError(f"{first} and {volume} would have the same radiograph: rename one of them.")
    return DrrPlan(ct, out, volumes, tuple(v for image, v in owner.items() if not image.is_file()))


def make_radiographs(
    ct: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    projection: Projection | None = None,
    workers: int | None = None,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> DrrReport:
    """Make the radiographs that are missing. Killed at any moment, the next call goes on.

    Args:
        ct: folder of volumes (`SUFFIXES`), also in folders below it.
        out: where the images go, in the same folders, `.jpg` in place of the suffix.
        projection: how; None for the paper's, as far as it says.
        workers: volumes side by side; None for one a processor core. Each holds its volume in memory twice.
        on_progress: called with (done, total, failed).

    Raises:
        DataError: as `plan_radiographs`; plastimatch or a library is missing; `out` was made with other settings.
    """
    projection = Projection() if projection is None else projection
    if workers is not None and workers < 1:
        raise DataError(f"workers {workers} is not allowed: one is the least.")
    check_libraries()
    recipe = projection.recipe()
    plan = plan_radiographs(ct, out)
    _keep_recipe(plan.out, recipe)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers or cores, len(plan.todo)) or 1

    def make(volume: Path) -> None:
        write_atomic(plan.image(volume), make_radiograph(volume, projection, threads=max(1, cores // workers)))

    failures: list[tuple[str, str]] = []
    done = 0
    for volume, error in _side_by_side(make, plan.todo, workers):
        done += 1
        if error is not None:
            failures.append((volume.relative_to(plan.ct).as_posix(), error))
        if on_progress is not None:
            on_progress(done, len(plan.todo), len(failures))
    _keep_failures(plan.out, sorted(failures))
    return DrrReport(
        made=done - len(failures),
        already=len(plan.volumes) - len(plan.todo),
        failures=tuple(sorted(failures)),
        out=plan.out,
    )


def _side_by_side(
    make: Callable[[Path], None], volumes: Sequence[Path], workers: int
) -> Iterator[tuple[Path, str | None]]:
    """Each volume as it ends, with the reason where it failed. An interrupt waits for the volumes under way only."""
    waiting, under_way = iter(volumes), dict[Future[None], Path]()
    with ThreadPoolExecutor(workers) as pool:
        while True:
            while len(under_way) < workers and (volume := next(waiting, None)) is not None:
                under_way[pool.submit(make, volume)] = volume
            if not under_way:
                return
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                volume = under_way.pop(future)
                try:
                    future.result()
                except ItemError as error:
                    yield volume, str(error)
                else:
                    yield volume, None


def _image(ct: Path, out: Path, volume: Path) -> Path:
    suffix = next(suffix for suffix in SUFFIXES if volume.name.endswith(suffix))
    return out / volume.relative_to(ct).parent / f"{volume.name.removesuffix(suffix)}.jpg"


def _keep_recipe(out: Path, recipe: dict[str, object]) -> None:
    path = out / _RECIPE
    if path.is_file():
        try:
            kept = json.loads(path.read_bytes())
        except ValueError:
            raise DataError(f"{path} cannot be read. Remove {out} and make its radiographs again.") from None
        other = [f"{key} {kept.get(key)!r}, not {value!r}" for key, value in recipe.items() if kept.get(key) != value]
        if other:
            raise DataError(
                f"the radiographs in {out} were made with {', '.join(other)}. Choose another --out, or those settings."
            )
        return
    make_folder(out)
    write_atomic(path, json.dumps(recipe, indent=2).encode())


def _keep_failures(out: Path, failures: Sequence[tuple[str, str]]) -> None:
    """Write the failures of this run; without any, those of the last one are over."""
    path = out / _FAILURES
    if failures:
        frame = pl.DataFrame(failures, schema={"volume": pl.String, "reason": pl.String}, orient="row")
        write_atomic(path, frame.write_csv().encode())
    else:
        path.unlink(missing_ok=True)
