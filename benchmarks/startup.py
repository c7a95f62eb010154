"""How long `radfs --help` takes against Python's own start and against importing typer alone, interleaved in one run.

python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time

REPEATS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import typer": ["-c", "import typer, rich.console, rich.table"],
    "radfs --help": ["-m", "cli.main", "--help"],
    "radfs backbones": ["-m", "cli.main", "backbones"],
}


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds["import typer"])
    print(f"{'command':<18}{'median s':>10}{'min s':>8}{'of typer':>10}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<18}{median:>10.3f}{min(values):>8.3f}{median / base:>9.2f}x")


if __name__ == "__main__":
    main()
