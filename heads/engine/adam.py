"""Adam (Kingma and Ba, 2015) for stacked runs, each with its own learning rate and its own number of steps.

PyTorch's fused kernel takes one learning rate a call and one step count a tensor, so neighbours that agree in both are
updated as one block: a fleet of equals in a single call, one of strangers slice by slice.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby

import torch
from torch import Tensor

BETAS, EPS = (0.9, 0.999), 1e-8


class StackedAdam:
    """Moments of R places; a place is taken by one run after another.

    Attributes:
        counts: steps that the run at each place has taken.
    """

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        """`params`: the stacked tensors [R, ...] that `step` updates in place."""
        self._params = params
        self._means, self._squares = ({k: torch.zeros_like(v) for k, v in params.items()} for _ in range(2))
        places = len(next(iter(params.values())))
        self._lr = [0.0] * places
        self.counts = [0] * places

    def reset(self, place: int, lr: float) -> None:
        """A new run takes this place."""
        self._lr[place], self.counts[place] = lr, 0
        for moment in (*self._means.values(), *self._squares.values()):
            moment[place] = 0

    def move(self, source: int, place: int) -> None:
        """The run at `source` goes on at `place`."""
        self._lr[place], self.counts[place] = self._lr[source], self.counts[source]
        for moment in (*self._means.values(), *self._squares.values()):
            moment[place] = moment[source]

    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """One step of the runs at places 0..k-1, from gradients stacked [k, ...]."""
        # The kernel walks all tensors in the order of memory, so a gradient that lies transposed would be mixed up.
        gradients = {name: gradient.contiguous() for name, gradient in gradients.items()}
        active = len(next(iter(gradients.values())))
        for lr, start, stop in self._blocks(active):
            for place in range(start, stop):
                self.counts[place] += 1
            block = slice(start, stop)
            count = torch.tensor(float(self.counts[start]), device=next(iter(gradients.values())).device)
            torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage]
                [self._params[name][block] for name in gradients],
                [gradient[block] for gradient in gradients.values()],
                [self._means[name][block] for name in gradients],
                [self._squares[name][block] for name in gradients],
                [],
                [count] * len(gradients),
                lr=lr,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=0.0,
                eps=EPS,
                amsgrad=False,
                maximize=False,
            )

    def _blocks(self, active: int) -> Iterator[tuple[float, int, int]]:
        """(learning rate, first place, place after the last) of neighbours that agree."""
        keys = [(self._lr[place], self.counts[place]) for place in range(active)]
        start = 0
        for (lr, _), members in groupby(keys):
            stop = start + len(list(members))
            yield lr, start, stop
            start = stop
