"""Image encoders whose network is timm's: vision transformers and convolutional networks alike.

    build(spec)            the encoder, with the weights in spec.weights
    network(spec)          the network alone, filled with random numbers

`spec.output` says which tokens: "features", what timm's forward_features gives (after a transformer's final norm), or
"before-norm", the last block's output.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .frozen import ImageEncoder
from .loading import load_tensors, state_of
from .spec import EncoderSpec, TokenLayout

if TYPE_CHECKING:
    from torch import Tensor, nn

    Features = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def network(spec: EncoderSpec) -> "nn.Module":
    """The network without head or pooling, on the ambient device."""
    import timm

    # WARN: not global_pool="avg": it makes the final norm an identity and the tokens un-normalised, without a word.
    options = {"num_classes": 0, "global_pool": "", **spec.architecture.options}
    return timm.create_model(spec.architecture.name, pretrained=False, **options)


def published_state(spec: EncoderSpec) -> "dict[str, Tensor]":
    """Names and shapes of the file's tensors."""
    return state_of(network(spec))


def build(spec: EncoderSpec, *, device: str) -> ImageEncoder:
    """The encoder with its weights on `device`."""
    model = loaded(spec, network(spec), device=device)
    return ImageEncoder(spec, features_of(spec, model), device=device)


def loaded(spec: EncoderSpec, model: Any, *, device: str) -> Any:
    """`model` with the encoder's weights, in evaluation mode, on `device`."""
    import torch

    model.load_state_dict(load_tensors(spec), strict=True)
    return model.eval().to(device=device, memory_format=torch.channels_last)


def features_of(spec: EncoderSpec, model: Any) -> "Features":
    """The function from images [b, 3, h, w] to patches [b, n, d] and class tokens [b, d] or None."""
    channels = int(spec.architecture.options.get("in_chans", 3))

    def forward(images: "Tensor") -> "tuple[Tensor, Tensor | None]":
        images = images[:, :channels]
        if spec.output == "before-norm":
            (patches, prefix), *_ = model.forward_intermediates(
                images, indices=1, norm=False, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
            )
            return patches, prefix[:, 0] if spec.tokens.has_cls else None
        return split_tokens(model.forward_features(images), spec.tokens)

    return forward


def split_tokens(features: "Tensor", layout: TokenLayout) -> "tuple[Tensor, Tensor | None]":
    """Patches [b, n, d] and class tokens of a network's features: [b, prefix + n, d], [b, d, h, w] or [b, h, w, d]."""
    rows, columns = layout.grid or (0, 0)
    if features.ndim == 3:
        return features[:, -rows * columns :], features[:, 0] if layout.has_cls else None
    if features.shape[1:] == (layout.dim, rows, columns):
        return features.flatten(2).transpose(1, 2), None
    return features.flatten(1, 2), None
