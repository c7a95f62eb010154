"""The large fault campaign: operations killed at random moments, resumed, and compared with uninterrupted ones.

python -m benchmarks.faults --kills 200    # of all operations together; exits with 1 if anything was found
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

# Before torch: its threads must not spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.test_featurestore.faults import OPERATIONS, Campaign

COLUMNS = ("kills", "resumed", "lost", "duplicated", "wrong", "verify findings", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in total, shared among the operations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one operation: " + ", ".join(op.name for op in OPERATIONS))
    given = parser.parse_args()
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


if __name__ == "__main__":
    main()
