"""Running a frozen network over prepared items: the one implementation of Encoder that all encoders share.

An encoder's own file gives a forward function; this one cuts work into chunks that fit the caches, pads reports, and
pins the precision. Knows no particular network. Loads torch when called.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ItemError
from .preprocess import image_transform
from .spec import EncoderSpec, ImagePreprocessing, TextPreprocessing
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
def full_float32() -> Iterator[None]:
    """No autograd and no TF32 or bfloat16 products, whatever the process has set (cuDNN's default is TF32).

    WARN: these are settings of the process; do not encode while another thread trains on the same device.
    """
    import torch

    backends: Any = torch.backends  # its settings are modules made at run time
    settings = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        with torch.inference_mode():
            yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


class ImageEncoder:
    """A frozen image network behind the Encoder protocol.

    Args:
        spec: an image encoder's.
        forward: input [b, 3, h, w] on `device` -> patches [b, n, d] and class tokens [b, d] or None.
        device: where `forward` computes.
    """

    def __init__(self, spec: EncoderSpec, forward: "ImageForward", *, device: str) -> None:
        assert isinstance(spec.preprocessing, ImagePreprocessing)
        self.spec = spec
        self._forward = forward
        self._device = device
        self._transform = image_transform(spec.preprocessing)
        self._chunk = _CPU_IMAGES if device == "cpu" else _ACCELERATOR_IMAGES

    def prepare(self, payload: "PilImage") -> "Tensor":
        """Float32 [3, crop_px, crop_px]."""
        return self._transform(payload)

    def encode(self, prepared: "Sequence[Tensor]") -> ImageTokens:
        """Patches [b, n, d] and class tokens [b, d] or None."""
        import torch

        height, width = self.spec.tokens.grid or (0, 0)
        # Allocated outside inference mode, so that the caller gets ordinary tensors.
        patches = torch.empty(len(prepared), height * width, self.spec.tokens.dim)
        cls = torch.empty(len(prepared), self.spec.tokens.dim) if self.spec.tokens.has_cls else None
        with full_float32():
            for start in range(0, len(prepared), self._chunk):
                rows = slice(start, start + self._chunk)
                some_patches, some_cls = self._forward(torch.stack(list(prepared[rows])).to(self._device))
                patches[rows] = some_patches.cpu()
                if cls is not None and some_cls is not None:
                    cls[rows] = some_cls.cpu()
        return ImageTokens(patches, cls)


class TextEncoder:
    """A frozen text network behind the Encoder protocol.

    Args:
        spec: a text encoder's.
        tokenize: text -> token ids with the special ones, cut to the context length; threads share it.
        forward: ids [b, L] and mask [b, L] (int64, 1 for real tokens) on `device` -> tokens [b, L, d].
        device: where `forward` computes.
    """

    def __init__(
        self, spec: EncoderSpec, tokenize: Callable[[str], PreparedText], forward: "TextForward", *, device: str
    ) -> None:
        assert isinstance(spec.preprocessing, TextPreprocessing)
        self.spec = spec
        self._tokenize = tokenize
        self._forward = forward
        self._device = device
        self._special = len(spec.preprocessing.special_tokens)
        self._chunk_tokens = _CPU_TOKENS if device == "cpu" else _ACCELERATOR_TOKENS

    def prepare(self, payload: str) -> PreparedText:
        """Token ids of one report. Blank text, and text of invisible characters alone, is an ItemError."""
        try:
            payload.encode()
        except UnicodeEncodeError:
            raise ItemError("the text is not valid Unicode") from None
        prepared = self._tokenize(payload)
        if len(prepared) <= self._special:
            raise ItemError("empty text")
        return prepared

    def encode(self, prepared: Sequence[PreparedText]) -> TextTokens:
        """Tokens [b, L, d], lengths [b], truncated [b]."""
        import torch

        lengths = [len(item) for item in prepared]
        tokens = torch.zeros(len(prepared), max(lengths), self.spec.tokens.dim)
        with full_float32():
            for rows in _chunks_by_length(lengths, self._chunk_tokens):
                ids = torch.zeros(len(rows), lengths[rows[-1]], dtype=torch.int64)
                mask = torch.zeros_like(ids)
                for i, row in enumerate(rows):
                    ids[i, : lengths[row]] = torch.tensor(prepared[row].ids)
                    mask[i, : lengths[row]] = 1
                output = self._forward(ids.to(self._device), mask.to(self._device)).cpu()
                for i, row in enumerate(rows):
                    tokens[row, : lengths[row]] = output[i, : lengths[row]]
        return TextTokens(tokens, torch.tensor(lengths), torch.tensor([item.truncated for item in prepared]))


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
