"""BioViL-T (Bannur et al., 2023): an image and a text encoder aligned on MIMIC-CXR, prior images included.

The image encoder is a ResNet-50, a 1x1 convolution to 256 channels, and a transformer that compares with a prior image.
Without a prior, as here, that transformer never runs and one learned vector stands for its 256 channels, the same at
every place of every image.
"""

from typing import TYPE_CHECKING, Any

from . import timm_models
from .cxr_bert import BERT_FILE
from .frozen import ImageEncoder
from .loading import state_of
from .sources import HubWeights
from .spec import (
    Architecture,
    EncoderSpec,
    ImagePreprocessing,
    LoadRule,
    TextPreprocessing,
    TokenLayout,
    Variant,
)

if TYPE_CHECKING:
    from torch import Tensor

_PREPROCESSING: dict[str, Any] = {
    "resize_px": 512,
    "interpolation": "bilinear",
    "crop_px": 448,
    "gray": "first",
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
}

SPEC = EncoderSpec(
    name="biovil-t",
    modality="image",
    architecture=Architecture(library="timm", name="resnet50"),
    weights=HubWeights(
        repo="microsoft/BiomedVLP-BioViL-T",
        revision="v1.0",
        files=("biovil_t_image_model_proj_size_128.pt",),
        known=(
            "md5:a83080e2f23aa584a4f2b24c39b1bb64",
            "sha256:b2399d73dc2a68b9f3a1950e864ae0ecd24093fb07aa459d7e65807ebdc0fb77",
        ),
    ),
    load=LoadRule(drop=("encoder.encoder.fc.*", "encoder.vit_pooler.*", "projector.*"), strip_prefix="encoder."),
    preprocessing=ImagePreprocessing(**_PREPROCESSING),
    tokens=TokenLayout(dim=2048, grid=(14, 14)),
    output="backbone",
    layer="layer4 of the ResNet-50",
    builder="featurestore.encoders.biovil_t:build",
    objective="aligned",
    pretraining=("MIMIC-CXR (images and reports)",),
    licence="MIT",
    variants=(
        Variant(
            axis="preprocessing",
            reason="the paper names no min-max; the authors' loader stretches every image to 0..255 first",
            choices={
                "paper": {},
                "authors": {"preprocessing": ImagePreprocessing(**_PREPROCESSING, min_max=True)},
            },
        ),
        Variant(
            axis="tokens",
            reason="the convolutional feature map (section 2.1); of the official 512 channels half are constant",
            choices={
                "backbone": {},
                "official": {
                    "output": "official",
                    "tokens": TokenLayout(dim=512, grid=(14, 14)),
                    "layer": "patch embeddings: 256 static channels, then the 256 of the missing prior, constant",
                },
                "static": {
                    "output": "static",
                    "tokens": TokenLayout(dim=256, grid=(14, 14)),
                    "layer": "patch embeddings without the constant channels of the missing prior",
                },
            },
        ),
    ),
)

BERT = EncoderSpec(
    name="biovil-t-bert",
    modality="text",
    architecture=Architecture(
        library="transformers", name="BertModel", options={"vocab_size": 30522, "layer_norm_eps": 1e-12}
    ),
    weights=HubWeights(repo="microsoft/BiomedVLP-BioViL-T", revision="main", files=("model.safetensors", "vocab.txt")),
    load=BERT_FILE,
    preprocessing=TextPreprocessing(
        tokenizer="bert-wordpiece", context_length=512, lower_case=True, special_tokens=("[CLS]", "[SEP]")
    ),
    tokens=TokenLayout(dim=768),
    output="last_hidden_state",
    layer="the output of the last transformer layer",
    builder="featurestore.encoders.transformers_models:build_bert",
    objective="aligned",
    pretraining=("MIMIC-CXR (images and reports)", "PubMed", "MIMIC-III"),
    licence="MIT",
    notes="The paper's text encoder. The code in its repository is not run.",
)


def network(spec: EncoderSpec) -> Any:
    """What a single image runs through, under the names of the file. Filled with random numbers."""
    import torch
    from torch import nn

    parts = nn.Module()
    parts.encoder = timm_models.network(spec)
    parts.backbone_to_vit = nn.Conv2d(2048, 256, kernel_size=1, bias=False)
    parts.missing_previous_emb = nn.Parameter(torch.zeros(1, 256, 1, 1))
    return parts


def published_state(spec: EncoderSpec) -> "dict[str, Tensor]":
    """Names and shapes of the file's tensors."""
    return state_of(network(spec))


def build(spec: EncoderSpec, *, device: str) -> ImageEncoder:
    """The encoder with its weights on `device`."""
    import torch

    model = timm_models.loaded(spec, network(spec), device=device)

    def forward(images: "Tensor") -> "tuple[Tensor, None]":
        features = model.encoder.forward_features(images)
        if spec.output != "backbone":  # [b, 2048, 14, 14] -> [b, 256, 14, 14]
            features = model.backbone_to_vit(features)
        if spec.output == "official":
            features = torch.cat([features, model.missing_previous_emb.expand_as(features)], dim=1)
        return features.flatten(2).transpose(1, 2), None

    return ImageEncoder(spec, forward, device=device)
