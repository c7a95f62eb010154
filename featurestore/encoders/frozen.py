"""Running a frozen network over prepared items: the one implementation of Encoder that all encoders share.

An encoder's own file gives a forward function; this one cuts work into chunks that fit the caches, pads reports, reads
long ones in windows, and pins the precision. Knows no particular network. Loads torch when called.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ItemError
from ..views import Crop
from .preprocess import image_transform
from .spec import EncoderSpec, ImagePreprocessing, Precision, TextPreprocessing
from .tokens import ImageTokens, PreparedText, TextTokens

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage
    from torch import Tensor

    ImageForward = Callable[[Tensor], tuple[Tensor, Tensor | None]]
    TextForward = Callable[[Tensor, Tensor], Tensor]

# On a CPU larger chunks cost fresh pages at every layer: 64 images at a time are a third slower than 16, and a long
# report in a batch of 32 makes the others pay for its padding. An accelerator wants all the work at once.
_CPU_IMAGES = 16
_CPU_TOKENS = 1024
_ACCELERATOR_IMAGES = 256
_ACCELERATOR_TOKENS = 65_536


@contextmanager
def computing_in(precision: Precision, device: str) -> Iterator[None]:
    """No autograd, and products in this precision, whatever the process has set (cuDNN's default is TF32).

    float32 is full: no TF32 or bfloat16 products. Of the others, torch's autocast decides what stays in float32.

    WARN: these are settings of the process; do not encode while another thread trains on the same device.
    """
    import torch

    backends: Any = torch.backends  # its settings are modules made at run time
    settings = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
    before = [setting.fp32_precision for setting in settings]
    half = precision != "float32"
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        kind = torch.device(device).type
        with torch.inference_mode(), torch.autocast(kind, getattr(torch, precision) if half else None, enabled=half):
            yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


class ImageEncoder:
    """A frozen image network behind the Encoder protocol.

    Args:
        spec: an image encoder's.
        forward: input [b, 3, h, w], channels last in memory, on `device` -> patches [b, n, d] and class tokens [b, d]
            or None.
        device: where `forward` computes.
    """

    def __init__(self, spec: EncoderSpec, forward: "ImageForward", *, device: str) -> None:
        assert isinstance(spec.preprocessing, ImagePreprocessing)
        self.spec = spec
        self._forward = forward
        self._device = device
        self._transform = image_transform(spec.preprocessing)
        self._chunk = _CPU_IMAGES if device == "cpu" else _ACCELERATOR_IMAGES

    def prepare(self, payload: "PilImage", crop: Crop | None = None) -> "Tensor":
        """Float32 [3, crop_px, crop_px]."""
        return self._transform(payload, crop)

    def encode(self, prepared: "Sequence[Tensor]") -> ImageTokens:
        """Patches [b, n, d] and class tokens [b, d] or None."""
        import torch

        dim, on_cpu = self.spec.tokens.dim, self._device == "cpu"
        # Allocated outside inference mode, so that the caller gets ordinary tensors.
        patches = torch.empty(len(prepared), self.spec.max_tokens, dim, device=self._device)
        cls = torch.empty(len(prepared), dim, device=self._device) if self.spec.tokens.has_cls else None
        with computing_in(self.spec.precision, self._device):
            for start in range(0, len(prepared), self._chunk):
                rows = slice(start, start + self._chunk)
                images = torch.stack(list(prepared[rows]))
                if not on_cpu:
                    # From pinned memory the copy runs beside the computing, and nothing here waits for either.
                    images = images.pin_memory().to(self._device, non_blocking=True)
                images = images.contiguous(memory_format=torch.channels_last)
                some_patches, some_cls = self._forward(images)
                patches[rows] = some_patches
                if cls is not None and some_cls is not None:
                    cls[rows] = some_cls
        return ImageTokens(patches, cls)


class TextEncoder:
    """A frozen text network behind the Encoder protocol.

    Args:
        spec: a text encoder's.
        tokenize: text -> ids of all its words, without special tokens and however many; threads share it.
        special_ids: of the spec's special tokens, in their order.
        forward: ids [b, L] and mask [b, L] (int64, 1 for real tokens) on `device` -> tokens [b, L, d].
        device: where `forward` computes.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        tokenize: Callable[[str], Sequence[int]],
        forward: "TextForward",
        *,
        device: str,
        special_ids: Sequence[int] = (),
    ) -> None:
        assert isinstance(spec.preprocessing, TextPreprocessing)
        assert len(special_ids) == len(spec.preprocessing.special_tokens)
        self.spec = spec
        self._text = spec.preprocessing
        self._tokenize = tokenize
        self._forward = forward
        self._device = device
        self._before, self._after = tuple(special_ids[:1]), tuple(special_ids[1:])
        self._chunk_tokens = _CPU_TOKENS if device == "cpu" else _ACCELERATOR_TOKENS

    def prepare(self, payload: str) -> PreparedText:
        """Token ids of one report. Blank text, and text of invisible characters alone, is an ItemError."""
        try:
            payload.encode()
        except UnicodeEncodeError:
            raise ItemError("the text is not valid Unicode") from None
        words = tuple(self._tokenize(payload))
        if not words:
            raise ItemError("empty text")
        room = self._text.max_tokens - len(self._before) - len(self._after)
        return PreparedText((*self._before, *words[:room], *self._after), truncated=len(words) > room)

    def encode(self, prepared: Sequence[PreparedText]) -> TextTokens:
        """Tokens [b, L, d], lengths [b], truncated [b]."""
        import torch

        lengths = [len(item) for item in prepared]
        tokens = torch.zeros(len(prepared), max(lengths), self.spec.tokens.dim)
        windows = [(row, window) for row, length in enumerate(lengths) for window in self._windows(length)]
        sizes = [window.stop - window.start for _, window in windows]
        with computing_in(self.spec.precision, self._device):
            for chunk in _chunks_by_length(sizes, self._chunk_tokens):
                ids = torch.zeros(len(chunk), sizes[chunk[-1]], dtype=torch.int64)
                mask = torch.zeros_like(ids)
                for i, (row, window) in enumerate(windows[j] for j in chunk):
                    ids[i, : sizes[chunk[i]]] = torch.tensor(self._ids(prepared[row], window))
                    mask[i, : sizes[chunk[i]]] = 1
                output = self._forward(ids.to(self._device), mask.to(self._device)).float().cpu()
                for i, (row, window) in enumerate(windows[j] for j in chunk):
                    kept = slice(window.first - window.start, window.last - window.start)
                    tokens[row, window.first : window.last] = output[i, kept]
        return TextTokens(tokens, torch.tensor(lengths), torch.tensor([item.truncated for item in prepared]))

    def _ids(self, report: PreparedText, window: "Window") -> tuple[int, ...]:
        """What the network reads: the window's words between the special tokens."""
        before, after = len(self._before), len(self._after)
        return (*self._before, *report.ids[window.start + before : window.stop - after], *self._after)

    def _windows(self, length: int) -> "list[Window]":
        return windows_of(length, self._text.context_length, self._text.overlap, len(self._before), len(self._after))


