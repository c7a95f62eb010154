"""Training one head: batches in seeded order, Adam, evaluation on the test items after every epoch.

Knows tensors and indices only. All that is random comes from `streams.py`: a run depends on nothing but its arguments.
"""

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .attention import choose_form, fold, head_logits
from .run import HeadConfig, HeadResult, RunLog, check_finite, check_inputs
from .streams import DropoutMasks, batch_orders, initial_state
from .tokens import TokenTable

# Padded tokens that are computed together. Large enough for the products; a ragged training batch is cut further, into
# items of similar length, which saves more padding than it costs in calls (measured best at 1,000 to 2,000).
_RAGGED_STEP_ROWS = 1_536
_DENSE_STEP_ROWS = 16_384
_EVALUATION_ROWS = 8_192


def train_head(
    tokens: TokenTable, labels: np.ndarray, train: np.ndarray, test: np.ndarray, config: HeadConfig
) -> HeadResult:
    """Train one attention head on the items `train` and report on the items `test` after every epoch.

    Equal to `heads.reference.train_reference` but for float rounding, and to itself bit for bit.

    Args:
        tokens: table of N items.
        labels: int [N], classes 0..C-1 (those of unused items are not looked at).
        train: int indices into the table.
        test: int indices into the table, disjoint from `train`.
        config: how to train.

    Raises:
        ValueError: for inputs that do not fit together (see `check_inputs`).
        FloatingPointError: naming the epoch, if a loss is not finite.
    """
    check_inputs(tokens, labels, train, test, config)
    started = time.perf_counter()
    targets = torch.from_numpy(labels.astype(np.int64))
    train_items, test_items = (torch.from_numpy(items.astype(np.int64)) for items in (train, test))
    state = initial_state(tokens.dim, config.classes, seed=config.init_seed)
    for name, parameter in state.items():
        parameter.requires_grad_(name != "key.bias")
    optimizer = torch.optim.Adam([p for p in state.values() if p.requires_grad], lr=config.lr, fused=True)
    orders = batch_orders(len(train_items), batch_size=config.batch_size, seed=config.batch_seed)
    masks = DropoutMasks(config.dropout, seed=config.dropout_seed)
    log = RunLog(labels[test])
    for epoch in range(1, config.epochs + 1):
        total = 0.0
        for order in next(orders):
            items = train_items[order]
            loss = train_step(state, optimizer, tokens, items, targets[items], masks)
            check_finite("training loss", loss, epoch=epoch)
            total += loss * len(items)
        log.add_epoch(total / len(train_items), predict_logits(state, tokens, test_items))
    seconds = time.perf_counter() - started
    return log.result(state, samples_per_second=config.epochs * len(train_items) / seconds)


def train_step(
    state: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    tokens: TokenTable,
    items: Tensor,
    targets: Tensor,
    masks: DropoutMasks,
) -> float:
    """One step of Adam on `items` (int64 [b]) with classes `targets` (int64 [b]); returns the loss before it."""
    lengths = tokens.lengths[items]
    mask = masks.draw(len(items), int(lengths.max()))
    maps = fold(state, choose_form(lengths, tokens.dim, training=True))
    ragged = tokens.tokens_per_item is None
    groups = list(tokens.length_groups(items, max_rows=_RAGGED_STEP_ROWS if ragged else _DENSE_STEP_ROWS))
    logits = []
    for positions in groups:
        batch = tokens.gather(items[positions])
        n = batch.x.shape[1]
        part = None if mask is None else mask[positions, :n, :n]
        logits.append(head_logits(maps, batch, part))
    loss = torch.nn.functional.cross_entropy(torch.cat(logits), targets[torch.cat(groups)])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def predict_logits(state: Mapping[str, Tensor], tokens: TokenTable, items: Tensor) -> Tensor:
    """Logits [len(items), C] without dropout, in the order of `items` (int64)."""
    maps = fold(state, choose_form(tokens.lengths[items], tokens.dim, training=False))
    logits = torch.empty(len(items), len(state["classifier.bias"]))
    for positions in tokens.length_groups(items, max_rows=_EVALUATION_ROWS):
        logits[positions] = head_logits(maps, tokens.gather(items[positions]))
    return logits
