"""The large fault campaign: operations killed at random moments, resumed, and compared with uninterrupted ones.

python -m benchmarks.faults --kills 200    # of all operations together; exits with 1 if anything was found
python -m benchmarks.faults --walk         # a crash, a power loss and a failing disk at every point of a commit
"""

import argparse
import errno
import os
import random
import sys
import tempfile
import time
from pathlib import Path

# Before torch: its threads must not spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.test_featurestore.faults import OPERATIONS, Campaign
from tests.test_featurestore.walks import walk_collection, walk_commit, walk_failures

COLUMNS = ("kills", "resumed", "lost", "duplicated", "wrong", "verify findings", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in total, shared among the operations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one operation: " + ", ".join(op.name for op in OPERATIONS))
    parser.add_argument("--walk", action="store_true", help="every point of one small operation, in place of kills")
    given = parser.parse_args()
    if given.walk:
        walk()
        return
    operations = [op for op in OPERATIONS if given.only in (None, op.name)]
    kills = -(-given.kills // len(operations))
    print(f"{'operation':<20}" + "".join(f"{column:>17}" for column in COLUMNS), flush=True)
    total, clean = 0, True
    with tempfile.TemporaryDirectory(prefix="radfs-faults-") as folder:
        for i, operation in enumerate(operations):
            begin = time.monotonic()
            campaign = Campaign(operation, Path(folder) / str(i), random.Random(given.seed + i))
            tally = campaign.run(kills)
            cells = (tally.kills, tally.resumed, tally.lost, tally.duplicated, tally.wrong, len(tally.findings))
            print(
                f"{operation.name:<20}"
                + "".join(f"{cell:>17}" for cell in cells)
                + f"{time.monotonic() - begin:>17.1f}",
                flush=True,
            )
            for finding in sorted(set(tally.findings)):
                print(f"    {finding}")
            total, clean = total + tally.kills, clean and tally.clean
    print(f"{total} kills: {'nothing lost, duplicated or wrong, nothing left over' if clean else 'DAMAGE'}")
    sys.exit(not clean)


def walk() -> None:
    """An assertion fails where a point leaves the store in a state that it must not be in."""
    calls = ("open", "mkdir", "writev", "fsync", "link", "replace")
    with tempfile.TemporaryDirectory(prefix="radfs-faults-") as name:
        folder = Path(name)
        for layout in ("image", "text", "archive"):
            print(f"{walk_commit(folder / layout, layout):>6} states of a commit, {layout}: sound", flush=True)
        print(f"{walk_collection(folder / 'gc'):>6} states of a collection: sound", flush=True)
        for error in (errno.ENOSPC, errno.EIO):
            count = walk_failures(folder / str(error), error, calls)
            print(f"{count:>6} points at which the disk fails, {os.strerror(error)}: sound", flush=True)


if __name__ == "__main__":
    main()
