"""What goes into and comes out of an encoder: the contract between encoders and whoever runs them.

Shapes: b items, n patches, L tokens of the longest report in the batch, d width. Knows no particular encoder; torch is
named in annotations only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .spec import EncoderSpec

if TYPE_CHECKING:
    from torch import Tensor


class ImageTokens(NamedTuple):
    """Tokens of b images, on the encoder's device: `.cpu()` waits until an accelerator has computed them.

    Attributes:
        patches: float32 [b, n, d], row by row over the grid.
        cls: float32 [b, d]; None where the encoder has no class token.
    """

    patches: "Tensor"
    cls: "Tensor | None"


class TextTokens(NamedTuple):
    """Tokens of b reports, on the CPU.

    Attributes:
        tokens: float32 [b, L, d]; zeros from `lengths[i]` on.
        lengths: int64 [b], special tokens included.
        truncated: bool [b], whether the end of the report was cut off.
    """

    tokens: "Tensor"
    lengths: "Tensor"
    truncated: "Tensor"


@dataclass(frozen=True)
class PreparedText:
    """Token ids of one report, special ones included, and whether its end was cut off. `len` is its token count."""

    ids: tuple[int, ...]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


class Encoder(Protocol):
    """A built encoder. The same for every one: who runs it does not know which it is."""

    @property
    def spec(self) -> EncoderSpec:
        """What it is."""
        ...

    @property
    def prepare(self) -> Callable[..., Any]:
        """The work on one item that needs no network; may be called from many threads at once.

        Args:
            payload: a Pillow image in mode "RGB" or "L", or the text of a report.
            crop: of images alone: the part that an augmented view shows (`views.Crop`); None for the clean view.

        Returns:
            A float32 tensor [3, crop_px, crop_px], or a PreparedText.

        Raises:
            ItemError: this item cannot be encoded.
        """
        ...

    def encode(self, prepared: Sequence[Any]) -> Any:
        """The tokens of at least one prepared item: ImageTokens or TextTokens, by the modality.

        How items are split into batches changes tokens by rounding only.
        """
        ...
