"""What an encoder is, as frozen data: network, weights, how they are loaded, preprocessing, tokens, variants.

Specs are listed, printed and hashed without torch, Pillow or any encoder library. What changes numbers goes into
`EncoderSpec.key_config`; what does not (licence, objective, notes) stays out of it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ..errors import unknown_name
from ..images import DECODER
from ..keys import canonical_json
from ..views import RECIPE
from .sources import WeightSource

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, ...] = ("image", "text")

Objective = Literal["image-ssl", "text-ssl", "text-supervised", "aligned", "supervised", "none", "unknown"]
"""How the weights were trained (columns of Table 1; text-supervised: with reports but without alignment; supervised:
on labels; text-ssl: a text network from text alone; none: not trained)."""

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
"""What networks compute in. float32 is full single precision, without TF32 or bfloat16 products; the others are
torch's autocast: products in half precision, sums, softmax and norms in float32."""

LONG_TEXTS = ("truncate", "window")
_WINDOWS = 8


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The call that makes the network.

    Attributes:
        library: whose network it is; radfs for the projections that tests use.
        name: of the model or class in that library.
        options: passed on to it.
    """

    library: Literal["timm", "transformers", "open_clip", "radfs", "file"]
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.library}:{self.name}"


@dataclass(frozen=True, kw_only=True)
class LoadRule:
    """How the network's tensors are found in the published file. Loading is always strict.

    What is left after these steps must be the network's tensors: no more, no fewer, of the same shapes.

    Attributes:
        top_key: of the dictionary that holds the tensors; empty where the file is that dictionary. A file of nothing
            but tensors (safetensors, for one) is read as if it were that dictionary.
        drop: patterns (as file names are matched) of what the file holds beyond the network.
        strip_prefix: taken off every name that is left.
        rename: parts of names, the file's and the network's.
    """

    top_key: str = ""
    drop: tuple[str, ...] = ()
    strip_prefix: str = ""
    rename: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImagePreprocessing:
    """From an 8-bit RGB image to the network's input, in this order.

    Attributes:
        min_max: stretch the whole image first, so that its darkest value is 0 and its brightest 255 (truncated).
        gray: when it becomes gray, as three equal channels: before resizing, after cropping, or never.
        fit: "shorter": the shorter side becomes resize_px; "stretch": both sides do; "pad": the longer side does, and
            black is added around the image until it is square.
        resize_px: see `fit`.
        interpolation: antialiased; "area" is OpenCV's.
        resizer: the library that resizes and crops. They differ by grey levels, and by one pixel in where a crop
            starts: hub-pil (a transformers processor over Pillow) rounds down, torchvision to the nearest.
        crop_px: side of the square cut from the centre.
        mean: subtracted per channel, after scaling to [0, 1].
        std: divided by per channel.
    """

    resize_px: int
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest", "area"]
    crop_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Literal["shorter", "stretch", "pad"] = "shorter"
    gray: Literal["", "first", "cropped"] = ""
    resizer: Literal["torchvision-pil", "hub-pil", "opencv"] = "torchvision-pil"
    min_max: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.crop_px <= self.resize_px:
            raise ValueError(f"crop_px {self.crop_px} must be positive and at most resize_px {self.resize_px}")


@dataclass(frozen=True, kw_only=True)
class TextPreprocessing:
    """From a report to token ids.

    Attributes:
        tokenizer: the algorithm; its vocabulary, where it has one, is among the weights' files.
        context_length: most tokens that the network reads at once, special ones included.
        lower_case: drops letter case (and accents, for WordPiece).
        special_tokens: kept as tokens, once a report: the first before its words, the others after them. The same
            strings written inside a report are ordinary text.
        windows: most windows that a longer report is read in. What does not fit into them is cut off and flagged.
        overlap: tokens that neighbouring windows share. Each token is taken from the window that shows more around it.
    """

    tokenizer: Literal["bert-wordpiece", "words-crc32", "hub", "open_clip"]
    context_length: int
    lower_case: bool
    special_tokens: tuple[str, ...]
    windows: int = 1
    overlap: int = 0

    def __post_init__(self) -> None:
        if not (self.windows >= 1 and 0 <= self.overlap < self.context_length - len(self.special_tokens)):
            raise ValueError(f"{self.windows} windows with overlap {self.overlap} do not fit {self.context_length}")

    @property
    def max_tokens(self) -> int:
        """Most tokens that a report keeps, special ones included."""
        step = self.context_length - len(self.special_tokens) - self.overlap
        return self.context_length + (self.windows - 1) * step


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """The shape of one item's tokens.

    Attributes:
        dim: width of a token.
        grid: rows and columns of an image's patches, which come row by row; None for text.
        has_cls: whether an image has a class token, which is kept apart from its patches.
        dropped: tokens of the network between CLS and patches that are not kept (registers).
    """

    dim: int
    grid: tuple[int, int] | None = None
    has_cls: bool = False
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A choice that the paper leaves open, or on which it differs from the encoder's authors.

    Attributes:
        axis: name of the choice.
        reason: why the default is the default.
        choices: by name, the fields of the spec that it replaces. The first is the default, and replaces none.
    """

    axis: str
    reason: str
    choices: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        if next(iter(self.choices.values()), None) != {}:
            raise ValueError(f"variant {self.axis!r}: its first choice is the default and must replace nothing")

    @property
    def default(self) -> str:
        """The choice that is taken where none is named."""
        return next(iter(self.choices))


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """A frozen image or text network with its weights and its preprocessing.

    Attributes:
        name: as in `ENCODERS`, and the first part of the names of its feature sets.
        modality: what it reads.
        architecture: the call that makes the network.
        weights: where the weights come from.
        load: how they are found in the file.
        preprocessing: belongs to the weights; no caller passes any.
        tokens: the shape of what it gives.
        output: which output the tokens are, as the encoder's code reads it.
        layer: the same in words.
        builder: "module:function" that takes the spec and `device=` and gives an Encoder. Where the weights are files,
            the module has a function `network(spec)` too, whose state's names are those of the file.
        objective: how the weights were trained.
        pretraining: names of the data sets that the weights have seen (Table 8).
        licence: of the weights.
        terms: what a user must know before use, where the licence is gated or not commercial; else empty.
        variants: what can be chosen.
        chosen: (axis, choice) of each variant that is not at its default.
        notes: what a reader should know.
        precision: what the network computes in.
        asked: what `--backbone` takes for a model without a line in `ENCODERS`; else empty, and it takes the name.
        cautions: (precision, what to know before it is chosen) where half precision costs this network much.
        code_version: raised when a correction of this encoder's code changes its numbers.
    """

    name: str
    modality: Modality
    architecture: Architecture
    weights: WeightSource
    load: LoadRule = LoadRule()
    preprocessing: ImagePreprocessing | TextPreprocessing
    tokens: TokenLayout
    output: str = ""
    layer: str
    builder: str
    objective: Objective
    pretraining: tuple[str, ...]
    licence: str
    terms: str = ""
    variants: tuple[Variant, ...] = ()
    chosen: tuple[tuple[str, str], ...] = ()
    notes: str = ""
    precision: Precision = "float32"
    asked: str = ""
    cautions: tuple[tuple[Precision, str], ...] = ()
    code_version: int = 1

    def __post_init__(self) -> None:
        is_image = isinstance(self.preprocessing, ImagePreprocessing) and self.tokens.grid is not None
        is_text = isinstance(self.preprocessing, TextPreprocessing) and self.tokens == TokenLayout(dim=self.tokens.dim)
        if not (is_image if self.modality == "image" else is_text):
            raise ValueError(f"encoder {self.name!r}: preprocessing and tokens do not fit modality {self.modality!r}")

    def computed_in(self, precision: str) -> "EncoderSpec":
        """The same encoder in another precision.

        Raises:
            UnknownNameError: none of `PRECISIONS`.
        """
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, PRECISIONS)
        return replace(self, precision=precision)

    def with_long_text(self, how: str) -> "EncoderSpec":
        """The same encoder, that cuts long reports ("truncate") or reads them in overlapping windows ("window").

        Neighbouring windows share a quarter of the context length; encoders of images are left as they are.

        Raises:
            UnknownNameError: none of `LONG_TEXTS`.
        """
        if how not in LONG_TEXTS:
            raise unknown_name("way with long texts", how, LONG_TEXTS)
        if how == "truncate" or not isinstance(self.preprocessing, TextPreprocessing):
            return self
        windowed = replace(self.preprocessing, windows=_WINDOWS, overlap=self.preprocessing.context_length // 4)
        return replace(self, preprocessing=windowed)

    @property
    def caution(self) -> str:
        """What to know of the precision that was chosen; empty where nothing is."""
        return dict(self.cautions).get(self.precision, "")

    @property
    def context_length(self) -> int | None:
        """Most tokens that a network of texts reads at once; None for images."""
        return self.preprocessing.context_length if isinstance(self.preprocessing, TextPreprocessing) else None

    @property
    def max_tokens(self) -> int:
        """Most tokens of an item: of an image exactly so many, a class token apart."""
        if isinstance(self.preprocessing, TextPreprocessing):
            return self.preprocessing.max_tokens
        height, width = self.tokens.grid or (0, 0)
        return height * width

    @property
    def lower_case(self) -> bool | None:
        """Whether a report's letter case is dropped; None for images."""
        return self.preprocessing.lower_case if isinstance(self.preprocessing, TextPreprocessing) else None

    def key_config(self, weights_sha256: str) -> dict[str, Any]:
        """Everything of this encoder that changes numbers, as resolved: the encoder's part of a feature-set key.

        Variants are in it by what they change, so two choices that come to the same share a feature set.

        Args:
            weights_sha256: of the weights that are really used, as `weights.weights_sha256` gives it.
        """
        preprocessing = asdict(self.preprocessing)
        if self.modality == "image":
            preprocessing |= {"decoder": DECODER, "views": RECIPE}
        config = {
            "encoder": self.name,
            "modality": self.modality,
            "architecture": asdict(self.architecture),
            "weights_sha256": weights_sha256,
            "load": {"top_key": self.load.top_key, "strip_prefix": self.load.strip_prefix, "rename": self.load.rename},
            "preprocessing": preprocessing,
            "tokens": asdict(self.tokens),
            "output": self.output,
            "precision": self.precision,
            "code_version": self.code_version,
        }
        return json.loads(canonical_json(config))  # lists for tuples: equal to what a file gives back

    def describe(self) -> str:
        """The tokens in one line, such as "49 patch tokens 7x7 x 320, the output of the last block; no CLS"."""
        if isinstance(self.preprocessing, TextPreprocessing):
            special = " and ".join(self.preprocessing.special_tokens)
            count = f"up to {self.max_tokens} tokens x {self.tokens.dim}"
            if self.preprocessing.windows > 1:
                count += f" in windows of {self.preprocessing.context_length} that share {self.preprocessing.overlap}"
            kept = f"{special} kept as tokens" if special else "no special tokens"
            return f"{count}, {self.layer}; {kept}; {'lower-cased' if self.preprocessing.lower_case else 'cased'}"
        height, width = self.tokens.grid or (0, 0)
        count = f"{height * width} patch tokens {height}x{width} x {self.tokens.dim}"
        dropped = f"; {self.tokens.dropped} register tokens dropped" if self.tokens.dropped else ""
        return f"{count}, {self.layer}; {'CLS kept apart' if self.tokens.has_cls else 'no CLS'}{dropped}"
