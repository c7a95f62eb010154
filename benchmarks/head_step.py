"""One training step and one whole training of the engine against the reference, interleaved in one run.

    python benchmarks/head_step.py [--rounds 20] [--threads 2]

Only ratios of one run mean something: on a busy machine all times grow. The reference's step gets its batch ready made
(padded, float32), the engine's step gathers its own; both draw their dropout mask. In the whole trainings each does all
that it does, evaluation after every epoch included, on the same data, epochs and metrics.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from heads.engine import HeadConfig, TokenTable, train_head
from heads.engine.streams import DropoutMasks, initial_state
from heads.engine.train import train_step
from heads.reference import AttentionHead, padded_tokens, train_reference

BATCH = 64


def dense_table(n_items: int, tokens: int, dim: int) -> TokenTable:
    return TokenTable.dense(np.random.default_rng(0).standard_normal((n_items, tokens, dim)).astype(np.float16))


def text_table(n_items: int, dim: int) -> TokenTable:
    """Reports of 8 to 160 tokens, 70 on average."""
    rng = np.random.default_rng(0)
    offsets = np.cumsum([0, *np.clip(rng.normal(70, 25, n_items), 8, 160).astype(np.int64)])
    return TokenTable.ragged(rng.standard_normal((offsets[-1], dim)).astype(np.float16), offsets)


def engine_step(table: TokenTable, items: torch.Tensor, targets: torch.Tensor) -> Callable[[], object]:
    state = initial_state(table.dim, 2, seed=0)
    for name, parameter in state.items():
        parameter.requires_grad_(name != "key.bias")
    optimizer = torch.optim.Adam([p for p in state.values() if p.requires_grad], lr=1e-4, fused=True)
    masks = DropoutMasks(0.2, seed=0)
    return lambda: train_step(state, optimizer, table, items, targets, masks)


def reference_step(table: TokenTable, items: torch.Tensor, targets: torch.Tensor) -> Callable[[], object]:
    head = AttentionHead(table.dim, 2)
    head.load_state_dict(initial_state(table.dim, 2, seed=0))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-4)
    masks = DropoutMasks(0.2, seed=0)
    tokens, real = padded_tokens(table, items.numpy())

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(head(tokens, real, masks.draw(*real.shape)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure_steps(table: TokenTable, rounds: int) -> tuple[float, float]:
    """Median milliseconds of a (reference, engine) step, taken in turn on one batch."""
    items = torch.from_numpy(np.random.default_rng(1).permutation(table.n_items)[:BATCH])
    steps = [make(table, items, torch.arange(BATCH) % 2) for make in (reference_step, engine_step)]
    times: list[list[float]] = [[], []]
    for _ in range(rounds + 2):
        for step, taken in zip(steps, times, strict=True):
            started = time.perf_counter()
            step()
            taken.append(1e3 * (time.perf_counter() - started))
    reference, engine = (float(np.median(taken[2:])) for taken in times)
    return reference, engine


def measure_trainings(table: TokenTable, epochs: int) -> tuple[float, float, float]:
    """Seconds of a whole (reference, engine) training on 1,000 items, 250 for the test; largest AUROC difference."""
    order, labels = np.random.default_rng(2).permutation(1250), np.arange(1250) % 2
    config = HeadConfig(classes=2, epochs=epochs, init_seed=0, batch_seed=1, dropout_seed=2)
    results, seconds = [], []
    for train in (train_reference, train_head):
        started = time.perf_counter()
        results.append(train(table, labels, order[:1000], order[1000:], config))
        seconds.append(time.perf_counter() - started)
    pairs = zip(*(result.epochs for result in results), strict=True)
    gap = max(abs(reference.metrics["auroc"] - engine.metrics["auroc"]) for reference, engine in pairs)
    return seconds[0], seconds[1], gap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="steps a side and shape")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the whole trainings")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    image, vit, text = dense_table(1250, 49, 320), dense_table(128, 196, 768), text_table(1250, 384)
    print(f"{'step (batch 64)':<24}{'reference ms':>14}{'engine ms':>12}{'ratio':>8}")
    for name, table in (("49 x 320", image), ("196 x 768", vit), ("text, 8-160 x 384", text)):
        reference, engine = measure_steps(table, arguments.rounds)
        print(f"{name:<24}{reference:>14.1f}{engine:>12.1f}{reference / engine:>8.1f}")
    title = f"training (1000 x {arguments.epochs})"
    print(f"\n{title:<24}{'reference s':>14}{'engine s':>12}{'ratio':>8}{'AUROC gap':>12}")
    for name, table in (("49 x 320", image), ("text, 8-160 x 384", text)):
        reference, engine, gap = measure_trainings(table, arguments.epochs)
        print(f"{name:<24}{reference:>14.1f}{engine:>12.1f}{reference / engine:>8.1f}{gap:>12.5f}")


if __name__ == "__main__":
    main()
