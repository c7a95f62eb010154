"""BiomedCLIP (Zhang et al., 2023): a ViT-B/16 aligned with captions of 15 million figures of biomedical articles.

The file is open_clip's; its image tower is timm's network, so one repository and no text tower are needed.
"""

from .channel_stats import CLIP_MEAN, CLIP_STD
from .sources import HubWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, LoadRule, TokenLayout, Variant

SPEC = EncoderSpec(
    name="biomedclip",
    modality="image",
    architecture=Architecture(library="timm", name="vit_base_patch16_224"),
    weights=HubWeights(
        repo="microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        revision="main",
        files=("open_clip_pytorch_model.bin",),
    ),
    load=LoadRule(drop=("visual.head.*", "text.*", "logit_scale"), strip_prefix="visual.trunk."),
    preprocessing=ImagePreprocessing(resize_px=224, interpolation="bicubic", crop_px=224, mean=CLIP_MEAN, std=CLIP_STD),
    tokens=TokenLayout(dim=768, grid=(14, 14), has_cls=True),
    output="features",
    layer="after the final LayerNorm of the image tower",
    builder="featurestore.encoders.timm_models:build",
    objective="aligned",
    pretraining=("PMC-15M",),
    licence="MIT",
    variants=(
        Variant(
            axis="preprocessing",
            reason="the paper and the authors both use the hub's processor",
            choices={"paper": {}, "authors": {}},
        ),
    ),
    notes="Its checkpoint was replaced once. The commit that was fetched is recorded, and the sha256 is in the key.",
)
