"""Radiographs from CT volumes: volumes a minute with one, two and as many workers as there are cores, interleaved.

    python benchmarks/drr.py CT [--copies 8] [--rounds 2]

`CT` is one volume (.nii.gz, .mha, .nrrd). It is projected `--copies` times under as many names, each time from a cold
start of Plastimatch; the baseline is one worker, which gives Plastimatch all cores.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from cohorts.drr import make_radiographs


def measure(volumes: Path, workers: int, copies: int) -> float:
    """Volumes a minute."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        report = make_radiographs(volumes, out, workers=workers)
        assert report.made == copies, report.failures
        return 60 * copies / (time.perf_counter() - start)


def main() -> None:
    """Measure and print a line for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    suffix = "".join(arguments.ct.suffixes[-2:]) if arguments.ct.name.endswith(".gz") else arguments.ct.suffix
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        volumes = Path(folder)
        for i in range(arguments.copies):
            (volumes / f"ct{i}{suffix}").symlink_to(arguments.ct.absolute())
        rates: dict[int, list[float]] = {workers: [] for workers in sorted({1, 2, cores, 2 * cores})}
        for _ in range(arguments.rounds):
            for workers, measured in rates.items():
                measured.append(measure(volumes, workers, arguments.copies))
    base = statistics.median(rates[1])
    for workers, measured in rates.items():
        rate = statistics.median(measured)
        print(f"{workers} workers: {rate:.1f} volumes a minute, {rate / base:.2f} of one worker's", flush=True)


if __name__ == "__main__":
    main()