class Window(NamedTuple):
    """Tokens [start, stop) of a report that the network reads at once, of which it gives [first, last)."""

    start: int
    stop: int
    first: int
    last: int


def windows_of(length: int, context: int, overlap: int, before: int = 0, after: int = 0) -> list[Window]:
    """The windows in which a report of `length` tokens is read: one, if it fits.

    The special tokens count as the first and the last ones of the report and of each window. The last window ends
    where the report does and is as long as the others. In the stretch that two windows share, the first half comes from
    the earlier one, so that a token is never taken from where the network saw little around it.

    Args:
        length: tokens of the report, special ones included.
        context: most tokens of a window.
        overlap: least number of words that neighbours share.
        before: special tokens at the beginning.
        after: special tokens at the end.
    """
    step = context - before - after - overlap
    starts = [*range(0, max(0, length - context), step), max(0, length - context)]
    cuts = [(left + context - after + right + before) // 2 for left, right in itertools.pairwise(starts)]
    ends = zip(starts, [0, *cuts], [*cuts, length], strict=True)
    return [Window(start, min(start + context, length), first, last) for start, first, last in ends]


def _chunks_by_length(lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Positions from the shortest report to the longest, cut where rows x longest would exceed `most_tokens`."""
    chunk: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if chunk and (len(chunk) + 1) * lengths[row] > most_tokens:
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk
