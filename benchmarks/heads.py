"""Whole head trainings: the engine against what people write by hand, interleaved in one run.

    python -m benchmarks.heads [--rounds 3] [--runs 4] [--samples 512] [--epochs 2] [--device cpu] [--probes 300]

Same data, same epochs, same batch size, the same four metrics after every epoch. Times are per run. On a shared machine
only the ratios mean something, and the median over the rounds more than any one of them; with `--cpu-time`, seconds of
the processor over the number of threads, which a load of others hardly moves (with OMP_WAIT_POLICY=PASSIVE). Baselines:

    B0  a plain loop, separate linear query, key and value, float32
    B1  the same with scaled_dot_product_attention, torch.compile and bfloat16 autocast: the strong baseline
    B2  torch.func.vmap over stacked modules, float32
    B3  kaiko-eva's training on kept embeddings, float32 or bf16-mixed, where --eva names a Python that has it
    ref heads.reference, float32

`share` is the engine's arithmetic (the products of its algebra alone) over the matrix-product rate measured beside it.
"""

import sys

sys.path[:] = [folder for folder in sys.path if not folder.endswith("benchmarks")]  # this file is no package `heads`

import argparse
import csv
import os
import subprocess
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional as F

from heads.engine import HeadConfig, HeadData, HeadJob, TokenTable, train_heads
from heads.engine.attend import choose_form
from heads.engine.scores import METRIC_NAMES
from heads.metrics import get_metric
from heads.reference import train_reference

BATCH, TOKENS, DIM = 64, 196, 768


class PlainHead(nn.Module):
    """What a tutorial has: LayerNorm, three linear layers, softmax, dropout, mean, linear."""

    def __init__(self, dim: int, *, fused: bool) -> None:
        super().__init__()
        self.norm, self.classifier = nn.LayerNorm(dim), nn.Linear(dim, 2)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.dropout, self.fused = nn.Dropout(0.2), fused

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(tokens)
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.fused:
            rate = 0.2 if self.training else 0.0
            attended = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], dropout_p=rate)[
                :, 0
            ]
        else:
            weights = (query @ key.transpose(1, 2) / x.shape[2] ** 0.5).softmax(dim=2)
            attended = self.dropout(weights) @ value
        return self.classifier(attended.mean(dim=1))


class PlainProbe(nn.Module):
    """Mean of the normalised tokens and a linear layer; of tokens that are pooled before, the linear layer alone."""

    def __init__(self, dim: int, *, pooled: bool) -> None:
        super().__init__()
        self.norm, self.classifier, self.pooled = nn.LayerNorm(dim), nn.Linear(dim, 2), pooled

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classifier(tokens if self.pooled else self.norm(tokens).mean(dim=1))


