"""DINOv3 ViT-B/16 (Simeoni et al., 2025), trained on photographs: what a general encoder gives on radiographs."""

from .channel_stats import IMAGENET_MEAN, IMAGENET_STD
from .sources import HubWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, TokenLayout

SPEC = EncoderSpec(
    name="dinov3",
    modality="image",
    architecture=Architecture(library="timm", name="vit_base_patch16_dinov3"),
    weights=HubWeights(repo="timm/vit_base_patch16_dinov3.lvd1689m", revision="main", files=("model.safetensors",)),
    preprocessing=ImagePreprocessing(
        resize_px=256, interpolation="bicubic", crop_px=256, mean=IMAGENET_MEAN, std=IMAGENET_STD
    ),
    tokens=TokenLayout(dim=768, grid=(16, 16), has_cls=True, dropped=4),
    output="features",
    layer="after the final LayerNorm",
    builder="featurestore.encoders.timm_models:build",
    objective="image-ssl",
    pretraining=("LVD-1689M (photographs)",),
    licence="DINOv3 licence",
    terms="Meta's DINOv3 licence: https://ai.meta.com/resources/models-and-libraries/dinov3-license",
    notes="timm's copy of the weights.",
)
