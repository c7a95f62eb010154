"""Networks and tokenizers of open_clip's models: the image tower and the text tower of one file. Loads torch."""

from typing import TYPE_CHECKING, Any

import regex

from ..errors import DataError
from .checkpoint import read_tensors
from .frozen import ImageEncoder, TextEncoder
from .spec import EncoderSpec, TextPreprocessing, TokenLayout
from .transformers_models import quiet
from .weights import weight_files

if TYPE_CHECKING:
    from torch import Tensor

_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
"""What CLIP's tokenizer takes for a word, without its special tokens: written in a report they are ordinary text."""


def build_image(spec: EncoderSpec, *, device: str) -> ImageEncoder:
    """The image tower of an open_clip model."""
    visual = _loaded(spec).visual.to(device)

    def forward(images: "Tensor") -> "tuple[Tensor, Tensor | None]":
        found = visual.forward_intermediates(
            images, indices=1, intermediates_only=True, output_fmt="NLC", output_extra_tokens=True
        )
        prefix = found.get("image_intermediates_prefix")
        return found["image_intermediates"][-1], prefix[-1][:, 0] if prefix and spec.tokens.has_cls else None

    return ImageEncoder(spec, forward, device=device)


def build_text(spec: EncoderSpec, *, device: str) -> TextEncoder:
    """The text tower of an open_clip model. Tokens are those after its final norm."""
    import torch

    assert isinstance(spec.preprocessing, TextPreprocessing)
    context = spec.preprocessing.context_length
    model = _loaded(spec)
    # Of CLIP itself the text tower is no module of its own, and the method of the whole wants to be told the tower.
    tower, asked = (model.text, "") if hasattr(model, "text") else (model, "text_")
    tower.to(device)
    tokenizer = tokenizer_of(spec.architecture.name)
    tokenizer.pat = regex.compile(_WORDS, regex.IGNORECASE)

    def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
        # Filled up to the whole context length, as open_clip does: some towers look at what follows the text.
        whole = torch.nn.functional.pad(ids, (0, context - ids.shape[1]))
        wanted = {f"{asked}indices": 1, f"{asked}output_fmt": "NLC"}
        found = tower.forward_intermediates(text=whole, normalize_intermediates=True, intermediates_only=True, **wanted)
        return found["text_intermediates"][-1][:, : ids.shape[1]]

    ends = (tokenizer.sot_token_id, tokenizer.eot_token_id)
    return TextEncoder(spec, tokenizer.encode, forward, device=device, special_ids=ends)


def tokenizer_of(name: str) -> Any:
    """The tokenizer that the model's configuration names: CLIP's own, which comes with open_clip.

    Raises:
        DataError: it is another, or its tower appends a class token to the text.
    """
    import open_clip

    text: dict[str, Any] = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    other = text.get("hf_tokenizer_name") or ("SigLIP's" if "siglip" in name.lower() else "")
    if other or text.get("embed_cls") or text.get("tokenizer_kwargs"):
        why = f"reads with the tokenizer {other}" if other else "is set up in a way of its own"
        raise DataError(
            f"the text tower of {name} {why}, and only towers with CLIP's own tokenizer and layout are read. A text "
            "model of the hub is read as hf:ORG/MODEL."
        )
    return open_clip.get_tokenizer(name)


def image_layout(name: str, side: int) -> TokenLayout:
    """Shapes of the image tower's last block."""
    import open_clip
    import torch

    with quiet(), torch.device("meta"):
        visual: Any = open_clip.create_model(name, pretrained=None, load_weights=False, device="meta").visual
        found = visual.forward_intermediates(
            torch.zeros(1, 3, side, side), indices=1, intermediates_only=True, output_extra_tokens=True
        )
    _, dim, rows, columns = found["image_intermediates"][-1].shape
    prefix = found.get("image_intermediates_prefix")
    extra = prefix[-1].shape[1] if prefix else 0
    return TokenLayout(dim=dim, grid=(rows, columns), has_cls=extra > 0, dropped=max(0, extra - 1))


def _loaded(spec: EncoderSpec) -> Any:
    """The whole model with its weights, strictly, in evaluation mode, on the CPU."""
    import open_clip

    tensors = read_tensors(weight_files(spec)[0])
    tensors.pop("text.transformer.embeddings.position_ids", None)  # as open_clip does: old transformers wrote them
    with quiet():
        model: Any = open_clip.create_model(
            spec.architecture.name,
            pretrained=None,
            load_weights=False,
            force_quick_gelu=spec.output.endswith("quick_gelu"),
        )
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise DataError(f"the weights do not fit open_clip's {spec.architecture.name}: {error}") from error
    return model.eval()
