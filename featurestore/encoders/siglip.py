"""Encoders with the image tower of a SigLIP: MedSigLIP (Sellergren et al., 2025) and XraySigLIP (Chen et al., 2024).

The file holds both towers; the tokens are the image tower's, before the pooling head.
"""

from typing import Any

from .channel_stats import HALF
from .sources import HubWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, LoadRule, TokenLayout

_IMAGE_TOWER = LoadRule(
    drop=("text_model.*", "logit_scale", "logit_bias", "vision_model.head.*", "*.position_ids"),
    strip_prefix="vision_model.",
)


def _tower(*, hidden: int, layers: int, heads: int, intermediate: int, image_px: int, patch_px: int) -> Architecture:
    options: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "image_size": image_px,
        "patch_size": patch_px,
        "vision_use_head": False,
    }
    return Architecture(library="transformers", name="SiglipVisionModel", options=options)


MEDSIGLIP = EncoderSpec(
    name="medsiglip",
    modality="image",
    architecture=_tower(hidden=1152, layers=27, heads=16, intermediate=4304, image_px=448, patch_px=14),
    weights=HubWeights(repo="google/medsiglip-448", revision="main", files=("model.safetensors",), gated=True),
    load=_IMAGE_TOWER,
    preprocessing=ImagePreprocessing(
        resize_px=448, fit="stretch", interpolation="bilinear", crop_px=448, mean=HALF, std=HALF, resizer="hub-pil"
    ),
    tokens=TokenLayout(dim=1152, grid=(32, 32)),
    output="last_hidden_state",
    layer="after the final LayerNorm, before the pooling head",
    builder="featurestore.encoders.transformers_models:build_image",
    objective="aligned",
    pretraining=("MIMIC-CXR (images and reports)", "other (several medical image kinds)"),
    licence="HAI-DEF terms",
    terms="Gated: accept Google's Health AI Developer Foundations terms at https://huggingface.co/google/medsiglip-448",
    notes="Its card resizes without antialiasing, in TensorFlow; here Pillow's bilinear, as the hub's processor.",
)

XRAY_SIGLIP = EncoderSpec(
    name="xray-siglip",
    modality="image",
    architecture=_tower(hidden=1024, layers=24, heads=16, intermediate=4096, image_px=384, patch_px=16),
    weights=HubWeights(
        repo="StanfordAIMI/XraySigLIP__vit-l-16-siglip-384__webli", revision="main", files=("model.safetensors",)
    ),
    load=_IMAGE_TOWER,
    preprocessing=ImagePreprocessing(
        resize_px=384, fit="stretch", interpolation="bicubic", crop_px=384, mean=HALF, std=HALF, resizer="hub-pil"
    ),
    tokens=TokenLayout(dim=1024, grid=(24, 24)),
    output="last_hidden_state",
    layer="after the final LayerNorm, before the pooling head",
    builder="featurestore.encoders.transformers_models:build_image",
    objective="aligned",
    pretraining=("MIMIC-CXR (images and reports)", "CheXpert", "other"),
    licence="CC-BY-NC-4.0",
    terms="Not for commercial use (CC-BY-NC-4.0).",
    notes="Preprocessing is that of SigLIP's processor; the repository's own was not seen.",
)