class Study:
    """The data of the benchmark and the ways to train on it."""

    def __init__(self, samples: int, epochs: int, device: str, clock: Callable[[], float]) -> None:
        self.rng = rng = np.random.default_rng(0)
        n = samples + max(64, samples // 4)
        self.tokens = rng.standard_normal((n, TOKENS, DIM), dtype=np.float32).astype(np.float16)
        self.labels = np.arange(n) % 2
        order = rng.permutation(n)
        self.train, self.test, self.epochs, self.device = order[:samples], order[samples:], epochs, device
        self.clock = clock
        self.tables = {
            name: TokenTable.dense(self.tokens, dtype=dtype, device=device)
            for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
        }
        for table in self.tables.values():  # normalised once for all runs, before any clock
            table.gather(torch.zeros(1, 1, dtype=torch.int64))
            _ = table.means

    def engine(self, precision: str, runs: int, form: str = "attention", lr: float = 1e-4) -> float:
        """Seconds a run."""
        data = HeadData({"image": self.tables[precision]}, self.labels)
        jobs = [
            HeadJob(
                HeadConfig(classes=2, epochs=self.epochs, init_seed=s, batch_seed=s, dropout_seed=s, form=form, lr=lr),
                self.train,
                self.test,
            )
            for s in range(runs)
        ]
        return self._clock(lambda: list(train_heads(data, jobs))) / runs

    def reference(self) -> float:
        data = HeadData({"image": self.tables["fp32"]}, self.labels)
        job = HeadJob(
            HeadConfig(classes=2, epochs=self.epochs, init_seed=0, batch_seed=0, dropout_seed=0), self.train, self.test
        )
        return self._clock(lambda: train_reference(data, job))

    def plain(self, head: nn.Module, tokens: Tensor, *, autocast: bool, compiled: Callable | None = None) -> float:
        """Seconds of one run of a loop in plain PyTorch."""
        head, labels = head.to(self.device), torch.from_numpy(self.labels).to(self.device)
        forward = head if compiled is None else compiled
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-4)

        def loop() -> None:
            for _ in range(self.epochs):
                head.train()
                for batch in torch.from_numpy(self.rng.permutation(self.train)).split(BATCH):
                    with torch.autocast(self.device, torch.bfloat16, enabled=autocast):
                        loss = F.cross_entropy(forward(tokens[batch].float()), labels[batch])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                head.eval()
                with torch.no_grad(), torch.autocast(self.device, torch.bfloat16, enabled=autocast):
                    parts = [forward(tokens[batch].float()) for batch in torch.from_numpy(self.test).split(BATCH)]
                self._score(torch.cat(parts))

        return self._clock(loop)

    def stacked(self, runs: int) -> float:
        """Seconds a run of stacked modules under torch.func.vmap."""
        heads = [PlainHead(DIM, fused=False).to(self.device) for _ in range(runs)]
        skeleton = deepcopy(heads[0]).to("meta")
        params, buffers = stack_module_state(heads)  # pyright: ignore[reportArgumentType]
        optimizer = torch.optim.Adam(params.values(), lr=1e-4)
        tokens, labels = torch.from_numpy(self.tokens).to(self.device), torch.from_numpy(self.labels).to(self.device)

        def loss(p: dict[str, Tensor], b: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(skeleton, (p, b), (x,)), y)

        step = vmap(grad_and_value(loss), randomness="different")
        infer = vmap(lambda p, b, x: functional_call(skeleton, (p, b), (x,)), in_dims=(0, 0, None))

        def loop() -> None:
            for _ in range(self.epochs):
                skeleton.train()
                orders = torch.stack([torch.from_numpy(self.rng.permutation(self.train)) for _ in range(runs)])
                for batch in orders.split(BATCH, dim=1):
                    gradients, _ = step(params, buffers, tokens[batch].float(), labels[batch])
                    for name, parameter in params.items():
                        parameter.grad = gradients[name]
                    optimizer.step()
                skeleton.eval()
                with torch.no_grad():
                    batches = torch.from_numpy(self.test).split(BATCH)
                    logits = torch.cat([infer(params, buffers, tokens[batch].float()) for batch in batches], dim=1)
                for run in logits:
                    self._score(run)

        return self._clock(loop) / runs

    def eva(self, python: str, precision: str, runs: int = 1) -> float:
        """Seconds a run of kaiko-eva, in its own environment (`benchmarks/peers/eva.py`)."""
        with TemporaryDirectory() as folder:
            with (Path(folder) / "manifest.csv").open("w", newline="") as lines:
                manifest = csv.writer(lines)
                manifest.writerow(["embeddings", "target", "split"])
                for side, samples in (("train", self.train), ("val", self.test)):
                    for i in samples:
                        torch.save(torch.from_numpy(self.tokens[i].astype(np.float32)), Path(folder) / f"{i}.pt")
                        manifest.writerow([f"{i}.pt", self.labels[i], side])
            ask = [python, "-m", "benchmarks.peers.eva", folder, "--runs", f"{runs}", "--epochs", f"{self.epochs}"]
            quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
            told = subprocess.run(
                [*ask, "--precision", precision],
                capture_output=True,
                text=True,
                check=True,
                cwd=Path(__file__).parents[1],
                env=quiet,
            )
        wall, processor = told.stdout.split()[-2:]
        return float(processor if self.clock is processor_seconds else wall)

    def flop(self) -> float:
        """Floating-point operations of the products of one run of the engine."""
        steps, last = divmod(len(self.train), BATCH)
        total = 0.0
        for items, training in [(BATCH, True)] * steps + [(last, True)] * bool(last) + [(len(self.test), False)]:
            rows, squares = items * TOKENS, items * TOKENS**2
            folded = choose_form(rows, squares, DIM, training=training) == "folded"
            projections = (1 if folded else 2) * (2 if training else 1)
            products = (2 if folded else 3) if training else 1
            small = (3 if training else 1) * DIM**3 if folded else 0
            total += 2 * (projections * rows * DIM**2 + products * squares * DIM + small)
        return total * self.epochs

    def peak(self, dtype: torch.dtype) -> float:
        """FLOP/s of the largest product of a step."""
        x, w = (torch.randn(*shape, device=self.device).to(dtype) for shape in ((BATCH * TOKENS, DIM), (DIM, DIM)))
        repeats, out = 200 if self.device == "cuda" else 4, torch.empty_like(x)
        seconds = min(self._clock(lambda: [torch.mm(x, w, out=out) for _ in range(repeats)]) for _ in range(3))
        return 2 * repeats * BATCH * TOKENS * DIM**2 / seconds

    def _score(self, logits: Tensor) -> None:
        probabilities = logits.float().softmax(dim=1).cpu().numpy()
        for name in METRIC_NAMES:
            get_metric(name)(self.labels[self.test], probabilities)

    def _clock(self, do: Callable[[], object]) -> float:
        started = self.clock()
        do()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return self.clock() - started


