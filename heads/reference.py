"""The reference head: the paper's attention head as plainly as PyTorch says it, one head, one loop.

This is the truth that everything faster is judged by, so it stays boring: no algebra, no sharing between runs, no
clever batching. It takes from the engine only what must be common to be comparable: initial parameters, batch order,
dropout masks, the checks of the inputs, and the record of epochs with its metrics.
"""

import math
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torch.nn.utils.rnn import pad_sequence

from .engine import HeadConfig, HeadResult, TokenTable
from .engine.run import RunLog, check_finite, check_inputs
from .engine.streams import DropoutMasks, batch_orders, initial_state


class AttentionHead(nn.Module):
    """LayerNorm, one self-attention head, mean pooling, linear classifier (the paper's section 2.2 and appendix A).

    The linear layers come uninitialised: `initial_state` fills them from a seed, where torch.nn.Linear would read the
    global generator.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.query = skip_init(nn.Linear, dim, dim)
        self.key = skip_init(nn.Linear, dim, dim)
        self.value = skip_init(nn.Linear, dim, dim)
        self.classifier = skip_init(nn.Linear, dim, classes)

    def forward(self, tokens: Tensor, real: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits [b, C].

        Args:
            tokens: [b, n, d], as the encoder gave them; whatever stands at padding is not read.
            real: bool [b, n], False at padding; each item has a real token.
            mask: dropout on the attention weights [b, n, n], 0 or 1/(1-p); None outside training.
        """
        x = self.norm(tokens.masked_fill(~real[:, :, None], 0.0))
        query, key, value = self.query(x), self.key(x), self.value(x)
        scores = query @ key.transpose(1, 2) / math.sqrt(x.shape[2])
        weights = scores.masked_fill(~real[:, None, :], -math.inf).softmax(dim=2)
        if mask is not None:
            weights = weights * mask
        attended = (weights @ value).masked_fill(~real[:, :, None], 0.0)
        pooled = attended.sum(dim=1) / real.sum(dim=1, keepdim=True)
        return self.classifier(pooled)


def train_reference(
    tokens: TokenTable, labels: np.ndarray, train: np.ndarray, test: np.ndarray, config: HeadConfig
) -> HeadResult:
    """Train one head in a plain loop; arguments, result and errors as `heads.engine.train_head`."""
    check_inputs(tokens, labels, train, test, config)
    started = time.perf_counter()
    targets = torch.from_numpy(labels.astype(np.int64))
    head = AttentionHead(tokens.dim, config.classes)
    head.load_state_dict(initial_state(tokens.dim, config.classes, seed=config.init_seed))
    optimizer = torch.optim.Adam(head.parameters(), lr=config.lr)
    orders = batch_orders(len(train), batch_size=config.batch_size, seed=config.batch_seed)
    masks = DropoutMasks(config.dropout, seed=config.dropout_seed)
    log = RunLog(labels[test])
    for epoch in range(1, config.epochs + 1):
        losses = []
        for order in next(orders):
            items = train[order.numpy()]
            padded, real = padded_tokens(tokens, items)
            logits = head(padded, real, masks.draw(*real.shape))
            loss = nn.functional.cross_entropy(logits, targets[items])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            check_finite("training loss", loss.item(), epoch=epoch)
            losses.append(loss.item() * len(items))
        with torch.no_grad():
            batches = np.split(test, range(config.batch_size, len(test), config.batch_size))
            logits = torch.cat([head(*padded_tokens(tokens, items)) for items in batches])
        log.add_epoch(sum(losses) / len(train), logits)
    seconds = time.perf_counter() - started
    return log.result(head.state_dict(), samples_per_second=config.epochs * len(train) / seconds)


def padded_tokens(tokens: TokenTable, items: np.ndarray) -> tuple[Tensor, Tensor]:
    """(tokens [b, n, d] float32 as given, padded to the longest item; real bool [b, n]) of some items."""
    rows = [tokens.raw_tokens(int(item)) for item in items]
    real = pad_sequence([torch.ones(len(r), dtype=torch.bool) for r in rows], batch_first=True)
    return pad_sequence(rows, batch_first=True), real