def processor_seconds() -> float:
    """What this process has used of its cores, as if it had them alone."""
    return time.process_time() / torch.get_num_threads()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=4, help="runs of the engine a round")
    parser.add_argument("--samples", type=int, default=512, help="training samples; a quarter more for the test")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--probes", type=int, default=300, help="linear probes of the engine a round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--only", default="", help="comma-separated: B0,B1,B2,B3,B3 bf16,ref,engine bf16,engine fp32,probes"
    )
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the processor in place of the wall's")
    parser.add_argument("--eva", help="a Python with kaiko-eva: B3 is measured as well")
    arguments = parser.parse_args()
    clock = processor_seconds if arguments.cpu_time else time.perf_counter
    study = Study(arguments.samples, arguments.epochs, arguments.device, clock)
    tokens = torch.from_numpy(study.tokens).to(arguments.device)
    strong = PlainHead(DIM, fused=True).to(arguments.device)
    compiled = torch.compile(strong)
    ways: dict[str, Callable[[], float]] = {
        "B0": lambda: study.plain(PlainHead(DIM, fused=False), tokens, autocast=False),
        "B1": lambda: study.plain(strong, tokens, autocast=True, compiled=compiled),
        "B2": lambda: study.stacked(min(4, arguments.runs)),
        "ref": study.reference,
        "engine bf16": lambda: study.engine("bf16", arguments.runs),
        "engine fp32": lambda: study.engine("fp32", max(1, arguments.runs // 2)),
    }
    if arguments.eva is not None:
        ways["B3"] = lambda: study.eva(arguments.eva, "32-true")
        ways["B3 bf16"] = lambda: study.eva(arguments.eva, "bf16-mixed")
    only = set(filter(None, arguments.only.split(",")))
    chosen = {name: way for name, way in ways.items() if not only or name in only}
    if "B1" in chosen:
        ways["B1"]()  # compiles
    measure(study, chosen, arguments.rounds)
    if not only or "probes" in only:
        pooled = study.tables["fp32"].means[0].to(arguments.device)
        probes = {
            "B0": lambda: study.plain(PlainProbe(DIM, pooled=False), tokens, autocast=False),
            "B0 on pooled tokens": lambda: study.plain(PlainProbe(DIM, pooled=True), pooled, autocast=False),
            "engine": lambda: study.engine("fp32", arguments.probes, "mean", 1e-3),
        }
        print(f"\nlinear probes, {arguments.probes} runs")
        measure(study, probes, arguments.rounds, share=False)


def measure(study: Study, ways: dict[str, Callable[[], float]], rounds: int, *, share: bool = True) -> None:
    """Every way once a round, in turn; medians of the seconds a run, and of the ratios within a round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks = {"bf16": [], "fp32": []}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(way())
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
            peaks[name].append(study.peak(dtype) if share else 1.0)
    engines = [name for name in ways if name.startswith("engine")]
    print(f"{'way':<22}{'s a run':>10}" + "".join(f"{'/ ' + name:>16}" for name in engines) + f"{'share':>9}")
    for name, taken in seconds.items():
        ratios = [float(np.median(np.array(taken) / np.array(seconds[engine]))) for engine in engines]
        part = ""
        if share and name in engines:
            rates = np.array(peaks[name.removeprefix("engine ")])
            part = f"{float(np.median(study.flop() / np.array(taken) / rates)):>9.2f}"
        print(f"{name:<22}{np.median(taken):>10.4f}" + "".join(f"{ratio:>16.2f}" for ratio in ratios) + part)
    if share:
        print("matrix-product rate, TFLOP/s: " + ", ".join(f"{k} {np.median(v) / 1e12:.2f}" for k, v in peaks.items()))


if __name__ == "__main__":
    main()
